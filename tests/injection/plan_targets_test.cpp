#include <graft/injection/plan_targets.hpp>

#include <doctest/doctest.h>

#include <graft/regex.hpp>

#include "support/results.hpp"
#include "support/tree_model.hpp"

using graft::LoraConfig;
using Strings = std::vector<std::string>;
using tree::mentions;

namespace {

/// What PEFT 0.21.2 answers for the same tree, with r = 8 and lora_alpha = 16 where nothing else is said.
struct Case {
  LoraConfig config;
  std::string matched;
};
const std::string every_q =
    "model.layers.0.self_attn.q_proj model.layers.1.self_attn.q_proj model.layers.2.self_attn.q_proj";

void check(Case one) {
  CAPTURE(one.matched);
  if (one.config.lora_alpha == 8) one.config.lora_alpha = 16;
  tree::Net net;
  const graft::InjectReport report = graft::inject_adapter_in_model(one.config, net);
  CHECK(tree::matched(net) == one.matched);
  std::string reported;
  for (const graft::MatchedModule& module : report.matched) reported += module.path + ' ';
  Strings paths;
  for (const auto& [key, view] : graft::get_peft_model_state_dict(net))
    if (key.ends_with("lora_A.weight") || key.ends_with("lora_embedding_A"))
      paths.emplace_back(graft::adapted_module_of(key));
  CHECK(reported == graft::join(paths, " ") + " ");
}
template <class Config>
std::string refusal(const Config& config, const graft::InjectOptions& options = {}) {
  tree::Net net;
  const std::string before = results::everything(net);
  std::string text = "accepted";
  try {
    (void)graft::inject_adapter_in_model(config, net, "default", options);
  } catch (const graft::TargetError& error) {
    text = error.what();
    CHECK_FALSE(error.fix.empty());
  }
  if (text != "accepted") CHECK(results::everything(net) == before);
  return text;
}
bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }
graft::StateDict keys_of_q_and_head() {
  graft::StateDict keys;
  for (const char* key : {"model.layers.0.self_attn.q_proj.lora_A.weight", "head.weight"})
    keys.insert(key, {graft::Dtype::f32, {1, 1}, nullptr, nullptr});
  return keys;
}

struct Inner {
  graft::Adaptable<graft::Linear<>> q{3, 3}, k{3, 3};
  GRAFT_MODULE(q, k)
};
struct Middle {
  Inner model;
  GRAFT_MODULE(model)
};
/// Whose paths begin with what is PeftModel's prefix elsewhere.
struct Prefixed {
  Middle base_model;
  GRAFT_MODULE(base_model)
};

}  // namespace

TEST_CASE("a list matches whole paths and ends of paths at a dot") {
  check({{.target_modules = {"q_proj"}}, every_q});
  check({{.target_modules = {"self_attn.q_proj", "head"}}, every_q + " head"});
  check({{.target_modules = {"w0"}},
         "model.layers.0.mlp.w0 model.layers.1.mlp.w0 model.layers.2.mlp.w0 blocks.0.w0 blocks.1.w0"});
  check({{.target_modules = {"embed_tokens"}}, "model.embed_tokens"});
  for (const graft::TargetModules& none :
       {graft::TargetModules{"query"}, graft::TargetModules{"layers.*.q_proj"}, graft::TargetModules{""},
        graft::TargetModules{".*q_proj"}})
    CHECK(has(refusal(LoraConfig{.target_modules = none}), "no module matches"));
  CHECK(has(refusal(LoraConfig{.target_modules = Strings{}}), "no module matches"));
}

TEST_CASE("a string is a regular expression and must match the whole path") {
  check({{.target_modules = graft::regex(R"(.*\.layers\.[01]\..*_proj)")},
         "model.layers.0.self_attn.q_proj model.layers.0.self_attn.k_proj model.layers.1.self_attn.q_proj "
         "model.layers.1.self_attn.k_proj"});
  check({{.target_modules = graft::regex("head|.*k_proj")},
         "model.layers.0.self_attn.k_proj model.layers.1.self_attn.k_proj model.layers.2.self_attn.k_proj "
         "head"});
  CHECK(has(refusal(LoraConfig{.target_modules = graft::regex("q_proj")}), "regex q_proj"));
}

