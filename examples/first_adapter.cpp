// The shortest way: describe a model, put an adapter into it, run it, look at it.
#include <graft/graft.hpp>

#include <iostream>

struct Mlp {
  graft::Adaptable<graft::Linear<>> up{4, 8};  // a layer with room for adapters
  graft::Adaptable<graft::Linear<>> down{8, 4};
  auto operator()(const auto& x) const { return down(graft::relu(up(x))); }
  GRAFT_MODULE(up, down)  // the one added line
};

int main() {
  Mlp model;
  graft::initialise(model, 1);
  const graft::Matrix<> x = graft::Matrix<>::Constant(2, 4, 0.5f);  // two samples of four features
  const graft::Matrix<> base = model(x);

  const graft::LoraConfig config{.r = 2, .lora_alpha = 4, .target_modules = {"up"}};
  const graft::InjectReport report = graft::inject_adapter_in_model(config, model);
  for (const auto& [path, kind, in, out, r] : report.matched)
    std::cout << "adapted " << path << ": " << in << " to " << out << " features, r = " << r << '\n';
  std::cout << graft::repr(model) << '\n';

  std::cout << std::boolalpha << "a new LoRA changes nothing: " << (model(x) == base) << '\n';
  model.up.parameter("default", "lora_B").view<float>().setConstant(0.5f);
  std::cout << "a trained one does: " << (model(x) != base) << '\n';
  {
    const auto guard = graft::disable_adapter(model);
    std::cout << "switched off, the base is back bit for bit: " << (model(x) == base) << '\n';
  }
}
