#include <graft/injection/plan.hpp>

#include <doctest/doctest.h>

#include "support/awkward_layers.hpp"
#include "support/results.hpp"
#include "support/tree_model.hpp"

using graft::LoraConfig;
using Strings = std::vector<std::string>;

namespace {

graft::InjectionPlan plan(const tree::Net& net, const graft::PeftConfig& config,
                          const graft::InjectOptions& options = {}) {
  const graft::ModelSites sites = graft::sites_of(net);
  const std::string name = "default";
  return graft::detail::plan_injection(sites, config, options, name, nullptr);
}

}  // namespace

TEST_CASE("a plan lists what will be adapted, copied and trained, and touches nothing") {
  tree::Net net;
  const std::string before = results::everything(net);
  const auto made = plan(net,
                         LoraConfig{.r = 3,
                                    .lora_alpha = 5,
                                    .bias = graft::Bias::all,
                                    .target_modules = {"mlp.up", "subhead"},
                                    .modules_to_save = {"head"}},
                         {.low_cpu_mem_usage = true, .seed = 9});
  CHECK(results::everything(net) == before);
  REQUIRE(made.adapted.size() == 4);
  CHECK(made.adapted[0].adapter.path == "model.layers.0.mlp.up");
  CHECK(made.adapted[0].adapter.r == 3);
  CHECK(made.adapted[0].adapter.lora_alpha == 5);
  CHECK(made.adapted[0].adapter.low_cpu_mem_usage);
  CHECK(made.adapted[0].adapter.seed == 9);
  CHECK(made.copied.size() == 1);
  CHECK(made.biases.size() == 22);  // every linear site but the copied head
  CHECK(made.plain_biases.size() == 1);
  CHECK(tree::mentions(made.report.warnings, "bias = all"));
  REQUIRE(made.report.matched.size() == 4);
  CHECK(made.report.matched[0].in == 3);
  CHECK(made.report.matched[0].out == 4);
  CHECK(made.report.matched[0].r == 3);
  CHECK(made.report.matched[0].kind == graft::LayerKind::linear);
}

TEST_CASE("lora_only trains the biases of targets that have one") {
  const auto made = plan(
      tree::Net{}, LoraConfig{.bias = graft::Bias::lora_only, .target_modules = {"head", "embed_tokens"}});
  CHECK(made.biases.size() == 1);
  CHECK(made.plain_biases.empty());
}

TEST_CASE("a grouped convolution's rank must be divisible by its groups") {
  awkward::Net<awkward::GroupedConv2dCase<float>> net;
  const std::string before = results::everything(net);
  CHECK_THROWS_WITH_AS(graft::inject_adapter_in_model(LoraConfig{.r = 3, .target_modules = {"site"}}, net),
                       doctest::Contains("2 groups"), graft::ConfigError);
  CHECK(results::everything(net) == before);
  CHECK_NOTHROW(graft::inject_adapter_in_model(
      LoraConfig{.r = 3, .target_modules = {"site"}, .rank_pattern = {{"site", 6}}}, net));
}

TEST_CASE("AdaLoRA's ranks are the kept ones, by whatever spelling of the key; idle keys are reported") {
  const auto made = plan(
      tree::Net{}, graft::AdaLoraConfig{
                       .init_r = 3,
                       .target_modules = {"head", "subhead"},
                       .rank_pattern = {{"head.lora_E", {true, false, true}},
                                        {"base_model.model.subhead.lora_E.default", {false, false, false}},
                                        {"tail.lora_E", {true, true, true}}}});
  REQUIRE(made.adapted.size() == 2);
  CHECK(made.adapted[0].adapter.r == 2);
  CHECK(made.adapted[1].adapter.r == 0);
  CHECK(tree::mentions(made.report.warnings, "tail.lora_E"));
}

TEST_CASE("IA3's feed-forward modules are whole components; PEFT's plain endswith is for files") {
  const auto made =
      plan(tree::Net{}, graft::Ia3Config{.target_modules = {"w0", "xw0"}, .feedforward_modules = {"w0"}});
  for (const auto& [site, adapter] : made.adapted)
    CHECK(adapter.is_feedforward == (adapter.path.find("xw0") == std::string::npos));
  CHECK(made.report.warnings.size() == 5);  // of each xw0 Python would scale the input
  CHECK(tree::mentions(made.report.warnings, "'blocks.0.xw0'"));
  graft::StateDict file;
  const auto loaded =
      plan(tree::Net{}, graft::Ia3Config{.target_modules = {"w0", "xw0"}, .feedforward_modules = {"w0"}},
           {.file = &file});
  for (const auto& [site, adapter] : loaded.adapted) CHECK(adapter.is_feedforward);
  CHECK(loaded.report.warnings.empty());
}

TEST_CASE("lora_bias over a layer without bias is allowed, with a warning") {
  tree::Net net;
  net.head = tree::Site(3, 3, false);
  const auto made = plan(net, LoraConfig{.target_modules = {"head", "subhead"}, .lora_bias = true});
  CHECK(made.report.warnings.size() == 1);
  CHECK(tree::mentions(made.report.warnings, "'head'"));
}

TEST_CASE("schemes of init_lora_weights that do not fit a layer are errors of the plan") {
  static constexpr graft::detail::Factorisers none{};  // a plan factorises nothing
  const auto* const before = std::exchange(graft::detail::factorisers, &none);
  const auto with = [](const char* scheme, int r = 2, double alpha = 3) {
    return LoraConfig{.r = r, .lora_alpha = alpha, .target_modules = {"site"}, .init_lora_weights = scheme};
  };
  using Linear = awkward::Net<awkward::LinearCase<float>>;
  const auto plan_for = [](const auto& net, const LoraConfig& config, const graft::InjectOptions& options = {}) {
    const graft::ModelSites sites = graft::sites_of(net);
    const std::string name = "default";
    return graft::detail::plan_injection(sites, config, options, name, nullptr);
  };
  const Linear net;
  for (const char* scheme : {"pissa", "pissa_niter_4", "olora", "orthogonal", "eva"}) {
    CAPTURE(scheme);
    CHECK_NOTHROW((void)plan_for(net, with(scheme)));
    CHECK_THROWS_AS((void)plan_for(awkward::Net<awkward::Conv2dCase<float>>{}, with(scheme)), graft::ConfigError);
    CHECK_NOTHROW((void)plan_for(awkward::Net<awkward::LookupCase<float>>{}, with(scheme)));
  }
  CHECK_THROWS_AS((void)plan_for(net, with("orthogonal", 3)), graft::ConfigError);
  CHECK_THROWS_AS((void)plan_for(net, with("pissa", 8)), graft::ConfigError);  // the layer is 13 to 7
  CHECK_THROWS_AS((void)plan_for(net, with("olora", 8)), graft::ConfigError);
  CHECK_NOTHROW((void)plan_for(net, with("eva", 8)));
  CHECK_THROWS_AS((void)plan_for(net, with("pissa", 2, 0)), graft::ConfigError);
  CHECK_NOTHROW((void)plan_for(net, with("olora", 2, -1)));
  // what a random start took out of the base cannot be computed again from a file
  const graft::StateDict file;
  CHECK_THROWS_AS((void)plan_for(net, with("pissa_niter_4"), {.file = &file}), graft::ConfigError);
  CHECK_NOTHROW((void)plan_for(net, with("pissa"), {.file = &file}));
  graft::detail::factorisers = nullptr;
  CHECK_THROWS_AS((void)plan_for(net, with("pissa")), graft::ConfigError);
  CHECK_NOTHROW((void)plan_for(net, with("eva")));
  graft::detail::factorisers = before;
}
