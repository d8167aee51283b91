#include <graft/state_dict/wrapped_modules.hpp>

#include <doctest/doctest.h>

#include "support/expert_model.hpp"
#include "support/results.hpp"

using graft::Shape;
using Keys = std::vector<std::string>;

namespace {

// class E(nn.Module): self.gate = nn.Linear(5, 3); self.w = (3, 4, 5); self.scale = (5,); self.u = (4, 5)
struct E {
  graft::Parameter<> scale{Shape{5}};
  graft::Adaptable<graft::Linear<>> gate{5, 3};
  graft::Adaptable<graft::Parameter<>> w{Shape{3, 4, 5}}, u{Shape{4, 5}};
  GRAFT_MODULE(scale, gate, w, u)
};
struct One {
  E m;
  graft::Adaptable<graft::Linear<>> n{5, 5};
  GRAFT_MODULE(m, n)
};

struct Weights {
  std::vector<graft::Adaptable<graft::Parameter<>>> weights;
  GRAFT_MODULE(weights)
};
struct Listed {
  Weights list;
  Listed() {
    for (int i = 0; i < 2; ++i) list.weights.emplace_back(Shape{4, 5});
  }
  GRAFT_MODULE(list)
};

graft::LoraConfig config() {
  graft::LoraConfig made{.r = 2, .target_modules = {"gate", "n"}};
  made.target_parameters = {"m.u", "m.w"};
  return made;
}

}  // namespace

TEST_CASE("what stands in a module is as many components deeper as it has wrappers") {
  One model;
  const graft::ModelSites sites = graft::sites_of(model);
  const graft::detail::WrappedModules modules(sites, [&](std::size_t i) { return sites.sites[i]->path() != "m.gate"; });
  CHECK(modules.inside("m.gate.weight") == "m.base_layer.base_layer.gate.weight");
  CHECK(modules.inside("m") == "m");
  CHECK(modules.inside("mm.w") == "mm.w");
  CHECK(modules.inside("n.weight") == "n.weight");
  CHECK_FALSE(modules.empty());
  CHECK(graft::detail::wrapped_modules(sites).empty());
}

TEST_CASE("what stands in a module that is saved whole is below original_module, in each one around it") {
  graft::detail::WrappedModules modules;
  for (const char* path : {"a.side", "a", "side", "a.side"}) modules.save(path);
  CHECK(modules.inside("a.side.fc.weight") == "a.original_module.side.original_module.fc.weight");
  CHECK(modules.inside("a.sides.fc") == "a.original_module.sides.fc");
  CHECK(modules.inside("side") == "side");
  CHECK(modules.within("side") == "side.original_module");
  CHECK(modules.within("a.b") == "a.original_module.b");
  CHECK(modules.is_saved("a.side"));
  CHECK_FALSE(modules.is_saved("a.sides"));
}

TEST_CASE("keys of a module of which two parameters and a layer are adapted: PEFT's own") {
  One model;
  (void)graft::inject_adapter_in_model(config(), model);
  const Keys all = graft::state_dict(model).keys();
  CHECK(all == Keys{"m.base_layer.base_layer.scale", "m.base_layer.base_layer.gate.base_layer.weight",
                    "m.base_layer.base_layer.gate.base_layer.bias", "m.base_layer.base_layer.gate.lora_A.default.weight",
                    "m.base_layer.base_layer.gate.lora_B.default.weight", "m.base_layer.base_layer.w", "m.base_layer.base_layer.u",
                    "m.base_layer.lora_A.default.weight", "m.base_layer.lora_B.default.weight", "m.lora_A.default.weight",
                    "m.lora_B.default.weight", "n.base_layer.weight", "n.base_layer.bias", "n.lora_A.default.weight",
                    "n.lora_B.default.weight"});
  CHECK(graft::get_peft_model_state_dict(model).keys() ==
        Keys{"m.base_layer.base_layer.gate.lora_A.weight", "m.base_layer.base_layer.gate.lora_B.weight", "m.base_layer.lora_A.weight",
             "m.base_layer.lora_B.weight", "m.lora_A.weight", "m.lora_B.weight", "n.lora_A.weight", "n.lora_B.weight"});
  const Keys base{"m.scale", "m.gate.weight", "m.gate.bias", "m.w", "m.u", "n.weight", "n.bias"};
  CHECK(graft::get_base_model_state_dict(model).keys() == base);

  // both spellings of the base are read
  graft::StateDict wrapped;
  for (const auto& [key, view] : graft::state_dict(model))
    if (key.find("lora_") == key.npos) wrapped.insert(key, view);
  const graft::StateDict owned = wrapped.clone();
  CHECK(graft::set_base_model_state_dict(model, owned).loaded == base);

  // another adapter, at the layer alone, has the keys that it would have without the first
  graft::LoraConfig other{.r = 2, .target_modules = {"gate"}};
  (void)graft::inject_adapter_in_model(other, model, "other");
  CHECK(graft::get_peft_model_state_dict(model, "other").keys() == Keys{"m.gate.lora_A.weight", "m.gate.lora_B.weight"});
  graft::unload(model);
  CHECK(graft::state_dict(model).keys() == base);
}

