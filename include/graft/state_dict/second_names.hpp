#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "slots.hpp"

/// torch names what a model holds by every path that leads to it. Here it stands under the first one; these are the keys of
/// the others.
namespace graft::detail {

/// Whether a key is of a module, or of what is in it.
[[nodiscard]] inline bool is_key_of(std::string_view key, std::string_view module) {
  return key.starts_with(module) && (key.size() == module.size() || key[module.size()] == '.');
}

/// A second name as keys spell it: what stands below one of `modules` also stands below `name`. The module is what was
/// there before PEFT put a wrapper around its first name, which the second one does not lead through.
struct SecondKey {
  std::string module, name;
};

/// `layer_at(i)` spells the layer inside of the wrappers at the model's site i.
template <class LayerAt>
[[nodiscard]] SecondKey second_key(const ModelSites& model, const WrappedModules& modules, const SecondName& name, LayerAt layer_at) {
  for (std::size_t i = 0; i < model.sites.size(); ++i)
    if (model.sites[i]->path() == name.first) return {layer_at(i), modules.inside(name.path)};
  std::string inside = modules.inside(name.first + ".");
  inside.pop_back();
  return {std::move(inside), modules.inside(name.path)};
}

/// As the file of one adapter alone spells them.
template <class = OnDemand>
[[nodiscard]] std::vector<SecondKey> second_keys(const ModelSites& model, const AdapterParts& parts) {
  std::vector<SecondKey> keys;
  if (model.second_names.empty()) return keys;
  const WrappedModules modules(model, [&](std::size_t i) { return parts.at[i] && parts.at[i]->state; });
  const auto layer_at = [&](std::size_t i) {
    const AnySite& site = *model.sites[i];
    const SiteAdapter* here = parts.at[i];
    const std::string path = modules.inside(site.path());
    if (!here || site.kind() == LayerKind::parameter) return path;
    if (here->copy) return copied_module(site, "original_module", here->with_outer);
    if (here->tokens) return join_path(path, token_base);
    return here->state ? join_path(modules.holder(site, here->depth, here->with_outer), "base_layer") : path;
  };
  for (const SecondName& name : model.second_names) keys.push_back(second_key(model, modules, name, layer_at));
  return keys;
}

/// Adds what stands below a module under its second name too.
template <class = OnDemand>
void insert_again(StateDict& all, const SecondKey& key) {
  std::vector<StateDict::value_type> again;
  for (const auto& [first, view] : all)
    if (is_key_of(first, key.module)) again.emplace_back(key.name + first.substr(key.module.size()), view);
  for (StateDict::value_type& entry : again) all.insert(std::move(entry));
}

/// Where the keys of a state dict go, when it is loaded.
class KeyPlaces {
 public:
  struct Place {
    std::size_t target;
    std::size_t name;  ///< of the several names of one target: a later one in torch's order is greater
  };

  /// A key that is there already stays what it is.
  void add(std::string key, std::size_t target) { places_.try_emplace(std::move(key), Place{target, 0}); }
  [[nodiscard]] const Place* find(const std::string& key) const {
    const auto place = places_.find(key);
    return place == places_.end() ? nullptr : &place->second;
  }
  /// Lets the keys below `modules` stand below `names` too, in torch's order behind `last`, and returns the last one then.
  template <class = OnDemand>
  std::size_t add_again(const std::vector<std::string>& modules, const std::vector<std::string>& names, std::size_t last) {
    std::size_t latest = last;
    std::vector<std::pair<std::string, Place>> again;
    for (const auto& [key, place] : places_)
      for (const std::string& module : modules)
        if (is_key_of(key, module))
          for (const std::string& name : names) {
            again.emplace_back(name + key.substr(module.size()), Place{place.target, last + 1 + place.name});
            latest = std::max(latest, last + 1 + place.name);
          }
    for (auto& entry : again) places_.insert(std::move(entry));
    return latest;
  }

 private:
  std::unordered_map<std::string, Place> places_;
};

}  // namespace graft::detail
