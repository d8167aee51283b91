#include "graft/adapters/validate.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

using namespace graft;

namespace {
/// The problem and the reason of the ConfigError that a changed config raises; "" when it is accepted.
template <class Config>
std::string complaint(const std::function<void(Config&)>& change, Config config = {}) {
  config.target_modules = {"q"};
  change(config);
  try {
    config.validate();
  } catch (const ConfigError& error) {
    CHECK_FALSE(error.fix.empty());
    return error.problem + ": " + error.why;
  }
  return "";
}
template <class Config>
void check(const std::vector<std::pair<std::function<void(Config&)>, std::string>>& cases, Config base = {}) {
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const std::string text = complaint<Config>(cases[i].first, base);
    CAPTURE(i);
    CAPTURE(cases[i].second);
    if (cases[i].second.empty())
      CHECK(text == "");
    else
      CHECK_MESSAGE(text.starts_with(cases[i].second), text);
  }
}
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
}  // namespace

// What is refused and what is not was run against PEFT 0.21.2; where graft is stricter, a comment says so.

TEST_CASE("LoRA: defaults and what PEFT accepts are accepted") {
  CHECK_NOTHROW(LoraConfig{}.validate());
  check<LoraConfig>({
      {[](auto& c) { c.lora_dropout = -1; }, ""},
      {[](auto& c) { c.lora_dropout = 1; }, ""},
      {[](auto& c) { c.lora_alpha = 0; }, ""},
      {[](auto& c) { c.lora_alpha = -3; }, ""},
      {[](auto& c) { c.r = 100'000; }, ""},
      {[](auto& c) { c.init_lora_weights = "Gaussian"; }, ""},
      {[](auto& c) {
         c.init_lora_weights = false;
         c.lora_bias = true;
       },
       ""},
      {[](auto& c) {
         c.layers_to_transform = {0};
         c.layers_pattern = {"h"};
       },
       ""},
      {[](auto& c) {
         c.rank_pattern = {{"q", 4}};
         c.alpha_pattern = {{"q", -0.5}};
       },
       ""},
      {[](auto& c) { c.target_modules = {}; }, ""},
      {[](auto& c) {
         c.extra = {{"task_type", "\"CAUSAL_LM\""}, {"use_qalora", "false"}, {"eva_config", "null"}};
       },
       ""},
  });
}

TEST_CASE("LoRA: what PEFT refuses is refused, field by field") {
  check<LoraConfig>({
      {[](auto& c) { c.r = 0; }, "'r' is 0"},
      {[](auto& c) { c.r = -1; }, "'r' is -1"},
      {[](auto& c) { c.lora_dropout = 1.5; }, "'lora_dropout' is 1.5"},
      {[](auto& c) { c.bias = Bias(7); }, "'bias' is 7"},
      {[](auto& c) {
         c.target_modules = Regex{"q"};
         c.layers_to_transform = {0};
       },
       "'layers_to_transform' cannot go with"},
      {[](auto& c) {
         c.target_modules = all_linear;
         c.layers_to_transform = {0};
       },
       "'layers_to_transform' cannot go with"},
      {[](auto& c) {
         c.target_modules = Regex{"q"};
         c.layers_pattern = {"h"};
       },
       "'layers_pattern' cannot go with"},
      {[](auto& c) { c.layers_pattern = {"h"}; }, "'layers_pattern' is set, but layers_to_transform is not"},
      {[](auto& c) { c.exclude_modules = all_linear; }, "'exclude_modules' is all_linear"},
      {[](auto& c) {
         c.rank_pattern = {{"q", 0}};
       },
       "'rank_pattern' gives 'q' the rank 0"},
      {[](auto& c) {
         c.lora_bias = true;
         c.init_lora_weights = "gaussian";
       },
       "'lora_bias' cannot go with init_lora_weights"},
      {[](auto& c) {
         c.lora_bias = true;
         c.use_dora = true;
       },
       "'lora_bias' cannot go with use_dora"},
      {[](auto& c) { c.init_lora_weights = "foo"; },
       "'init_lora_weights' is \"foo\": no initialisation has that name"},
      {[](auto& c) { c.init_lora_weights = "Pissa"; }, "'init_lora_weights' is \"Pissa\": no initialisation"},
      {[](auto& c) { c.init_lora_weights = "pissa_niter_x"; },
       "'init_lora_weights' is \"pissa_niter_x\": no init"},
      {[](auto& c) { c.init_lora_weights = "pissa_niter_"; },
       "'init_lora_weights' is \"pissa_niter_\": no init"},
      {[](auto& c) { c.init_lora_weights = "EVA"; }, "'init_lora_weights' is \"EVA\": no initialisation"},
      // PEFT goes on with these
      {[](auto& c) { c.lora_dropout = not_a_number; }, "'lora_dropout' is nan"},
      {[](auto& c) { c.lora_alpha = not_a_number; }, "'lora_alpha' is nan"},
      {[](auto& c) { c.lora_alpha = INFINITY; }, "'lora_alpha' is inf"},
      {[](auto& c) {
         c.alpha_pattern = {{"q", not_a_number}};
       },
       "'alpha_pattern' gives 'q' the alpha nan"},
  });
}

TEST_CASE("EVA is what its file holds: its config and its name change nothing") {
  CHECK(complaint<LoraConfig>([](auto& c) {
          c.init_lora_weights = "eva";
          c.extra = {{"eva_config", "{\"rho\": 2}"}};
        }) == "");
}

TEST_CASE("LoRA: what graft does not do is refused with the reason") {
  const auto* const factorisers = std::exchange(detail::factorisers, nullptr);  // other tests of this program have them
  for (const char* scheme : {"pissa", "pissa_niter_16", "olora", "OLORA", "orthogonal"}) {
    const std::string text = complaint<LoraConfig>([&](auto& c) { c.init_lora_weights = scheme; });
    CHECK_MESSAGE(text.find("graft/factorise.hpp") != std::string::npos, text);
  }
  detail::factorisers = factorisers;
  for (const char* scheme : {"corda", "loftq", "lora_ga", "mica", "MiCA"}) {
    const std::string text = complaint<LoraConfig>([&](auto& c) { c.init_lora_weights = scheme; });
    CHECK_MESSAGE(text.find("graft does not have this initialisation") != std::string::npos, text);
  }
  check<LoraConfig>({
      {[](auto& c) {
         c.extra = {{"use_qalora", "true"}};
       },
       "the field 'use_qalora' is set to true"},
      {[](auto& c) {
         c.extra = {{"x", "1"}, {"kasa_config", "{\"a\": 2}"}};
       },
       "the field 'kasa_config' is set"},
      {[](auto& c) {
         c.extra = {{"alora_invocation_tokens", "[]"}};
       },
       "the field 'alora_invocation_tokens' is set"},
  });
  for (const char* field :
       {"arrow_config", "kasa_config", "layer_replication", "megatron_config", "monteclora_config", "use_bdlora", "velora_config"})
    CHECK(complaint<LoraConfig>([&](auto& c) { c.extra = {{field, "{\"a\": 1}"}}; }) != "");
  for (const char* field : {"corda_config", "eva_config", "loftq_config", "lora_ga_config"})
    CHECK(complaint<LoraConfig>([&](auto& c) { c.extra = {{field, "{\"a\": 1}"}}; }) == "");
}

TEST_CASE("AdaLoRA: without total_step it need not be ready to train") {
  CHECK_NOTHROW(AdaLoraConfig{}.validate());
  check<AdaLoraConfig>({
      {[](auto& c) { c.init_r = 0; }, ""},
      {[](auto& c) { c.init_r = 4; }, ""},
      {[](auto& c) {
         c.beta1 = 0;
         c.deltaT = 0;
       },
       ""},
      {[](auto& c) {
         c.init_r = 2;
         c.rank_pattern = {{"q", {true, false}}};
       },
       ""},
      {[](auto& c) { c.init_r = -1; }, "'init_r' is -1"},
      {[](auto& c) { c.total_step = -1; }, "'total_step' is -1"},
      {[](auto& c) { c.orth_reg_weight = -1; }, "'orth_reg_weight' is -1"},
      {[](auto& c) {
         c.rank_pattern = {{"q", {true}}};
       },
       "'rank_pattern' has 1 entries for 'q'"},
      {[](auto& c) { c.lora_dropout = 2; }, "'lora_dropout' is 2"},
      {[](auto& c) { c.lora_alpha = not_a_number; }, "'lora_alpha' is nan"},
      {[](auto& c) { c.bias = Bias(-1); }, "'bias' is -1"},
      {[](auto& c) { c.layers_pattern = {"h"}; }, "'layers_pattern' is set, but"},
      {[](auto& c) {
         c.target_modules = all_linear;
         c.layers_to_transform = {1};
       },
       "'layers_to_transform' cannot"},
      {[](auto& c) {
         c.extra = {{"use_dora", "true"}};
       },
       "the field 'use_dora' is set"},
      {[](auto& c) {
         c.extra = {{"trainable_token_indices", "[1]"}};
       },
       "the field 'trainable_token_indices' is set"},
      {[](auto& c) {
         c.extra = {{"r", "4"}, {"use_rslora", "true"}};
       },
       ""},
  });
}

TEST_CASE("AdaLoRA: a schedule must leave room, and be one to train with unless for inference") {
  AdaLoraConfig base;
  base.total_step = 9;
  check<AdaLoraConfig>(
      {
          {[](auto&) {}, ""},
          {[](auto& c) {
             c.tinit = 4;
             c.tfinal = 4;
           },
           ""},
          {[](auto& c) { c.tinit = 9; }, "'tinit' is 9, which leaves no step"},
          {[](auto& c) {
             c.tinit = 5;
             c.tfinal = 4;
           },
           "'tinit' is 5, which leaves no step"},
          {[](auto& c) {
             c.tinit = 9;
             c.inference_mode = true;
           },
           "'tinit' is 9, which leaves no step"},
          {[](auto& c) { c.exclude_modules = all_linear; }, "'exclude_modules' is all_linear"},
          {[](auto& c) {  // the difference fits no int
             c.total_step = std::numeric_limits<int>::max();
             c.tfinal = std::numeric_limits<int>::min();
           },
           "'tfinal' is -2147483648"},
          {[](auto& c) { c.beta1 = 1; }, "'beta1' is 1"},
          {[](auto& c) { c.beta2 = 0; }, "'beta2' is 0"},
          {[](auto& c) {
             c.beta1 = 0;
             c.inference_mode = true;
           },
           ""},
          // PEFT fails later with these: a modulo by zero, no rank to choose, steps below 0
          {[](auto& c) { c.deltaT = 0; }, "'deltaT' is 0"},
          {[](auto& c) { c.target_r = 12; }, ""},  // the allocator's to refuse
          {[](auto& c) { c.target_r = -1; }, "'target_r' is -1"},
          {[](auto& c) { c.tinit = -1; }, "'tinit' is -1"},
          {[](auto& c) { c.tfinal = -1; }, "'tfinal' is -1"},
          {[](auto& c) {
             c.deltaT = 0;
             c.target_r = 12;
             c.inference_mode = true;
           },
           ""},
      },
      base);
}

TEST_CASE("IA3: feed-forward modules are literally among the targets") {
  CHECK_NOTHROW(Ia3Config{}.validate());
  check<Ia3Config>({
      {[](auto&) {}, ""},
      {[](auto& c) { c.feedforward_modules = {"q"}; }, ""},
      {[](auto& c) { c.feedforward_modules = Regex{"z"}; }, ""},
      {[](auto& c) {
         c.target_modules = Regex{"q"};
         c.feedforward_modules = {"z"};
       },
       ""},
      {[](auto& c) {
         c.feedforward_modules = {"q", "z"};
       },
       "'feedforward_modules' names 'z'"},
      {[](auto& c) { c.feedforward_modules = all_linear; }, "'feedforward_modules' is all_linear"},
      {[](auto& c) { c.exclude_modules = all_linear; }, "'exclude_modules' is all_linear"},
      {[](auto& c) {
         c.extra = {{"use_qalora", "true"}};
       },
       "the field 'use_qalora' is set"},
  });
}

TEST_CASE("validate takes any config") {
  CHECK_THROWS_AS(validate(LoraConfig{.r = 0}), ConfigError);
  CHECK_THROWS_AS(validate(PeftConfig(AdaLoraConfig{.init_r = -1})), ConfigError);
  CHECK_NOTHROW(validate(PeftConfig(Ia3Config{})));
}
