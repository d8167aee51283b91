#pragma once

#include <string>
#include <vector>

#include <graft/graft.hpp>
#include <graft/regex.hpp>
#include <nlohmann/json.hpp>

/// Configs made in C++ as a user writes them, from the fields of an adapter_config.json, without graft's own reader.
namespace interop {

inline graft::TargetModules targets(const nlohmann::json& field) {
  if (field.is_null()) return {};
  if (field.is_array()) return field.get<std::vector<std::string>>();
  if (field == "all-linear") return graft::all_linear;
  return graft::regex(field.get<std::string>());
}

inline std::vector<std::string> names(const nlohmann::json& field) {
  if (field.is_null()) return {};
  if (field.is_string()) return {field.get<std::string>()};
  return field.get<std::vector<std::string>>();
}

inline std::vector<int> numbers(const nlohmann::json& field) {
  if (field.is_null()) return {};
  if (field.is_number()) return {field.get<int>()};
  return field.get<std::vector<int>>();
}

inline graft::Bias bias(const nlohmann::json& field) {
  return field == "all" ? graft::Bias::all : field == "lora_only" ? graft::Bias::lora_only : graft::Bias::none;
}

template <class V>
graft::PatternMap<V> pattern(const nlohmann::json& field) {
  graft::PatternMap<V> map;
  for (const auto& [key, value] : field.items()) map.emplace_back(key, value.template get<V>());
  return map;
}

inline graft::TokenIndices tokens(const nlohmann::json& field) {
  if (field.is_null()) return {};
  if (field.is_array()) return field.get<std::vector<graft::Index>>();
  std::vector<std::pair<std::string, std::vector<graft::Index>>> modules;
  for (const auto& [module, ids] : field.items()) modules.emplace_back(module, ids.get<std::vector<graft::Index>>());
  return modules;
}

inline graft::InitLoraWeights initialisation(const nlohmann::json& field) {
  return field.is_boolean() ? graft::InitLoraWeights(field.get<bool>()) : graft::InitLoraWeights(field.get<std::string>());
}

inline graft::PeftConfig lora_config(const nlohmann::json& json) {
  return graft::LoraConfig{.r = json.at("r"),
                           .lora_alpha = json.at("lora_alpha"),
                           .lora_dropout = json.at("lora_dropout"),
                           .bias = bias(json.at("bias")),
                           .target_modules = targets(json.at("target_modules")),
                           .exclude_modules = targets(json.at("exclude_modules")),
                           .use_rslora = json.at("use_rslora"),
                           .use_dora = json.at("use_dora"),
                           .lora_bias = json.at("lora_bias"),
                           .init_lora_weights = initialisation(json.at("init_lora_weights")),
                           .layers_to_transform = numbers(json.at("layers_to_transform")),
                           .layers_pattern = names(json.at("layers_pattern")),
                           .rank_pattern = pattern<int>(json.at("rank_pattern")),
                           .alpha_pattern = pattern<double>(json.at("alpha_pattern")),
                           .modules_to_save = names(json.at("modules_to_save")),
                           .trainable_token_indices = tokens(json.at("trainable_token_indices")),
                           .target_parameters = names(json.at("target_parameters")),
                           .fan_in_fan_out = json.at("fan_in_fan_out").get<bool>(),
                           .ensure_weight_tying = json.value("ensure_weight_tying", false)};
}

inline graft::PeftConfig adalora_config(const nlohmann::json& json) {
  return graft::AdaLoraConfig{.init_r = json.at("init_r"),
                              .target_r = json.at("target_r"),
                              .lora_alpha = json.at("lora_alpha"),
                              .lora_dropout = json.at("lora_dropout"),
                              .bias = bias(json.at("bias")),
                              .target_modules = targets(json.at("target_modules")),
                              .exclude_modules = targets(json.at("exclude_modules")),
                              .tinit = json.at("tinit"),
                              .tfinal = json.at("tfinal"),
                              .deltaT = json.at("deltaT"),
                              .total_step = json.at("total_step"),
                              .init_lora_weights = json.at("init_lora_weights").get<bool>(),
                              .layers_to_transform = numbers(json.at("layers_to_transform")),
                              .layers_pattern = names(json.at("layers_pattern")),
                              .modules_to_save = names(json.at("modules_to_save")),
                              .fan_in_fan_out = json.at("fan_in_fan_out").get<bool>()};
}

inline graft::PeftConfig ia3_config(const nlohmann::json& json) {
  return graft::Ia3Config{.target_modules = targets(json.at("target_modules")),
                          .feedforward_modules = targets(json.at("feedforward_modules")),
                          .exclude_modules = targets(json.at("exclude_modules")),
                          .modules_to_save = names(json.at("modules_to_save")),
                          .fan_in_fan_out = json.at("fan_in_fan_out").get<bool>()};
}

inline graft::PeftConfig config(const nlohmann::json& json) {
  const std::string method = json.at("peft_type");
  return method == "IA3" ? ia3_config(json) : method == "ADALORA" ? adalora_config(json) : lora_config(json);
}

}  // namespace interop
