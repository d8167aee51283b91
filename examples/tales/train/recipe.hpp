#pragma once

#include <algorithm>
#include <graft/graft.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace tales {

/// How one method is trained: ../recipe/adapters.py with the same steps, rates and configs.
struct TrainingRecipe {
  std::string name, label;
  int steps;
  double learning_rate;
  double accepted;  ///< the perplexity of the held-out Opticks that these steps stay below, whatever the seed
  graft::PeftConfig (*config)(int steps);
};

namespace detail {
inline const graft::TargetModules linears{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
}  // namespace detail

/// The methods; rates are those of recipe/README.md. PEFT with three seeds stays 2 or more below what is accepted.
inline std::vector<TrainingRecipe> training_recipes() {
  return {
      {"lora", "LoRA r=8", 200, 1e-2, 38,
       [](int) -> graft::PeftConfig { return graft::LoraConfig{.r = 8, .lora_alpha = 16, .target_modules = detail::linears}; }},
      {"dora", "DoRA r=8", 200, 1e-2, 38,
       [](int) -> graft::PeftConfig {
         return graft::LoraConfig{.r = 8, .lora_alpha = 16, .target_modules = detail::linears, .use_dora = true};
       }},
      {"adalora", "AdaLoRA 12->8", 200, 2e-2, 37,
       [](int steps) -> graft::PeftConfig {
         return graft::AdaLoraConfig{.init_r = 12, .target_r = 8, .lora_alpha = 24, .target_modules = detail::linears,
                                     .tinit = steps / 6, .tfinal = steps / 3, .deltaT = std::max(1, steps / 30), .total_step = steps};
       }},
      {"ia3", "IA3", 100, 5e-2, 76,
       [](int) -> graft::PeftConfig {
         return graft::Ia3Config{.target_modules = {"k_proj", "v_proj", "down_proj"}, .feedforward_modules = {"down_proj"}};
       }},
  };
}

/// The recipe of that name. @throws graft::ConfigError for an unknown one
inline TrainingRecipe training_recipe(std::string_view name) {
  std::string known;
  for (TrainingRecipe& recipe : training_recipes()) {
    if (recipe.name == name) return recipe;
    known += (known.empty() ? "" : ", ") + recipe.name;
  }
  graft::fail<graft::ConfigError>("there is no method '" + std::string(name) + "'", "the recipes are " + known, "choose one of them");
}

}  // namespace tales
