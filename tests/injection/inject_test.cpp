#include <graft/injection/inject.hpp>

#include <doctest/doctest.h>

#include <graft/regex.hpp>

#include "support/results.hpp"
#include "support/trained.hpp"
#include "support/tree_model.hpp"

using graft::AdaLoraConfig;
using graft::Ia3Config;
using graft::LoraConfig;
using results::everything;
using Strings = std::vector<std::string>;
using tree::mentions;

namespace {

/// A model that has an adapter with trained biases, a copy and a scale: nothing of it may move.
tree::Net busy() {
  tree::Net net;
  trained::inject(
      LoraConfig{.r = 2, .bias = graft::Bias::all, .target_modules = {"q_proj"}, .modules_to_save = {"head"}},
      net, "old");
  graft::set_scale(net, "old", 0.5);
  return net;
}

/// The error that an injection raises, having changed nothing.
template <class E, class Config>
std::string refused(const Config& config, const std::string& name = "new",
                    const graft::InjectOptions& options = {}) {
  for (const bool is_busy : {false, true}) {
    tree::Net net = is_busy ? busy() : tree::Net{};
    const std::string before = everything(net);
    if (!is_busy && name == "old") continue;
    try {
      (void)graft::inject_adapter_in_model(config, net, name, options);
      return "accepted";
    } catch (const E& error) {
      CHECK_FALSE(error.problem.empty());
      CHECK_FALSE(error.fix.empty());
      CHECK(everything(net) == before);
      if (is_busy) return error.what();
    }
  }
  return {};
}
bool has(const std::string& text, std::string_view part) {
  if (text.find(part) == std::string::npos) MESSAGE(text);
  return text.find(part) != std::string::npos;
}
struct Shared {
  std::shared_ptr<tree::Site> first = std::make_shared<tree::Site>(3, 3), again;
  GRAFT_MODULE(first, again)
};
struct Unloaded {
  graft::Adaptable<graft::Linear<float, graft::lazy>> p{3, 3};
  graft::Linear<float, graft::lazy> plain{3, 3};
  GRAFT_MODULE(p, plain)
};
const LoraConfig simple{.target_modules = {"k_proj"}};

}  // namespace

TEST_CASE("names of adapters: taken, empty, with a dot, reserved") {
  CHECK(has(refused<graft::AdapterError>(simple, "old"), "'old' already"));
  CHECK(has(refused<graft::AdapterError>(simple, ""), "needs a name"));
  CHECK(has(refused<graft::AdapterError>(simple, "a.b"), "dots"));
  CHECK(has(refused<graft::AdapterError>(simple, "__base__"), "reserved"));
  CHECK(has(refused<graft::AdapterError>(simple, "a\nb"), "control characters"));
  tree::Net net;
  for (const char* name : {"keys", "forward", "lora", "q_proj", "weight", "mit Leerzeichen", "λ"})
    trained::inject(simple, net, name, 3, false);
  const graft::StateDict one = graft::get_peft_model_state_dict(net, "q_proj");  // S-3: no key is lost
  CHECK(one.size() == 6);
  CHECK(one.contains("model.layers.0.self_attn.k_proj.lora_A.weight"));
}

