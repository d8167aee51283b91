#include <graft/state_dict/status.hpp>

#include <graft/injection/control.hpp>

#include "support/merging.hpp"

using graft::LoraConfig;
using Strings = std::vector<std::string>;

namespace {
struct Net {
  graft::Adaptable<graft::Linear<float>> p{5, 7}, q{7, 3, false};
  graft::Linear<float> head{3, 4};
  GRAFT_MODULE(p, q, head)
};
struct Exchanging {
  graft::Adaptable<graft::Embedding<>> embed_tokens{11, 6};
  graft::Adaptable<graft::Linear<>> q{6, 6}, k{6, 6}, score{6, 3}, plain{3, 3};
  GRAFT_MODULE(embed_tokens, q, k, score, plain)
};
}  // namespace

// Real PEFT 0.21.2 was asked about the same model: nn.Linear(5, 7), nn.Linear(7, 3, bias=False), nn.Linear(3, 4).
TEST_CASE("layers and model stand as PEFT says") {
  Net net;
  CHECK_THROWS_AS((void)graft::get_layer_status(net), graft::AdapterError);
  CHECK_THROWS_AS((void)graft::get_model_status(net), graft::AdapterError);
  CHECK(graft::get_nb_trainable_parameters(net).trainable == 0);
  CHECK(graft::get_nb_trainable_parameters(net).total == 79);

  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"p", "q"}}, net, "b");
  (void)graft::inject_adapter_in_model(graft::AdaLoraConfig{.init_r = 3, .target_modules = {"q"}, .inference_mode = true}, net, "a",
                                       {.low_cpu_mem_usage = true, .activate = false});
  const auto layers = graft::get_layer_status(net);
  REQUIRE(layers.size() == 2);
  CHECK(layers[0].name == "p");
  CHECK(layers[0].module_type == "lora.Linear");
  CHECK(layers[1].module_type == "adalora.SVDLinear");
  CHECK(layers[0].enabled);
  CHECK(layers[0].active_adapters == Strings{"b"});
  CHECK(layers[0].merged_adapters.empty());
  CHECK(layers[0].available_adapters == Strings{"b"});
  CHECK(layers[1].available_adapters == Strings{"a", "b"});
  CHECK(layers[1].requires_grad == std::map<std::string, bool>{{"a", false}, {"b", true}});
  CHECK(layers[1].devices.at("a") == Strings{"meta"});
  CHECK(layers[1].devices.at("b") == Strings{"cpu"});

  auto model = graft::get_model_status(net);
  CHECK(model.base_model_type == "Net");
  CHECK(model.num_adapter_layers == 2);
  CHECK(model.peft_types.at("a") == "ADALORA");
  CHECK(model.active_adapters == Strings{"b"});
  CHECK(model.available_adapters == Strings{"a", "b"});
  CHECK(model.irregular.empty());
  // b: 2·(5 + 7) + 2·(7 + 3); a: 3·7 + 3·3 + 3 + 1 for ranknum
  CHECK(model.trainable_params == 44);
  CHECK(model.total_params == 79 + 44 + 34);

  trained::fill(net, "b");
  (void)graft::merge_adapter(net);
  model = graft::get_model_status(net);
  CHECK(model.merged_adapters == Strings{"b"});
  CHECK(graft::get_layer_status(net)[1].merged_adapters == Strings{"b"});
  (void)graft::unmerge_adapter(net);
  const auto guard = graft::disable_adapter(net);
  CHECK_FALSE(graft::get_model_status(net).enabled);
}