TEST_CASE("layers_to_transform chooses among matches by suffix; an exact name ignores it") {
  check({{.target_modules = {"q_proj", "head"}, .layers_to_transform = {0, 2}},
         "model.layers.0.self_attn.q_proj model.layers.2.self_attn.q_proj head"});
  check({{.target_modules = {"model.layers.0.mlp.w0", "q_proj"}, .layers_to_transform = {2}},
         "model.layers.0.mlp.w0 model.layers.2.self_attn.q_proj"});
  check(
      {{.target_modules = {"w0"}, .layers_to_transform = {1}, .layers_pattern = {"blocks"}}, "blocks.1.w0"});
  check({{.target_modules = {"w0"}, .layers_to_transform = {0}, .layers_pattern = {"layers", "blocks"}},
         "model.layers.0.mlp.w0 blocks.0.w0"});
  check({{.target_modules = {"w0"}, .layers_to_transform = {0}, .layers_pattern = {"lay.*"}},
         "model.layers.0.mlp.w0"});
  CHECK(has(refusal(LoraConfig{.target_modules = {"q_proj"}, .layers_to_transform = {7}}),
            "layers_to_transform"));
}

TEST_CASE("without a pattern a list at the top level counts too, with a warning: PEFT would not find it") {
  tree::Net net;
  const auto report = graft::inject_adapter_in_model(
      LoraConfig{.lora_alpha = 16, .target_modules = {"w0"}, .layers_to_transform = {1}}, net);
  CHECK(tree::matched(net) == "model.layers.1.mlp.w0 blocks.1.w0");
  CHECK(mentions(report.warnings, "layers_pattern"));
}

TEST_CASE("exclude_modules goes first and always wins; one that hits nothing is a warning") {
  check({{.target_modules = {"q_proj", "k_proj"}, .exclude_modules = {"layers.1.self_attn.q_proj", "k_proj"}},
         "model.layers.0.self_attn.q_proj model.layers.2.self_attn.q_proj"});
  check({{.target_modules = {"q_proj", "k_proj"}, .exclude_modules = graft::regex(R"(.*layers\.1.*)")},
         "model.layers.0.self_attn.q_proj model.layers.0.self_attn.k_proj model.layers.2.self_attn.q_proj "
         "model.layers.2.self_attn.k_proj"});
  CHECK(has(refusal(LoraConfig{.target_modules = {"q_proj"}, .exclude_modules = {"q_proj"}}),
            "exclude_modules"));
  tree::Net net, quiet, linears, embedding;
  CHECK(graft::inject_adapter_in_model(
            LoraConfig{.target_modules = graft::all_linear, .exclude_modules = {"embed_tokens"}}, embedding)
            .warnings.empty());
  CHECK(mentions(graft::inject_adapter_in_model(
                     LoraConfig{.target_modules = graft::all_linear, .exclude_modules = {"proj"}}, linears)
                     .warnings,
                 "exclude_modules"));
  CHECK(mentions(graft::inject_adapter_in_model(
                     LoraConfig{.target_modules = {"q_proj"}, .exclude_modules = {"proj"}}, net)
                     .warnings,
                 "exclude_modules"));
  CHECK(graft::inject_adapter_in_model(LoraConfig{.target_modules = {"q_proj"}, .exclude_modules = Strings{}},
                                       quiet)
            .warnings.empty());
}

TEST_CASE("what was excluded was not misspelt: the error says which is which") {
  const std::string all = refusal(LoraConfig{.target_modules = {"q_proj"}, .exclude_modules = {"q_proj"}});
  CHECK(has(all, "all modules that match are excluded by exclude_modules"));
  CHECK_FALSE(has(all, "did you mean"));
  const std::string some = refusal(LoraConfig{.target_modules = {"q_proj", "k_porj"}, .exclude_modules = {"q_proj"}});
  CHECK(has(some, "excluded by exclude_modules, and no module is called k_porj"));
  CHECK(has(some, "did you mean k_proj"));
  tree::Net net;
  const auto report = graft::inject_adapter_in_model(
      LoraConfig{.target_modules = {"q_proj", "k_proj"}, .exclude_modules = {"k_proj"}}, net);
  CHECK(report.unmatched_targets.empty());
}