TEST_CASE("a config that contradicts itself is refused before the model is looked at") {
  const auto lora = [](auto change) {
    LoraConfig config = simple;
    change(config);
    return refused<graft::ConfigError>(config);
  };
  CHECK(has(lora([](LoraConfig& c) { c.r = 0; }), "'r' is 0"));
  CHECK(has(lora([](LoraConfig& c) { c.lora_dropout = 1.5; }), "lora_dropout"));
  CHECK(has(lora([](LoraConfig& c) { c.bias = graft::Bias(7); }), "'bias' is 7"));
  CHECK(has(lora([](LoraConfig& c) { c.init_lora_weights = "guassian"; }), "guassian"));
  CHECK(has(lora([](LoraConfig& c) { c.layers_pattern = {"layers"}; }), "layers_pattern"));
  CHECK(has(lora([](LoraConfig& c) { c.rank_pattern = {{"k_proj", 0}}; }), "rank_pattern"));
  CHECK(has(lora([](LoraConfig& c) { c.lora_bias = c.use_dora = true; }), "lora_bias"));
  CHECK(has(lora([](LoraConfig& c) {
              c.lora_bias = true;
              c.init_lora_weights = "gaussian";
            }),
            "lora_bias"));
  CHECK(has(lora([](LoraConfig& c) {
              c.target_modules = graft::regex(".*k_proj");
              c.layers_to_transform = {1};
            }),
            "layers_to_transform"));
  CHECK(has(
      refused<graft::ConfigError>(Ia3Config{.target_modules = {"k_proj"}, .feedforward_modules = {"q_proj"}}),
      "feedforward_modules"));
  CHECK(
      has(refused<graft::ConfigError>(Ia3Config{.target_modules = {"mlp.w0"}, .feedforward_modules = {"w0"}}),
          "compared literally"));
  const auto ada = [](auto change) {
    AdaLoraConfig config{.target_modules = {"k_proj"}, .total_step = 100};
    change(config);
    return refused<graft::ConfigError>(config);
  };
  CHECK(has(ada([](AdaLoraConfig& c) { c.init_r = -1; }), "init_r"));
  CHECK(has(ada([](AdaLoraConfig& c) { c.tinit = 60, c.tfinal = 40; }), "tinit"));
  CHECK(has(ada([](AdaLoraConfig& c) { c.orth_reg_weight = -1; }), "orth_reg_weight"));
  CHECK(has(ada([](AdaLoraConfig& c) { c.beta1 = 1; }), "beta1"));
  CHECK(has(ada([](AdaLoraConfig& c) { c.deltaT = 0; }), "deltaT"));
  CHECK(has(ada([](AdaLoraConfig& c) { c.target_r = -1; }), "target_r"));
  CHECK(has(ada([](AdaLoraConfig& c) { c.rank_pattern = {{"head.lora_E", {true}}}; }), "rank_pattern"));
}

TEST_CASE("what a layer cannot have is refused before the other layers are touched") {
  CHECK(has(refused<graft::ConfigError>(
                LoraConfig{.target_modules = {"k_proj", "embed_tokens"}, .lora_bias = true}),
            "embed_tokens"));
  CHECK(has(refused<graft::TargetError>(AdaLoraConfig{.target_modules = {"k_proj", "embed_tokens"}}),
            "ADALORA does not fit"));
  CHECK(has(refused<graft::TargetError>(LoraConfig{.target_modules = {"k_proj", "norm"}}), "'model.norm'"));
  CHECK(has(refused<graft::ConfigError>(LoraConfig{}), "target_modules is not set"));
}

TEST_CASE("bias = all needs the biases that it starts from") {
  Unloaded net;
  const LoraConfig config{.bias = graft::Bias::all, .target_modules = {"p"}};
  CHECK_THROWS_WITH_AS(graft::inject_adapter_in_model(config, net), doctest::Contains("'plain.bias'"),
                       graft::MetaError);
  CHECK(graft::adapter_names(net).empty());
  const LoraConfig own{.bias = graft::Bias::lora_only, .target_modules = {"p"}};
  (void)graft::inject_adapter_in_model(own, net);
  net.p->weight.materialize();
  net.p->bias.materialize();
  CHECK_THROWS_AS((void)net.p(awkward::rows<float>(2, 3)),
                  graft::MetaError);  // the adapter's bias was never loaded
}

TEST_CASE("a second adapter that trains biases is refused, whatever biases the first one found") {
  LoraConfig biased = simple;
  biased.bias = graft::Bias::lora_only;
  tree::Net net = busy();
  const std::string before = everything(net);
  CHECK_THROWS_WITH_AS(graft::inject_adapter_in_model(biased, net, "new"),
                       doctest::Contains("'old' trains biases"), graft::AdapterError);
  CHECK(everything(net) == before);
  // only biases of layers without room
  tree::Partly one;
  one.first = tree::Site(3, 3, false);
  one.scaled = decltype(one.scaled)(3, 3, false);
  const LoraConfig everywhere{.bias = graft::Bias::all, .target_modules = {"first"}};
  (void)graft::inject_adapter_in_model(everywhere, one, "a");
  CHECK_THROWS_AS(graft::inject_adapter_in_model(everywhere, one, "b"), graft::AdapterError);
  CHECK_NOTHROW(graft::inject_adapter_in_model(everywhere, one, "a", {.replace = true}));
}