// As real PEFT 0.21.2 prints it for the same model with bias="all".
TEST_CASE("what exchanges rows or modules knows its own adapters alone, and a trained bias makes no adapter layer") {
  Exchanging net;
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .bias = graft::Bias::all, .target_modules = {"q"}, .modules_to_save = {"score"},
                                                  .trainable_token_indices = {{"embed_tokens", {1, 2}}}}, net, "b");
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"q", "k"}}, net, "a", {.activate = false});
  const auto check = [&](const std::vector<Strings>& active, const std::vector<Strings>& available, const Strings& irregular) {
    const auto layers = graft::get_layer_status(net);
    REQUIRE(layers.size() == 4);
    const Strings names{"embed_tokens.token_adapter", "q", "k", "score"};
    const Strings types{"TrainableTokensLayer", "lora.Linear", "lora.Linear", "ModulesToSaveWrapper"};
    for (std::size_t i = 0; i < 4; ++i) {
      CAPTURE(i);
      CHECK(layers[i].name == names[i]);
      CHECK(layers[i].module_type == types[i]);
      CHECK(layers[i].active_adapters == active[i]);
      CHECK(layers[i].available_adapters == available[i]);
    }
    CHECK(graft::get_model_status(net).num_adapter_layers == 4);
    CHECK(graft::get_model_status(net).irregular == irregular);
  };
  const std::vector<Strings> available{{"b"}, {"a", "b"}, {"a"}, {"b"}};
  check({{"b"}, {"b"}, {"b"}, {"b"}}, available, {});
  graft::set_adapter(net, "a");
  check({{}, {"a"}, {"a"}, {}}, available, {"active_adapters"});
  graft::set_adapter(net, {"b", "a"});
  check({{"b"}, {"b", "a"}, {"b", "a"}, {"b"}}, available, {"active_adapters"});
  graft::set_adapter(net, "b");
  CHECK(graft::delete_adapter(net, "b") == Strings{"a"});
  check({{}, {"a"}, {"a"}, {}}, {{}, {"a"}, {"a"}, {}}, {"active_adapters"});
}

TEST_CASE("what layers, or the parameters of one, disagree about is irregular") {
  Net net;
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"p", "q"}}, net, "a");
  const graft::ModelSites sites = graft::sites_of(net);
  sites.sites[0]->table()->find("a")->state()->parameters()[0].data->set_requires_grad(false);
  CHECK(graft::get_layer_status(net)[0].irregular == Strings{"a"});
  CHECK(graft::get_model_status(net).irregular == Strings{"requires_grad.a"});
  CHECK_FALSE(graft::get_model_status(net).requires_grad.at("a"));
  graft::set_requires_grad(net, "a", true);
  CHECK(graft::get_model_status(net).irregular.empty());
  sites.sites[0]->table()->merged = {0};
  CHECK(graft::get_model_status(net).irregular == Strings{"merged_adapters"});
}

namespace {
struct TiedNet {
  graft::Embedding<float> embed{5, 3};
  graft::Adaptable<graft::Linear<float>> head{3, 5, false};
  TiedNet() { head->weight = embed.weight.share(); }
  GRAFT_MODULE(embed, head)
};
struct TiedSites {
  graft::Adaptable<graft::Embedding<float>> embed_tokens{5, 3};
  graft::Adaptable<graft::Linear<float>> p{3, 3}, lm_head{3, 5, false};
  TiedSites() { lm_head->weight = embed_tokens->weight.share(); }
  GRAFT_MODULE(embed_tokens, p, lm_head)
};
}  // namespace

TEST_CASE("tied weights count once, copies and trained biases as what they are") {
  TiedNet tied;
  CHECK(graft::get_nb_trainable_parameters(tied).total == 15);
  for (const bool tie : {true, false}) {  // one copy for both ends, or one for each: PEFT's counts for a model with tie_word_embeddings
    TiedSites both;
    (void)graft::inject_adapter_in_model(
        LoraConfig{.r = 2, .target_modules = {"p"}, .modules_to_save = {"embed_tokens", "lm_head"}, .ensure_weight_tying = tie}, both, "a");
    const int copies = tie ? 15 : 30;
    CHECK(graft::get_nb_trainable_parameters(both).trainable == 12 + copies);
    CHECK(graft::get_nb_trainable_parameters(both).total == 15 + 12 + 12 + copies);
  }
  Net net;
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 1, .bias = graft::Bias::lora_only, .target_modules = {"p"}, .modules_to_save = {"q"}},
                                       net, "a");
  // p: A 5, B 7, its bias 7, which is the base's; q's copy 21
  CHECK(graft::get_nb_trainable_parameters(net).trainable == 40);
  CHECK(graft::get_nb_trainable_parameters(net).total == 79 + 12 + 21);
  graft::set_requires_grad(net, "a", false);
  CHECK(graft::get_nb_trainable_parameters(net).trainable == 0);
}

