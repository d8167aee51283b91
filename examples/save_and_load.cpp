// PEFT's directories: an adapter that is saved here is one that Python loads, and the other way round.
#include <graft/io.hpp>

#include <algorithm>
#include <filesystem>
#include <iostream>

struct Layer {
  graft::Adaptable<graft::Linear<>> q_proj{8, 8}, v_proj{8, 8};
  auto operator()(const auto& x) const { return graft::add(q_proj(x), v_proj(x)); }
  GRAFT_MODULE(q_proj, v_proj)
};
struct Model {
  std::vector<Layer> layers = std::vector<Layer>(2);
  graft::Adaptable<graft::Linear<>> score{8, 3};
  auto operator()(const auto& x) const {
    auto h = graft::eval(x);
    for (const Layer& layer : layers) h = layer(h);
    return score(h);
  }
  GRAFT_MODULE(layers, score)
};

void list(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) names.push_back(entry.path().lexically_relative(folder).generic_string());
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) std::cout << "  " << name << '\n';
}

int main() {
  const auto folder = std::filesystem::temp_directory_path() / "graft_save_and_load";
  std::filesystem::remove_all(folder);

  Model model;
  graft::initialise(model, 1);
  const graft::LoraConfig lora{.r = 4, .lora_alpha = 8, .target_modules = {"q_proj", "v_proj"},
                               .init_lora_weights = false, .rank_pattern = {{"layers.1.v_proj", 2}},
                               .modules_to_save = {"score"}};
  graft::inject_adapter_in_model(lora, model);
  const graft::Ia3Config ia3{.target_modules = {"q_proj", "v_proj"}, .feedforward_modules = {"q_proj"},
                             .init_ia3_weights = false};
  graft::inject_adapter_in_model(ia3, model, "terse");

  graft::save_pretrained(model, folder);           // "default" goes into the folder itself
  graft::save_pretrained(model, folder, "terse");  // any other name into a folder of its own
  std::cout << "written:\n";
  list(folder);

  std::cout << "\nthe tensors of the first, as in the file:\n";
  for (const auto& [key, view] : graft::load_peft_weights(folder))
    std::cout << "  " << key << ' ' << graft::to_string(view.shape) << '\n';
  const auto config = std::get<graft::LoraConfig>(graft::load_peft_config(folder));
  std::cout << "its config: r = " << config.r << ", lora_alpha = " << config.lora_alpha
            << ", target_modules of " << config.target_modules.names().size() << '\n';

  Model fresh;
  graft::initialise(fresh, 1);
  const auto report = graft::load_adapter(fresh, folder);
  std::cout << "\nloaded " << report.loaded.size() << " tensors, missing " << report.missing_keys.size()
            << ", unexpected " << report.unexpected_keys.size() << '\n';
  // mapped: the parameters are the file's own bytes, in memory only once they are read
  graft::load_adapter(fresh, folder / "terse", "terse", {.mapped = true, .activate = false});

  const graft::Matrix<> x = graft::Matrix<>::Identity(3, 8);
  for (const char* name : {"default", "terse"}) {
    graft::set_adapter(model, name);
    graft::set_adapter(fresh, name);
    std::cout << std::boolalpha << name << ": the models agree bit for bit " << (model(x) == fresh(x)) << '\n';
  }
  std::filesystem::remove_all(folder);
}