TEST_CASE("an injection activates alone, or not at all, and leaves the others' parameters as they are") {
  tree::Net net;
  (void)graft::inject_adapter_in_model(simple, net, "a");
  (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"q_proj"}}, net, "b");
  CHECK(graft::active_adapters(net) == Strings{"b"});
  CHECK(net.model.layers[0].self_attn.k_proj.parameter("a", "lora_A").requires_grad());
  (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"head"}}, net, "c", {.activate = false});
  CHECK(graft::active_adapters(net) == Strings{"b"});
  CHECK(graft::adapter_names(net) == Strings{"a", "b", "c"});
}

TEST_CASE("replace puts a new adapter in the place of the old one, or changes nothing") {
  tree::Net net = busy();
  const std::string before = everything(net);
  CHECK_THROWS_AS(
      graft::inject_adapter_in_model(LoraConfig{.target_modules = {"nope"}}, net, "old", {.replace = true}),
      graft::TargetError);
  CHECK(everything(net) == before);
  (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"k_proj"}}, net, "old",
                                       {.replace = true});
  CHECK(graft::adapter_names(net) == Strings{"old"});
  CHECK(tree::matched(net, "old").find("q_proj") == std::string::npos);
  CHECK_FALSE(tree::has_copy(net, "head"));
  CHECK(results::bytes_of(graft::get_base_model_state_dict(net)) ==
        results::bytes_of(graft::get_base_model_state_dict(tree::Net{})));
}

TEST_CASE("a replacement's biases start from the base's own") {
  tree::Net net = busy();
  LoraConfig config{.bias = graft::Bias::all, .target_modules = {"q_proj"}};
  (void)graft::inject_adapter_in_model(config, net, "old", {.replace = true});
  const graft::StateDict fresh = graft::get_peft_model_state_dict(net, "old"),
                         base = graft::get_base_model_state_dict(net);
  CHECK(results::bytes_of(base) == results::bytes_of(graft::get_base_model_state_dict(tree::Net{})));
  for (const auto& [key, view] : fresh)
    if (key == "model.norm.bias")
      for (graft::Index i = 0; i < view.size(); ++i) CHECK(reinterpret_cast<const float*>(view.data)[i] == 0);
  CHECK(fresh.contains("model.norm.bias"));
}

TEST_CASE("initial values depend on the seed and the name, not on order, threads or laziness") {
  tree::Net together, apart, seeded;
  (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"q_proj", "k_proj"}}, together, "a",
                                       {.seed = 5});
  (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"k_proj"}}, apart, "first", {.seed = 5});
  (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"k_proj"}}, seeded, "first",
                                       {.seed = 6});
  const auto values = [](tree::Net& net, const char* name) {
    return graft::Matrix<float>(net.model.layers[1].self_attn.k_proj.parameter(name, "lora_A").view<float>());
  };
  CHECK(results::same_bits(values(together, "a"), values(apart, "first")));
  CHECK_FALSE(results::same_bits(values(together, "a"), values(seeded, "first")));
  CHECK_FALSE(results::same_bits(
      values(apart, "first"),
      graft::Matrix<float>(
          apart.model.layers[2].self_attn.k_proj.parameter("first", "lora_A").view<float>())));
}

TEST_CASE("targets of an injection may be checked at compile time") {
  tree::Net net;
  graft::PeftConfig config = LoraConfig{.lora_alpha = 16};
  (void)graft::inject_adapter_in_model<"head", "layers.1.self_attn.q_proj">(config, net);
  CHECK(tree::matched(net) == "model.layers.1.self_attn.q_proj head");
  (void)graft::inject_adapter_in_model<"subhead">(LoraConfig{.lora_alpha = 16}, net, "two");
  CHECK(tree::matched(net, "two") == "subhead");
}

TEST_CASE("a module that shared pointers reach twice is adapted once, under its first name") {
  Shared net;
  net.again = net.first;
  const auto report = graft::inject_adapter_in_model(LoraConfig{.target_modules = graft::all_linear}, net);
  CHECK(report.matched.size() == 1);
  CHECK(graft::get_peft_model_state_dict(net).keys() ==
        Strings{"first.lora_A.weight", "first.lora_B.weight"});
}
