#pragma once

#include <algorithm>
#include <filesystem>
#include <graft/io.hpp>
#include <string>
#include <variant>
#include <vector>

#include "llama_config.hpp"

namespace tales {

/// An adapter's folder and what the table says of it.
struct AdapterFacts {
  std::filesystem::path folder;
  std::string name;   ///< under which it is loaded
  std::string label;  ///< "LoRA r=8"
  std::size_t parameters = 0;
  bool has_modules = false;  ///< whole modules of its own
  bool has_biases = false;   ///< its own of the base's biases
};

namespace detail {
inline std::string label_of(const graft::LoraConfig& config) {
  return std::string(config.use_dora ? "DoRA" : "LoRA") + " r=" + std::to_string(config.r);
}
inline std::string label_of(const graft::AdaLoraConfig& config) {
  return "AdaLoRA " + std::to_string(config.init_r) + "->" + std::to_string(config.target_r);
}
inline std::string label_of(const graft::Ia3Config&) { return "IA3"; }

inline bool trains_biases(const auto& config) { return config.bias != graft::Bias::none; }
inline bool trains_biases(const graft::Ia3Config&) { return false; }
}  // namespace detail

/// Whether PEFT keeps tensors of an adapter as f32 that a layer with narrow weights would round: whole modules, and
/// biases where the base has any.
inline bool needs_wide_layers(const std::vector<AdapterFacts>& adapters, const LlamaConfig& config) {
  const bool has_biases = config.attention_bias || config.mlp_bias;
  return std::any_of(adapters.begin(), adapters.end(), [&](const AdapterFacts& adapter) {
    return adapter.has_modules || (adapter.has_biases && has_biases);
  });
}

/// Reads what there is to say of each folder. Adapters get their folder's name, or one like it that is not
/// taken.
inline std::vector<AdapterFacts> read_adapter_facts(const std::vector<std::filesystem::path>& folders) {
  std::vector<AdapterFacts> all;
  const auto is_taken = [&](auto AdapterFacts::*field, const std::string& text) {
    return std::any_of(all.begin(), all.end(),
                       [&](const AdapterFacts& other) { return other.*field == text; });
  };
  for (const auto& folder : folders) {
    AdapterFacts facts;
    facts.folder = folder;
    const auto normal = std::filesystem::absolute(folder).lexically_normal();
    facts.name = (normal.has_filename() ? normal : normal.parent_path()).filename().string();
    std::replace(facts.name.begin(), facts.name.end(), '.', '_');  // a dot would separate modules
    const std::string first = facts.name;
    for (int next = 2; is_taken(&AdapterFacts::name, facts.name); ++next)
      facts.name = first + "-" + std::to_string(next);
    std::visit(
        [&](const auto& config) {
          facts.label = detail::label_of(config);
          facts.has_modules = !config.modules_to_save.empty();
          facts.has_biases = detail::trains_biases(config);
        },
        graft::load_peft_config(folder));
    if (is_taken(&AdapterFacts::label, facts.label)) facts.label += " (" + facts.name + ")";
    for (const auto& [key, view] : graft::load_peft_weights(folder))
      facts.parameters += std::size_t(view.size());
    all.push_back(std::move(facts));
  }
  return all;
}

}  // namespace tales