TEST_CASE("modules to save, and what is in them, are never targets") {
  check({{.target_modules = {"q_proj", "w0"}, .modules_to_save = {"mlp"}},
         every_q + " blocks.0.w0 blocks.1.w0"});
  check({{.target_modules = {"q_proj"}, .modules_to_save = {"layers.1"}},
         "model.layers.0.self_attn.q_proj model.layers.2.self_attn.q_proj"});
  tree::Net net;
  (void)graft::inject_adapter_in_model(
      LoraConfig{.lora_alpha = 16, .target_modules = graft::regex("head|subhead"), .modules_to_save = {"head"}}, net);
  CHECK(tree::matched(net) == "subhead");  // a dot boundary: PEFT's plain endswith would clash here
  CHECK(tree::has_copy(net, "head"));
  CHECK_FALSE(tree::has_copy(net, "subhead"));
}

TEST_CASE("an entry of the list that means only modules saved whole is an error; in a file it is a warning") {
  const LoraConfig clash{.target_modules = {"q_proj", "head"}, .modules_to_save = {"head"}};
  CHECK(has(refusal(clash), "'head' is a target and a module to save"));
  CHECK(has(refusal(LoraConfig{.target_modules = {"head"}, .modules_to_save = {"head"}}), "'head'"));
  CHECK(has(refusal(LoraConfig{.target_modules = {"model.layers.0.mlp.w0", "q_proj"}, .modules_to_save = {"mlp"}}),
            "'model.layers.0.mlp.w0'"));
  const graft::StateDict file = keys_of_q_and_head();
  tree::Net net;
  const auto report = graft::inject_adapter_in_model(clash, net, "default", {.file = &file});
  CHECK(mentions(report.warnings, "'head' is a target and a module to save"));
  CHECK(report.unmatched_targets.empty());
  CHECK(tree::has_copy(net, "head"));
  check({{.target_modules = graft::all_linear,
          .exclude_modules = {"q_proj", "k_proj", "mlp", "blocks.0", "up", "w0", "xw0"},
          .modules_to_save = {"head"}},
         "subhead"});
}

TEST_CASE("all_linear takes every linear site, the head included, and writes the names into the config") {
  check({{.target_modules = graft::all_linear, .exclude_modules = {"mlp.up", "w0", "xw0", "q_proj"}},
         "model.layers.0.self_attn.k_proj model.layers.1.self_attn.k_proj model.layers.2.self_attn.k_proj "
         "blocks.0.up "
         "blocks.1.up head subhead"});
  tree::Net net;
  CHECK(graft::inject_adapter_in_model(LoraConfig{.target_modules = graft::all_linear}, net).matched.size() ==
        23);
  tree::Partly partly;
  const auto report = graft::inject_adapter_in_model(LoraConfig{.target_modules = graft::all_linear}, partly);
  CHECK(report.matched.size() == 1);
  CHECK(report.without_room == Strings{"plain", "scaled"});
  const graft::ModelSites sites = graft::sites_of(partly);
  const auto& config = std::get<LoraConfig>(graft::detail::need_record(sites, "default")->config());
  CHECK(config.target_modules == graft::TargetModules{"first"});
}

