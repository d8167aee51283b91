#pragma once

#include <array>
#include <span>
#include <string_view>

#include "../adapters/config.hpp"
#include "config_values.hpp"

/// Which fields an adapter_config.json has: those with a member, and PEFT's others with their defaults.
namespace graft::detail {

/// A field that PEFT writes and graft has no member for.
struct OtherField {
  std::string_view name, default_json;
};

inline constexpr std::array common_fields{
    OtherField{"auto_mapping", "null"},
    OtherField{"base_model_name_or_path", "null"},
    OtherField{"revision", "null"},
    OtherField{"task_type", "null"},
};
inline constexpr std::array lora_fields{
    OtherField{"alora_invocation_tokens", "null"},
    OtherField{"arrow_config", "null"},
    OtherField{"corda_config", "null"},
    OtherField{"eva_config", "null"},
    OtherField{"kasa_config", "null"},
    OtherField{"layer_replication", "null"},
    OtherField{"loftq_config", "{}"},
    OtherField{"lora_ga_config", "null"},
    OtherField{"megatron_config", "null"},
    OtherField{"megatron_core", "\"megatron.core\""},
    OtherField{"monteclora_config", "null"},
    OtherField{"qalora_group_size", "16"},
    OtherField{"use_bdlora", "null"},
    OtherField{"use_qalora", "false"},
    OtherField{"velora_config", "null"},
};
/// PEFT's default of `eva_config` where `init_lora_weights` is "eva".
inline constexpr std::string_view eva_defaults =
    R"({"rho": 2.0, "tau": 0.99, "use_label_mask": true, "label_mask_value": -100, "whiten": false, "adjust_scaling_factors": true})";
/// What AdaLoRA's file inherits from LoRA's, and PEFT ignores or graft does not offer.
inline constexpr std::array inherited_fields{
    OtherField{"alpha_pattern", "{}"},       OtherField{"ensure_weight_tying", "false"},
    OtherField{"lora_bias", "false"},        OtherField{"r", "8"},
    OtherField{"target_parameters", "null"}, OtherField{"trainable_token_indices", "null"},
    OtherField{"use_dora", "false"},         OtherField{"use_rslora", "false"},
};

/// Everything that differs between the three files. `members(config, field)` calls `field(name, value)`.
template <class Config>
struct ConfigFields;

template <>
struct ConfigFields<LoraConfig> {
  static constexpr std::string_view peft_type = "LORA";
  static constexpr std::array<std::span<const OtherField>, 2> others{common_fields, lora_fields};
  static void members(LoraConfig& c, auto&& field) {
    field("r", c.r);
    field("lora_alpha", Plain<double>{c.lora_alpha});
    field("lora_dropout", c.lora_dropout);
    field("bias", c.bias);
    field("target_modules", Targets{c.target_modules});
    field("exclude_modules", c.exclude_modules);
    field("use_rslora", c.use_rslora);
    field("use_dora", c.use_dora);
    field("lora_bias", c.lora_bias);
    field("init_lora_weights", c.init_lora_weights);
    field("layers_to_transform", OneOrMore<int>{c.layers_to_transform});
    field("layers_pattern", OneOrMore<std::string>{c.layers_pattern});
    field("rank_pattern", c.rank_pattern);
    field("alpha_pattern", Plain<PatternMap<double>>{c.alpha_pattern});
    field("modules_to_save", c.modules_to_save);
    field("trainable_token_indices", c.trainable_token_indices);
    field("target_parameters", c.target_parameters);
    field("fan_in_fan_out", c.fan_in_fan_out);
    field("ensure_weight_tying", c.ensure_weight_tying);
    field("inference_mode", c.inference_mode);
  }
};

template <>
struct ConfigFields<AdaLoraConfig> {
  static constexpr std::string_view peft_type = "ADALORA";
  static constexpr std::array<std::span<const OtherField>, 3> others{common_fields, lora_fields,
                                                                     inherited_fields};
  static void members(AdaLoraConfig& c, auto&& field) {
    field("init_r", c.init_r);
    field("target_r", c.target_r);
    field("lora_alpha", Plain<double>{c.lora_alpha});
    field("lora_dropout", c.lora_dropout);
    field("bias", c.bias);
    field("target_modules", Targets{c.target_modules});
    field("exclude_modules", c.exclude_modules);
    field("tinit", c.tinit);
    field("tfinal", c.tfinal);
    field("deltaT", c.deltaT);
    field("beta1", c.beta1);
    field("beta2", c.beta2);
    field("orth_reg_weight", c.orth_reg_weight);
    field("total_step", NullIfZero{c.total_step});
    field("rank_pattern", c.rank_pattern);
    field("init_lora_weights", Truthy{c.init_lora_weights});
    field("layers_to_transform", OneOrMore<int>{c.layers_to_transform});
    field("layers_pattern", OneOrMore<std::string>{c.layers_pattern});
    field("modules_to_save", c.modules_to_save);
    field("fan_in_fan_out", c.fan_in_fan_out);
    field("inference_mode", c.inference_mode);
  }
};

template <>
struct ConfigFields<Ia3Config> {
  static constexpr std::string_view peft_type = "IA3";
  static constexpr std::array<std::span<const OtherField>, 1> others{common_fields};
  static void members(Ia3Config& c, auto&& field) {
    field("target_modules", Targets{c.target_modules});
    field("feedforward_modules", Required{c.feedforward_modules});
    field("exclude_modules", c.exclude_modules);
    field("modules_to_save", c.modules_to_save);
    field("init_ia3_weights", c.init_ia3_weights);
    field("fan_in_fan_out", c.fan_in_fan_out);
    field("inference_mode", c.inference_mode);
  }
};

/// The field of PEFT's that graft has no member for, or null.
template <class Config>
[[nodiscard]] const OtherField* find_other_field(std::string_view name) {
  for (const std::span<const OtherField> group : ConfigFields<Config>::others)
    for (const OtherField& field : group)
      if (field.name == name) return &field;
  return nullptr;
}

}  // namespace graft::detail
