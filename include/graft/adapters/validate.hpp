#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "config.hpp"
#include "factorisers.hpp"
#include "init_scheme.hpp"

namespace graft {

namespace detail {

struct RefusedField {
  std::string_view name, reason;
};
/// PEFT's fields that would change what an adapter computes, and that graft does not do. Those of an initialisation
/// (`corda_config`, …) change nothing without it, and initialisations are checked by themselves.
inline constexpr std::array refused_fields{
    RefusedField{"alora_invocation_tokens", "activated LoRA needs the token ids in every layer"},
    RefusedField{"arrow_config", "Arrow routes tokens between adapters"},
    RefusedField{"kasa_config", "KaSA adds a diagonal to the update"},
    RefusedField{"layer_replication", "it builds a deeper model by repeating layers"},
    RefusedField{"megatron_config", "Megatron's layers are split over processes"},
    RefusedField{"monteclora_config", "MonteCLoRA samples its update"},
    RefusedField{"use_bdlora", "BD-LoRA's matrices are block-diagonal"},
    RefusedField{"use_qalora", "QALoRA pools the input before A"},
    RefusedField{"velora_config", "VeLoRA compresses what training remembers"},
    // AdaLoRA's file inherits these from LoRA's; its config has no members for them.
    RefusedField{"ensure_weight_tying", "graft does not tie AdaLoRA adapters"},
    RefusedField{"target_parameters", "graft does not apply AdaLoRA to bare parameters"},
    RefusedField{"trainable_token_indices", "graft does not train single tokens beside AdaLoRA"},
    RefusedField{"use_dora", "DoRA and AdaLoRA exclude each other, in PEFT too"},
};

/// @throws ConfigError for an extra field that stands for something graft does not do.
inline void refuse_extra_fields(const ExtraFields& extra) {
  constexpr std::array unset{"null", "false", "{}"};
  for (const auto& [name, json] : extra)
    for (const RefusedField& field : refused_fields)
      if (field.name == name && std::find(unset.begin(), unset.end(), json) == unset.end())
        fail<ConfigError>("the field '" + name + "' is set to " + json.substr(0, 100),
                          std::string(field.reason) + ", and without it the results would be wrong",
                          "use an adapter without it, or set it to its default where it has no effect");
}

[[noreturn]] inline void refuse_field(std::string_view field, std::string problem, std::string why,
                                      std::string fix) {
  fail<ConfigError>("'" + std::string(field) + "' " + std::move(problem), std::move(why), std::move(fix));
}

inline void check_bias(Bias bias) {
  if (bias != Bias::none && bias != Bias::all && bias != Bias::lora_only)
    refuse_field("bias", "is " + std::to_string(int(bias)), "it is no value of graft::Bias",
                 "use Bias::none, Bias::all or Bias::lora_only");
}

inline void check_numbers(double lora_alpha, double lora_dropout) {
  if (!std::isfinite(lora_alpha))
    refuse_field("lora_alpha", "is " + std::to_string(lora_alpha), "it is a factor of every update",
                 "use a finite number");
  if (!(lora_dropout <= 1))
    refuse_field("lora_dropout", "is " + std::to_string(lora_dropout), "it is a probability",
                 "use a number from 0 to 1; 0 and less mean no dropout");
}

inline void check_layers(const TargetModules& targets, const std::vector<int>& layers_to_transform,
                         const std::vector<std::string>& layers_pattern) {
  using Kind = TargetModules::Kind;
  const bool is_pattern = targets.kind() == Kind::regex || targets.kind() == Kind::all_linears;
  const std::string why = "a regular expression and all_linear say themselves which layers they mean";
  const std::string fix = "list the names of the modules in target_modules, or leave this empty";
  if (is_pattern && !layers_to_transform.empty())
    refuse_field("layers_to_transform", "cannot go with target_modules that are no list", why, fix);
  if (is_pattern && !layers_pattern.empty())
    refuse_field("layers_pattern", "cannot go with target_modules that are no list", why, fix);
  if (!layers_pattern.empty() && layers_to_transform.empty())
    refuse_field("layers_pattern", "is set, but layers_to_transform is not",
                 "it says where the numbers in layers_to_transform are found", "set both or neither");
}

inline void check_exclusion(const TargetModules& excluded) {
  if (excluded.kind() == TargetModules::Kind::all_linears)
    refuse_field("exclude_modules", "is all_linear", "it names modules that the targets would otherwise take",
                 "use a list or a regular expression");
}

inline void check_initialisation(const LoraConfig& config) {
  const InitLoraWeights& init = config.init_lora_weights;
  if (config.lora_bias && !init.is_bool())
    refuse_field("lora_bias", "cannot go with init_lora_weights \"" + init.scheme() + "\"",
                 "the schemes know no bias; PEFT refuses it too", "use init_lora_weights true or false");
  const InitScheme scheme = init_scheme(init);
  if (takes_from_base(scheme) || scheme == InitScheme::orthogonal)
    (void)need_factorisers("init_lora_weights \"" + init.scheme() + "\"");
  if (scheme != InitScheme::unknown) return;
  const std::string problem = "is \"" + init.scheme() + "\"";
  constexpr std::array foreign{"corda", "loftq", "lora_ga", "mica"};
  if (std::find(foreign.begin(), foreign.end(), lower_case(init.scheme())) != foreign.end())
    refuse_field("init_lora_weights", problem,
                 "graft does not have this initialisation: it needs data, gradients or "
                 "a quantised base",
                 "use true or \"gaussian\", or initialise in PEFT and load the adapter converted");
  refuse_field("init_lora_weights", problem, "no initialisation has that name",
               "use true, false, \"gaussian\", \"orthogonal\", \"pissa\", \"pissa_niter_4\", \"olora\" or \"eva\"; "
               "names are lower case");
}

}  // namespace detail

inline void LoraConfig::validate() const {
  using detail::refuse_field;
  if (r <= 0) refuse_field("r", "is " + std::to_string(r), "a rank is at least 1", "use a positive number");
  detail::check_numbers(lora_alpha, lora_dropout);
  detail::check_bias(bias);
  detail::check_layers(target_modules, layers_to_transform, layers_pattern);
  detail::check_exclusion(exclude_modules);
  for (const auto& [pattern, rank] : rank_pattern)
    if (rank <= 0)
      refuse_field("rank_pattern", "gives '" + pattern + "' the rank " + std::to_string(rank),
                   "a rank is at least 1", "use a positive number, or exclude the module by exclude_modules");
  for (const auto& [pattern, alpha] : alpha_pattern)
    if (!std::isfinite(alpha))
      refuse_field("alpha_pattern", "gives '" + pattern + "' the alpha " + std::to_string(alpha),
                   "it is a factor of the update", "use a finite number");
  if (lora_bias && use_dora)
    refuse_field("lora_bias", "cannot go with use_dora", "DoRA knows no bias; PEFT refuses it too",
                 "use one of them");
  detail::check_initialisation(*this);
  detail::refuse_extra_fields(extra);
}

inline void AdaLoraConfig::validate() const {
  using detail::refuse_field;
  const auto require = [](bool is_right, std::string_view field, auto value, std::string why,
                          std::string fix) {
    if (!is_right) refuse_field(field, "is " + std::to_string(value), std::move(why), std::move(fix));
  };
  require(init_r >= 0, "init_r", init_r, "a rank is not negative",
          "use 1 or more; 0 means an adapter without effect");
  detail::check_numbers(lora_alpha, lora_dropout);
  detail::check_bias(bias);
  detail::check_layers(target_modules, layers_to_transform, layers_pattern);
  detail::check_exclusion(exclude_modules);
  for (const auto& [path, kept] : rank_pattern)
    if (kept.size() != std::size_t(init_r))
      refuse_field("rank_pattern", "has " + std::to_string(kept.size()) + " entries for '" + path + "'",
                   "it says of each of the init_r = " + std::to_string(init_r) + " ranks whether it was kept",
                   "take init_r and rank_pattern from the same file");
  require(total_step >= 0, "total_step", total_step, "it counts the steps of a training run",
          "leave it at 0 for an adapter that is not trained");
  require(orth_reg_weight >= 0 && std::isfinite(orth_reg_weight), "orth_reg_weight", orth_reg_weight,
          "it is the weight of a penalty", "use 0 or more");
  const bool has_schedule = total_step > 0;
  const long long last_reduction = static_cast<long long>(total_step) - tfinal;
  if (has_schedule && tinit >= last_reduction)
    refuse_field("tinit", "is " + std::to_string(tinit) + ", which leaves no step to reduce ranks in",
                 "the budget falls between tinit and total_step - tfinal = " + std::to_string(last_reduction),
                 "lower tinit or tfinal, or raise total_step");
  if (has_schedule && !inference_mode) {
    require(tinit >= 0, "tinit", tinit, "it is a number of steps", "use 0 or more");
    require(tfinal >= 0, "tfinal", tfinal, "it is a number of steps", "use 0 or more");
    require(deltaT > 0, "deltaT", deltaT, "ranks are chosen anew every deltaT steps", "use 1 or more");
    require(beta1 > 0 && beta1 < 1, "beta1", beta1, "it smooths a running mean",
            "use a number between 0 and 1");
    require(beta2 > 0 && beta2 < 1, "beta2", beta2, "it smooths a running mean",
            "use a number between 0 and 1");
    // a target_r that init_r does not exceed is the allocator's to refuse: PEFT injects it, and files hold it
    require(target_r >= 0, "target_r", target_r, "it is the rank that sites keep on average", "use 0 or more");
  }
  detail::refuse_extra_fields(extra);
}

inline void Ia3Config::validate() const {
  using Kind = TargetModules::Kind;
  detail::check_exclusion(exclude_modules);
  if (feedforward_modules.kind() == Kind::all_linears)
    detail::refuse_field("feedforward_modules", "is all_linear", "it names some of the target modules",
                         "use a list or a regular expression");
  if (feedforward_modules.kind() == Kind::list && target_modules.kind() == Kind::list)
    for (const std::string& name : feedforward_modules.names()) {
      const std::vector<std::string>& targets = target_modules.names();
      if (std::find(targets.begin(), targets.end(), name) == targets.end())
        detail::refuse_field(
            "feedforward_modules", "names '" + name + "', which target_modules does not",
            "only a module that is adapted can be a feed-forward one; entries are compared literally",
            "add '" + name + "' to target_modules");
    }
  detail::refuse_extra_fields(extra);
}

/// Checks a config by itself, without a model. @throws ConfigError naming the field.
template <class Config>
  requires requires(const Config& config) { config.validate(); }
void validate(const Config& config) {
  config.validate();
}
inline void validate(const PeftConfig& config) {
  detail::visit_config(config, [](const auto& one) { one.validate(); });
}

}  // namespace graft