TEST_CASE("patterns are tried in the order of insertion, from the end of the path or over all of it") {
  check({{.target_modules = {"q_proj", "w0"},
          .rank_pattern = {{"layers.1.self_attn.q_proj", 2}, {"q_proj", 3}, {"mlp.w0", 5}},
          .alpha_pattern = {{"q_proj", 1}}},
         "model.layers.0.self_attn.q_proj:3:1 model.layers.0.mlp.w0:5:16 model.layers.1.self_attn.q_proj:2:1 "
         "model.layers.1.mlp.w0:5:16 model.layers.2.self_attn.q_proj:3:1 model.layers.2.mlp.w0:5:16 "
         "blocks.0.w0 blocks.1.w0"});
  check({{.target_modules = {"q_proj"}, .rank_pattern = {{"q_proj", 2}, {"layers.0.self_attn.q_proj", 3}}},
         "model.layers.0.self_attn.q_proj:2:16 model.layers.1.self_attn.q_proj:2:16 "
         "model.layers.2.self_attn.q_proj:2:16"});
  check({{.target_modules = {"q_proj"}, .rank_pattern = {{"^q_proj", 2}}}, every_q});
  check({{.target_modules = {"q_proj"}, .rank_pattern = {{R"(^model\.layers\.1\.self_attn\.q_proj)", 2}}},
         "model.layers.0.self_attn.q_proj model.layers.1.self_attn.q_proj:2:16 "
         "model.layers.2.self_attn.q_proj"});
  check({{.target_modules = {"q_proj", "k_proj"},
          .rank_pattern = {{R"([02]\.self_attn\..*)", 2}, {".*k_proj", 7}}},
         "model.layers.0.self_attn.q_proj:2:16 model.layers.0.self_attn.k_proj:2:16 "
         "model.layers.1.self_attn.q_proj "
         "model.layers.1.self_attn.k_proj:7:16 model.layers.2.self_attn.q_proj:2:16 "
         "model.layers.2.self_attn.k_proj:2:16"});
}

TEST_CASE("a pattern key without a target is a warning, and an error on request") {
  const LoraConfig idle{.target_modules = {"q_proj"},
                        .rank_pattern = {{"nope", 2}, {"proj", 4}},
                        .alpha_pattern = {{"k_proj", 3}}};
  tree::Net net;
  const auto report = graft::inject_adapter_in_model(idle, net);
  CHECK(report.warnings.size() == 3);
  CHECK(mentions(report.warnings, "'nope'"));
  CHECK(mentions(report.warnings, "'proj'"));
  CHECK(mentions(report.warnings, "alpha_pattern"));
  CHECK(has(refusal(idle, {.strict_targets = true}), "'nope'"));
}

TEST_CASE("an idle entry of the list is reported with what it may have meant, and an error on request") {
  tree::Net net;
  const LoraConfig idle{.target_modules = {"q_proj", "k_porj", "nothing_like_it"}};
  const auto report = graft::inject_adapter_in_model(idle, net);
  CHECK(report.unmatched_targets == Strings{"k_porj", "nothing_like_it"});
  REQUIRE_FALSE(report.near_misses.empty());
  CHECK(report.near_misses.front() == "k_proj");
  CHECK(has(refusal(idle, {.strict_targets = true}), "did you mean k_proj"));
  CHECK(has(refusal(LoraConfig{.target_modules = {"q_porj"}}), "did you mean q_proj"));
  CHECK(has(refusal(LoraConfig{.target_modules = {"Q_PROJ.*"}}), "regular expression"));
  CHECK(has(refusal(LoraConfig{.target_modules = {"q_proj$"}}), "regular expression"));
  tree::Net other;
  const auto hinted = graft::inject_adapter_in_model(LoraConfig{.target_modules = {"q_proj", ".*k_proj"}}, other);
  CHECK(hinted.unmatched_targets == Strings{".*k_proj"});
  CHECK(mentions(hinted.warnings, "'.*k_proj' looks like a regular expression"));
}

TEST_CASE("what is no layer, or has no room, is refused by name") {
  CHECK(has(refusal(LoraConfig{.target_modules = {"mlp"}}), "'model.layers.0.mlp' is a Mlp"));
  CHECK(has(refusal(LoraConfig{.target_modules = {"layers"}}), "'model.layers' is a container"));
  CHECK(has(refusal(LoraConfig{.target_modules = {"q_proj", "norm"}}), "'model.norm' is a LayerNorm"));
  CHECK(has(refusal(graft::Ia3Config{.target_modules = {"embed_tokens"}}),
            "IA3 does not fit the layer 'model.embed_tokens'"));
  tree::Partly partly;
  const std::string before = results::everything(partly);
  CHECK_THROWS_WITH_AS(
      graft::inject_adapter_in_model(LoraConfig{.target_modules = {"first", "plain"}}, partly),
      doctest::Contains("declare it graft::Adaptable<Linear"), graft::TargetError);
  CHECK_THROWS_WITH_AS(graft::inject_adapter_in_model(LoraConfig{.target_modules = {"scaled"}}, partly),
                       doctest::Contains("no room for LORA"), graft::TargetError);
  CHECK_THROWS_WITH_AS(graft::inject_adapter_in_model(
                           LoraConfig{.target_modules = {"first"}, .modules_to_save = {"plain"}}, partly),
                       doctest::Contains("modules_to_save names 'plain'"), graft::TargetError);
  CHECK_THROWS_WITH_AS(graft::inject_adapter_in_model(
                           LoraConfig{.target_modules = {"first"}, .modules_to_save = {"norm"}}, partly),
                       doctest::Contains("'norm'"), graft::TargetError);
  CHECK(results::everything(partly) == before);
  CHECK_THROWS_AS(graft::inject_adapter_in_model(LoraConfig{}, partly), graft::ConfigError);
}

