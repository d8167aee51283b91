#pragma once

#include <concepts>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "config_types.hpp"

namespace graft {

/// LoRA's config: PEFT's names and defaults (`LoraConfig`). ΔW = scaling · B·A with scaling = lora_alpha / r.
struct LoraConfig {
  int r = 8;
  double lora_alpha = 8;
  double lora_dropout = 0;
  Bias bias = Bias::none;
  TargetModules target_modules{}, exclude_modules{};
  bool use_rslora = false;  ///< scaling = lora_alpha / √r
  bool use_dora = false;
  bool lora_bias = false;  ///< B has a bias of its own
  InitLoraWeights init_lora_weights = true;
  std::vector<int> layers_to_transform{};
  std::vector<std::string> layers_pattern{};
  PatternMap<int> rank_pattern{};
  PatternMap<double> alpha_pattern{};
  std::vector<std::string> modules_to_save{};
  TokenIndices trainable_token_indices{};
  std::vector<std::string> target_parameters{};
  bool fan_in_fan_out = false;  ///< read from and written to files; a layer's layout is its trait's matter
  bool ensure_weight_tying = false, inference_mode = false;
  ExtraFields extra{};

  /// @throws ConfigError naming the field, before anything else happens.
  void validate() const;
};

/// AdaLoRA's config (`AdaLoraConfig`). ΔW = lora_alpha / (init_r + 1e-5) · B·(E∘A).
struct AdaLoraConfig {
  int init_r = 12, target_r = 8;
  double lora_alpha = 8;
  double lora_dropout = 0;
  Bias bias = Bias::none;
  TargetModules target_modules{}, exclude_modules{};
  int tinit = 0, tfinal = 0, deltaT = 1;
  double beta1 = 0.85, beta2 = 0.85, orth_reg_weight = 0.5;
  int total_step = 0;  ///< required only to train
  RankPattern rank_pattern{};
  bool init_lora_weights = true;
  std::vector<int> layers_to_transform{};
  std::vector<std::string> layers_pattern{}, modules_to_save{};
  bool fan_in_fan_out = false, inference_mode = false;
  ExtraFields extra{};

  /// @throws ConfigError naming the field, before anything else happens.
  void validate() const;
};

/// (IA)³'s config (`IA3Config`): a learned vector scales outputs, or inputs of `feedforward_modules`.
struct Ia3Config {
  TargetModules target_modules{}, feedforward_modules{}, exclude_modules{};
  std::vector<std::string> modules_to_save{};
  bool init_ia3_weights = true, fan_in_fan_out = false, inference_mode = false;
  ExtraFields extra{};

  /// @throws ConfigError naming the field, before anything else happens.
  void validate() const;
};

/// Any config: every verb that takes a config takes this too.
using PeftConfig = std::variant<LoraConfig, AdaLoraConfig, Ia3Config>;

namespace detail {
/// `std::visit(f, config)`, without the tables of functions that take the compiler longer than most of what is done with
/// a config.
template <class Config, class F>
  requires std::same_as<std::remove_const_t<Config>, PeftConfig>
decltype(auto) visit_config(Config& config, F&& f) {
  if (auto* lora = std::get_if<LoraConfig>(&config)) return f(*lora);
  if (auto* adalora = std::get_if<AdaLoraConfig>(&config)) return f(*adalora);
  return f(*std::get_if<Ia3Config>(&config));
}

/// Whether an adapter of that config was loaded for inference alone.
[[nodiscard]] inline bool is_inference(const PeftConfig& config) {
  return visit_config(config, [](const auto& one) { return one.inference_mode; });
}
}  // namespace detail

}  // namespace graft
