// The model of PEFT's guide to injection: inject, print, save, load, and load without allocating twice.
#include <graft/io.hpp>

#include <filesystem>
#include <iostream>

struct DummyModel {
  graft::Embedding<> embedding{10, 10};
  graft::Adaptable<graft::Linear<>> linear{10, 10};
  graft::Linear<> lm_head{10, 10};
  auto operator()(const auto& input_ids) const { return lm_head(linear(embedding(input_ids))); }
  GRAFT_MODULE(embedding, linear, lm_head)
};

const char* name_of(graft::Device device) { return device == graft::Device::meta ? "meta" : "cpu"; }

int main() {
  const graft::LoraConfig config{.r = 64, .lora_alpha = 16, .lora_dropout = 0.1, .bias = graft::Bias::none,
                                 .target_modules = {"linear"}};
  DummyModel model;
  graft::initialise(model, 0);
  graft::inject_adapter_in_model(config, model);
  std::cout << graft::repr(model) << '\n';

  // saving: one adapter's tensors, by PEFT's keys
  const graft::StateDict state_dict = graft::get_peft_model_state_dict(model);
  std::cout << "\nsaved:\n";
  for (const auto& [key, view] : state_dict)
    std::cout << "  " << key << ' ' << graft::to_string(view.shape) << '\n';
  const auto file = std::filesystem::temp_directory_path() / "graft_dummy_model.safetensors";
  graft::safetensors::save_file(state_dict, file);

  // loading: what does not belong is reported, or an error
  auto outcome = graft::set_peft_model_state_dict(model, graft::safetensors::load_file(file));
  const auto& unexpected = outcome.unexpected_keys;
  std::cout << "\nloaded " << outcome.loaded.size() << ", unexpected " << unexpected.size() << '\n';

  graft::StateDict stray = state_dict;
  stray.insert("linear.lora_C.weight", state_dict.at("linear.lora_A.weight"));
  graft::safetensors::save_file(stray, file);
  const graft::StateDict from_file = graft::safetensors::load_file(file);
  outcome = graft::set_peft_model_state_dict(model, from_file, "default", {.strict = false});
  std::cout << "with a stray key, not strictly: unexpected " << unexpected.front() << '\n';
  try {
    graft::set_peft_model_state_dict(model, from_file);
  } catch (const graft::StateDictError& error) {
    std::cout << "strictly: " << error.problem << '\n';
  }
  std::filesystem::remove(file);

  // low_cpu_mem_usage: shapes now, memory when the values come
  DummyModel fresh;
  graft::initialise(fresh, 0);
  graft::inject_adapter_in_model(config, fresh, "default", {.low_cpu_mem_usage = true});
  const auto device = [&] { return name_of(fresh.linear.parameter("default", "lora_A").device()); };
  std::cout << "\nlora_A before loading: " << device() << '\n';
  outcome = graft::set_peft_model_state_dict(fresh, state_dict, "default", {.low_cpu_mem_usage = true});
  std::cout << "lora_A after loading: " << device() << ", unexpected " << unexpected.size() << '\n';

  const std::vector<int> input_ids{0, 1, 2, 3};
  std::cout << std::boolalpha << "both models agree: " << (model(input_ids) == fresh(input_ids)) << '\n';
}