TEST_CASE("what the same config would do differently in Python is a warning") {
  tree::Net net;
  const auto report = graft::inject_adapter_in_model(
      LoraConfig{.target_modules = {"q_proj"}, .modules_to_save = {"head"}}, net);
  REQUIRE(report.warnings.size() == 1);
  CHECK(mentions(report.warnings, "would save 'subhead' whole too"));
}

TEST_CASE("a layer to transform in which nothing was taken is a warning") {
  tree::Net net;
  const auto report = graft::inject_adapter_in_model(
      LoraConfig{.target_modules = {"q_proj"}, .layers_to_transform = {0, 2, 99}}, net);
  CHECK(report.warnings == Strings{"layers_to_transform names layers without a target: 99"});
}

TEST_CASE("modules_to_save with a name that is not there is a warning") {
  tree::Net net;
  const auto report = graft::inject_adapter_in_model(
      LoraConfig{.target_modules = {"q_proj"}, .modules_to_save = {"classifier"}}, net);
  CHECK(mentions(report.warnings, "'classifier'"));
}

TEST_CASE("a state dict names modules with PeftModel's prefix, without it, and where it is the model's own") {
  for (const char* key : {"base_model.model.q.lora_A.weight", "base_model.model.base_model.model.q.lora_A.weight"}) {
    graft::StateDict keys;
    keys.insert(key, {graft::Dtype::f32, {1, 1}, nullptr, nullptr});
    Prefixed net;
    const auto report = graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = graft::all_linear}, net, "default", {.state_dict = &keys});
    CAPTURE(key);
    REQUIRE(report.matched.size() == 1);
    CHECK(report.matched[0].path == "base_model.model.q");
    Inner inner;
    if (std::string_view(key).find("base_model.model.base") != 0)
      CHECK(graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = graft::all_linear}, inner, "default", {.state_dict = &keys}).matched.size() == 1);
  }
}

// PEFT cuts keys at ".lora_" or at ".ia3_", whichever is its method's; its own text then speaks of target_modules.
TEST_CASE("of a state dict each method takes its own keys, and one without any is refused for that") {
  graft::StateDict none, ia3;
  ia3.insert("model.layers.0.self_attn.q_proj.ia3_l", {graft::Dtype::f32, {1, 1}, nullptr, nullptr});
  for (const graft::StateDict* keys : {&none, &ia3}) {
    const std::string text = refusal(LoraConfig{.target_modules = {"q_proj"}}, {.state_dict = keys});
    CHECK(has(text, "the state dict names no module of this model to adapt by LORA"));
    CHECK(has(text, "it has no key of such an adapter"));
  }
  graft::StateDict foreign;
  foreign.insert("nowhere.v.lora_A.weight", ia3.begin()->second);
  CHECK(has(refusal(LoraConfig{.target_modules = {"q_proj"}}, {.state_dict = &foreign}), "its keys are of nowhere.v"));
  tree::Net net;
  ia3.insert("model.layers.1.self_attn.q_proj.lora_A.weight", ia3.begin()->second);
  const auto matched = graft::inject_adapter_in_model(graft::Ia3Config{.target_modules = std::vector<std::string>{}}, net, "one", {.state_dict = &ia3}).matched;
  REQUIRE(matched.size() == 1);
  CHECK(matched[0].path == "model.layers.0.self_attn.q_proj");
}
