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

/// A second name as keys spell it: what stands below `module` also stands below `name`. The module is what was
/// there before PEFT put a wrapper around its first name, which the second one does not lead through.
struct SecondKey {
  std::string module, name;
};

/// `layer_at(i)` spells the layer inside of the wrappers at the model's site i.
template <class LayerAt>
[[nodiscard]] SecondKey second_key(const ModelSites& model, const WrappedModules& modules, const SecondName& name, LayerAt layer_at) {
  for (std::size_t i = 0; i < model.sites.size(); ++i)
    if (model.sites[i]->path() == name.first) return {layer_at(i), modules.inside(name.path)};
  return {modules.within(name.first), modules.inside(name.path)};
}

/// A second name as the file of one adapter alone spells it.
struct SecondKeys {
  std::vector<SecondKey> keys;  ///< of the base's tensors and, in a module that is saved whole, of the copy's
  bool is_in_copy = false;      ///< both names stand in such a module: the copy has both, too
};

/// The module of which the adapter has a copy and that both names are in, or nothing.
template <class = OnDemand>
[[nodiscard]] std::string_view copy_around(const ModelSites& model, const AdapterParts& parts, const SecondName& name) {
  for (std::size_t i = 0; i < model.sites.size(); ++i) {
    const SiteAdapter* here = parts.at[i];
    if (!here || !here->copy || !here->saved_above) continue;
    const std::string_view module = ancestor_path(model.sites[i]->path(), here->saved_above);
    if (is_key_of(name.first, module) && is_key_of(name.path, module)) return module;
  }
  return {};
}

/// For each second name of the model.
template <class = OnDemand>
[[nodiscard]] std::vector<SecondKeys> second_keys(const ModelSites& model, const AdapterParts& parts) {
  std::vector<SecondKeys> all;
  if (model.second_names.empty()) return all;
  WrappedModules modules(model, [&](std::size_t i) { return parts.at[i] && parts.at[i]->state; });
  for (std::size_t i = 0; i < model.sites.size(); ++i)
    if (const SiteAdapter* here = parts.at[i]; here && here->copy && here->saved_above)
      modules.save(ancestor_path(model.sites[i]->path(), here->saved_above));
  const auto layer_at = [&](std::size_t i) {
    const AnySite& site = *model.sites[i];
    const SiteAdapter* here = parts.at[i];
    const std::string path = modules.inside(site.path());
    if (!here || site.kind() == LayerKind::parameter) return path;
    if (here->copy) return here->saved_above ? path : join_path(path, "original_module");
    if (here->tokens) return join_path(path, token_base);
    return here->state ? join_path(modules.holder(site, here->depth, here->with_outer), "base_layer") : path;
  };
  for (const SecondName& name : model.second_names) {
    SecondKeys spelt{{second_key(model, modules, name, layer_at)}};
    if (const std::string_view module = copy_around(model, parts, name); !module.empty()) {
      const std::string copy = join_path(module, "modules_to_save." + parts.name);
      spelt.keys.push_back({copy + name.first.substr(module.size()), copy + name.path.substr(module.size())});
      spelt.is_in_copy = true;
    }
    all.push_back(std::move(spelt));
  }
  return all;
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
  /// Lets what stands below one module stand below another name too, in torch's order behind `last`, and returns the last one
  /// then. Where two of the keys would be one, the first stays.
  template <class = OnDemand>
  std::size_t add_again(const std::vector<SecondKey>& keys, std::size_t last) {
    std::size_t latest = last;
    std::vector<std::pair<std::string, Place>> again;
    for (const SecondKey& second : keys)
      for (const auto& [key, place] : places_)
        if (is_key_of(key, second.module)) {
          again.emplace_back(second.name + key.substr(second.module.size()), Place{place.target, last + 1 + place.name});
          latest = std::max(latest, last + 1 + place.name);
        }
    for (auto& entry : again) places_.insert(std::move(entry));
    return latest;
  }

 private:
  std::unordered_map<std::string, Place> places_;
};

}  // namespace graft::detail