TEST_CASE("the printed tree of it") {
  One model;
  (void)graft::inject_adapter_in_model(config(), model);
  const std::string tree = graft::repr(model);
  const std::string begin = R"(One(
  (m): lora.ParamWrapper(
    parameter_name='u',
    (base_layer): lora.ParamWrapper(
      parameter_name='w',
      (base_layer): E(
        (gate): lora.Linear(
          (base_layer): Linear(in_features=5, out_features=3, bias=True)
)";
  CHECK(tree.substr(0, begin.size()) == begin);
  const std::string inner = R"(
      (lora_dropout): ModuleDict(
        (default): Identity()
      )
      (lora_A): ModuleDict(
        (default): Linear(in_features=5, out_features=6, bias=False)
      )
      (lora_B): ModuleDict(
        (default): Linear(in_features=6, out_features=4, bias=False)
      )
      (lora_embedding_A): ParameterDict()
      (lora_embedding_B): ParameterDict()
      (lora_magnitude_vector): ModuleDict()
    )
)";
  CHECK(tree.find(inner) != tree.npos);
  graft::unload(model);
  CHECK(graft::repr(model) == graft::repr(One{}));
}

TEST_CASE("a parameter of a linear layer, to which a later adapter of the layer is added") {
  One model;
  graft::LoraConfig of_weight{.r = 2};
  of_weight.target_parameters = {"n.weight"};
  (void)graft::inject_adapter_in_model(of_weight, model);
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.r = 2, .target_modules = {"n"}}, model, "b");
  const std::string tree = graft::repr(model);
  CHECK(tree.find(R"(  (n): lora.ParamWrapper(
    parameter_name='weight',
    (base_layer): Linear(in_features=5, out_features=5, bias=True)
    (lora_dropout): ModuleDict(
      (default): Identity()
      (b): Identity()
    ))") != tree.npos);
  CHECK(graft::get_layer_status(model).at(0).module_type == "lora.ParamWrapper");
  CHECK(graft::get_peft_model_state_dict(model).keys() == Keys{"n.lora_A.weight", "n.lora_B.weight"});
}

TEST_CASE("a list of parameters prints as one") {
  Listed model;
  CHECK(graft::repr(model) == R"(Listed(
  (list): Weights(
    (weights): ParameterList(
        (0): Parameter containing: [torch.float32 of size 4x5]
        (1): Parameter containing: [torch.float32 of size 4x5]
    )
  )
))");
  CHECK(graft::state_dict(model).keys() == Keys{"list.weights.0", "list.weights.1"});
}

TEST_CASE("saved, loaded and exchanged, values stay") {
  using experts::Net;
  const auto x = awkward::rows<float>(10, 7);
  Net<float> net;
  (void)graft::inject_adapter_in_model(experts::config(), net, "a");
  experts::train(net, "a", 3);
  const graft::StateDict saved = graft::get_peft_model_state_dict(net, "a").clone();
  CHECK(saved.keys() == Keys{"experts.base_layer.lora_A.weight", "experts.base_layer.lora_B.weight", "experts.lora_A.weight",
                             "experts.lora_B.weight"});
  const auto with = net(x);
  for (const bool meta : {false, true}) {
    Net<float> fresh;
    (void)graft::inject_adapter_in_model(experts::config(), fresh, "c", {.low_cpu_mem_usage = meta});
    (void)graft::set_peft_model_state_dict(fresh, saved, "c", {.low_cpu_mem_usage = meta});
    CHECK(results::same_bits(fresh(x), with));
    CHECK(results::bytes_of(graft::get_peft_model_state_dict(fresh, "c")) == results::bytes_of(saved));
  }
  Net<float> other;
  (void)graft::inject_adapter_in_model(experts::config(2), other, "a");
  experts::train(other, "a", 5);
  REQUIRE_FALSE(results::same_values(other(x), with));
  (void)graft::hotswap_adapter(other, saved, experts::config(), "a");
  CHECK(results::same_bits(other(x), with));

  graft::StateDict missing = saved.clone();
  missing.erase("experts.lora_A.weight");
  CHECK_THROWS_AS((void)graft::set_peft_model_state_dict(net, missing, "a"), graft::StateDictError);
  CHECK(results::same_bits(net(x), with));
}
