#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "../adapters/init_scheme.hpp"
#include "../core/keys.hpp"
#include "site.hpp"

/// What a plan must know of attentions: PEFT adapts an attention's output projection with its packed one, and only so.
namespace graft::detail {

[[nodiscard]] inline bool is_among(const ModelSites& model, const std::vector<std::size_t>& sites, const AnySite* site) {
  return std::any_of(sites.begin(), sites.end(), [&](std::size_t place) { return model.sites[place].get() == site; });
}

/// Whether a site is adapted with the attention around it, which is among the targets.
[[nodiscard]] inline bool comes_with_attention(const ModelSites& model, const std::vector<std::size_t>& targets, const AnySite& site) {
  return site.outer() && is_among(model, targets, site.outer());
}

/// The attention that a module of an adapter's keys belongs to ("attn.base_layer.out_proj"); the module itself if to none.
[[nodiscard]] inline std::string_view adapted_attention(const ModelSites& model, std::string_view module) {
  for (const auto& site : model.sites)
    if (site->outer() && module_inside(site->outer()->path(), site->path()) == module) return site->outer()->path();
  return module;
}

/// The sites inside of an attention's, which is the model's site `place`: its output projection.
template <class F>
void for_each_inner(const ModelSites& model, std::size_t place, F f) {
  const AnySite* site = model.sites[place].get();
  for (std::size_t inner = place + 1; inner < model.sites.size() && model.sites[inner]->outer() == site; ++inner) f(inner);
}

/// @throws TargetError where an attention's output projection has adapters of its own: PEFT wraps no such attention.
inline void check_output(const ModelSites& model, std::size_t place) {
  for_each_inner(model, place, [&](std::size_t inner) {
    const SiteTable* table = model.sites[inner]->table();
    if (table && table->is_wrapped() && !is_inside_adapted(*model.sites[inner]))
      fail<TargetError>("the target '" + model.sites[place]->path() + "' has an output projection with adapters of its own, '" +
                            model.sites[inner]->path() + "'",
                        "an attention's adapter adapts its output projection too, and in PEFT it cannot where that is wrapped already",
                        "delete those adapters and unload(), or leave '" + model.sites[place]->path() + "' out of the targets");
  });
}

/// Adds a site to the targets, and an attention's output projection with it.
/// @throws TargetError where the output projection is a target of its own, or has adapters of its own.
inline void take_with_output(const ModelSites& model, std::size_t place, std::vector<std::size_t>& targets) {
  const AnySite& site = *model.sites[place];
  if (comes_with_attention(model, targets, site))
    fail<TargetError>("the targets name '" + site.path() + "' and '" + site.outer()->path() + "', which it is part of",
                      "an attention's adapter adapts its output projection too",
                      "name one of them, or exclude '" + site.path() + "' with exclude_modules");
  check_output(model, place);
  targets.push_back(place);
  for_each_inner(model, place, [&](std::size_t inner) { targets.push_back(inner); });
}

/// @throws ConfigError for what PEFT's `lora.MultiheadAttention` does not have.
inline void check_attention(const LoraConfig& config, const std::string& path) {
  const std::string where = " at '" + path + "', an attention with a packed projection";
  const std::string fix = "leave it out, or exclude the attention with exclude_modules";
  if (config.use_dora)
    fail<ConfigError>("use_dora" + where, "PEFT has no DoRA for it", fix);
  if (config.lora_bias)
    fail<ConfigError>("lora_bias" + where, "PEFT makes such a bias and leaves that of the packed projection out of its forward", fix);
  if (config.fan_in_fan_out)
    fail<ConfigError>("fan_in_fan_out" + where, "PEFT then adds the transposed update to its output projection", fix);
  const InitScheme scheme = init_scheme(config.init_lora_weights);
  if (scheme != InitScheme::identity && scheme != InitScheme::random && scheme != InitScheme::gaussian)
    fail<ConfigError>("init_lora_weights \"" + config.init_lora_weights.scheme() + "\"" + where,
                      "the schemes are made for linear layers",
                      "use true, false or \"gaussian\", or exclude the attention with exclude_modules");
}

}  // namespace graft::detail