namespace {
struct Side {
  graft::Adaptable<graft::Linear<>> fc{5, 7};
  graft::Adaptable<graft::LayerNorm<>> norm{7};
  GRAFT_MODULE(fc, norm)
};
struct Small {
  graft::Adaptable<graft::Linear<>> lin{5, 5};
  Side side;
  GRAFT_MODULE(lin, side)
};
struct Holding {
  graft::Adaptable<graft::Linear<>> lin{5, 5};
  Side side;
  graft::Adaptable<graft::MultiheadAttention<>> m{6, 2};
  GRAFT_MODULE(lin, side, m)
};
Strings names_of(const std::vector<graft::LayerStatus>& layers) {
  Strings names;
  for (const auto& layer : layers) names.push_back(layer.name + " " + layer.module_type);
  return names;
}
}  // namespace

// Real PEFT 0.21.2 was asked about the same modules. It prints names as they are in memory, and LoRA in a saved module once for
// every copy: `side.original_module.fc`, `side.modules_to_save.a.fc`.
TEST_CASE("a module that is saved whole is one layer") {
  const LoraConfig saving{.r = 2, .target_modules = {"lin"}, .modules_to_save = {"side", "m"}};
  Holding net;
  (void)graft::inject_adapter_in_model(saving, net, "a");
  (void)graft::inject_adapter_in_model(saving, net, "b", {.activate = false});
  graft::set_adapter(net, "a");
  const auto layers = graft::get_layer_status(net);
  CHECK(names_of(layers) == Strings{"lin lora.Linear", "side ModulesToSaveWrapper", "m ModulesToSaveWrapper"});
  for (const auto& layer : layers) {
    CHECK(layer.available_adapters == Strings{"a", "b"});
    CHECK(layer.active_adapters == Strings{"a"});
    CHECK(layer.requires_grad == std::map<std::string, bool>{{"a", true}, {"b", false}});
    CHECK(layer.devices.at("b") == Strings{"cpu"});
    CHECK(layer.irregular.empty());
  }
  CHECK(graft::get_model_status(net).num_adapter_layers == 3);
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"fc"}}, net, "c");
  CHECK(names_of(graft::get_layer_status(net)) ==
        Strings{"lin lora.Linear", "side ModulesToSaveWrapper", "side.fc lora.Linear", "m ModulesToSaveWrapper"});
  CHECK(graft::get_layer_status(net)[2].available_adapters == Strings{"c"});
  trained::fill(net, "c");
  (void)graft::merge_adapter(net);
  CHECK(graft::get_layer_status(net)[1].merged_adapters.empty());
  CHECK(graft::get_layer_status(net)[2].merged_adapters == Strings{"c"});
  (void)graft::unmerge_adapter(net);
  for (const char* name : {"a", "b", "c"}) graft::delete_adapter(net, name);
  const auto left = graft::get_layer_status(net);
  CHECK(names_of(left) == Strings{"lin lora.Linear", "side ModulesToSaveWrapper", "side.fc lora.Linear", "m ModulesToSaveWrapper"});
  for (const auto& layer : left) CHECK(layer.available_adapters.empty());
}

TEST_CASE("a model in which modules are saved whole has as many parameters as PEFT says") {
  Small net;
  const LoraConfig saving{.r = 2, .target_modules = {"lin"}, .modules_to_save = {"side"}};
  (void)graft::inject_adapter_in_model(saving, net, "a");
  (void)graft::inject_adapter_in_model(saving, net, "b", {.activate = false});
  graft::set_adapter(net, "a");
  CHECK(graft::get_model_status(net).trainable_params == 76);
  CHECK(graft::get_model_status(net).total_params == 238);
}
