#include <graft/injection/targets.hpp>

#include <doctest/doctest.h>

#include "support/results.hpp"
#include "support/tree_model.hpp"

using graft::LoraConfig;
using Strings = std::vector<std::string>;
using graft::detail::is_in_saved_module;
using graft::detail::match_index;
using tree::mentions;

namespace {

graft::StateDict keys(const Strings& all) {
  graft::StateDict state_dict;
  for (const std::string& key : all) state_dict.insert(key, {graft::Dtype::f32, {1, 1}, nullptr, nullptr});
  return state_dict;
}

}  // namespace

TEST_CASE("a list says which of its entries matched; what is unset matches nothing") {
  CHECK(match_index({"k", "b.q", "q"}, "a.b.q") == 1);
  CHECK(match_index({"k"}, "a.b.q") == -1);
  CHECK(match_index({}, "q") == -1);
  CHECK(match_index(graft::all_linear, "q") == -1);
}

TEST_CASE("a module that is saved whole covers what is in it") {
  CHECK(is_in_saved_module("score", {"score"}));
  CHECK(is_in_saved_module("model.score.dense", {"score"}));
  CHECK(is_in_saved_module("model.score.dense", {"model.score"}));
  CHECK_FALSE(is_in_saved_module("model.subscore.dense", {"score"}));
  CHECK_FALSE(is_in_saved_module("model.scores", {"score"}));
  CHECK_FALSE(is_in_saved_module("model.score", {"dense"}));
  CHECK_FALSE(is_in_saved_module("model", {}));
}

TEST_CASE("containers stand among the paths, each once, before what is in them") {
  const tree::Net net;
  const graft::ModelSites sites = graft::sites_of(net);
  const auto paths = graft::detail::with_containers(sites.nodes);
  const auto count = [&](std::string_view path) { return std::count(paths.begin(), paths.end(), path); };
  for (const char* path :
       {"model", "model.layers", "model.layers.0", "model.layers.2.mlp", "blocks", "blocks.1", "head"})
    CHECK(count(path) == 1);
  CHECK(paths.size() == std::set<std::string_view>(paths.begin(), paths.end()).size());
  CHECK(std::find(paths.begin(), paths.end(), "blocks") < std::find(paths.begin(), paths.end(), "blocks.0"));
}

TEST_CASE("injecting by a state dict: exact paths, the config's targets only compared") {
  const Strings named{"model.layers.0.self_attn.q_proj.lora_A.weight",
                      "model.layers.0.self_attn.q_proj.lora_B.weight", "head.lora_A.weight",
                      "head.lora_B.weight"};
  Strings prefixed;
  for (const std::string& key : named) prefixed.push_back("base_model.model." + key);
  for (const graft::StateDict& state_dict : {keys(named), keys(prefixed)}) {
    tree::Net net, excluded, empty;
    auto report = graft::inject_adapter_in_model(LoraConfig{.lora_alpha = 16, .target_modules = {"q_proj"}},
                                                 net, "default", {.state_dict = &state_dict});
    CHECK(tree::matched(net) == "model.layers.0.self_attn.q_proj head");
    CHECK(mentions(report.warnings, "'model.layers.1.self_attn.q_proj'"));
    CHECK(mentions(report.warnings, "'head'"));
    (void)graft::inject_adapter_in_model(
        LoraConfig{.lora_alpha = 16, .target_modules = {"q_proj"}, .exclude_modules = {"head"}}, excluded,
        "default", {.state_dict = &state_dict});
    CHECK(tree::matched(excluded) == "model.layers.0.self_attn.q_proj head");
    (void)graft::inject_adapter_in_model(LoraConfig{.lora_alpha = 16, .target_modules = Strings{}}, empty,
                                         "default", {.state_dict = &state_dict});
    CHECK(tree::matched(empty) == "model.layers.0.self_attn.q_proj head");
  }
}

TEST_CASE("a state dict that names nothing here is an error, one that names other modules too is reported") {
  tree::Net net;
  const std::string before = results::everything(net);
  const graft::StateDict foreign = keys({"encoder.q.lora_A.weight"}), none = keys({"head.weight"});
  for (const graft::StateDict* state_dict : {&foreign, &none})
    CHECK_THROWS_AS(graft::inject_adapter_in_model(LoraConfig{.target_modules = Strings{}}, net, "default",
                                                   {.state_dict = state_dict}),
                    graft::TargetError);
  CHECK_THROWS_AS(graft::inject_adapter_in_model(LoraConfig{}, net, "default", {.state_dict = &foreign}),
                  graft::ConfigError);
  CHECK(results::everything(net) == before);
  const graft::StateDict more = keys({"encoder.q.lora_A.weight", "head.lora_A.weight"});
  const auto report = graft::inject_adapter_in_model(LoraConfig{.target_modules = Strings{}}, net, "default",
                                                     {.state_dict = &more});
  CHECK(report.unmatched_targets == Strings{"encoder.q"});
  tree::Net strict;
  CHECK_THROWS_WITH_AS(graft::inject_adapter_in_model(LoraConfig{.target_modules = Strings{}}, strict, "default",
                                                      {.strict_targets = true, .state_dict = &more}),
                       doctest::Contains("encoder.q"), graft::TargetError);
  CHECK(graft::adapter_names(strict).empty());
}

TEST_CASE("injecting by a state dict leaves what is saved whole alone") {
  tree::Net net;
  const graft::StateDict state_dict = keys({"head.lora_A.weight", "subhead.lora_A.weight", "subhead.weight"});
  CHECK_THROWS_AS(
      graft::inject_adapter_in_model(LoraConfig{.target_modules = {"head"}, .modules_to_save = {"subhead"}},
                                     net, "default", {.state_dict = &state_dict}),
      graft::TargetError);
  CHECK(graft::adapter_names(net).empty());
}
