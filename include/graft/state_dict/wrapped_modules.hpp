#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/keys.hpp"
#include "../core/on_demand.hpp"
#include "../core/text.hpp"
#include "../injection/site.hpp"
#include "saved_modules.hpp"

namespace graft::detail {

/// The modules around which PEFT puts wrappers: once for each of their parameters that is adapted (`target_parameters`), or
/// because they are saved whole (`modules_to_save`). What such a module holds stands so many `base_layer` components deeper
/// then, or below `original_module`.
class WrappedModules {
 public:
  WrappedModules() = default;
  /// `is_wrapped(i)`: whether the parameter at the model's site i is adapted.
  template <class IsWrapped>
  WrappedModules(const ModelSites& model, IsWrapped is_wrapped) {
    for (std::size_t i = 0; i < model.sites.size(); ++i)
      if (model.sites[i]->kind() == LayerKind::parameter && is_wrapped(i)) wrap(parent_path(model.sites[i]->path()), "base_layer", true);
  }

  /// Adds a module that is saved whole; once, whatever is said again.
  void save(std::string_view module) { wrap(module, "original_module", false); }

  [[nodiscard]] bool empty() const { return modules_.empty(); }
  [[nodiscard]] bool is_saved(std::string_view module) const {
    return std::any_of(modules_.begin(), modules_.end(), [&](const One& one) { return one.path == module && one.inside == "original_module"; });
  }
  /// The path of what stands in these modules: "experts.base_layer.router" of "experts.router".
  [[nodiscard]] std::string inside(std::string path) const {
    for (const One& one : modules_)
      if (path.size() > one.path.size() && is_key_of(path, one.path))
        path = join_path(one.path, one.inside) + path.substr(one.path.size());
    return path;
  }
  /// The module itself, inside of its wrappers: "experts.base_layer" of "experts".
  [[nodiscard]] std::string within(std::string module) const {
    std::string path = inside(std::move(module) + ".");
    path.pop_back();
    return path;
  }
  /// The module that the matrices of a site's adapter stand in, inside of `depth` wrappers, or of what it came with.
  [[nodiscard]] std::string holder(const AnySite& site, unsigned depth, bool with_outer = false) const {
    if (with_outer) return inside(adapter_module(site, depth, true));
    if (site.kind() != LayerKind::parameter) return nested_path(inside(site.path()), depth);
    return nested_path(inside(std::string(parent_path(site.path()))), depth);
  }

 private:
  struct One {
    std::string path, inside;
  };

  void wrap(std::string_view module, std::string_view wrapper, bool again) {
    const auto known = std::find_if(modules_.begin(), modules_.end(), [&](const One& one) { return one.path == module; });
    if (known != modules_.end()) {
      if (again) known->inside = join_path(known->inside, wrapper);
      return;
    }
    // the longest first: what stands in front of a path does not change then
    const auto place = std::find_if(modules_.begin(), modules_.end(), [&](const One& one) { return one.path.size() < module.size(); });
    modules_.insert(place, {std::string(module), std::string(wrapper)});
  }

  std::vector<One> modules_;
};

/// As all adapters of the model together make it.
template <class = OnDemand>
[[nodiscard]] WrappedModules wrapped_modules(const ModelSites& model) {
  WrappedModules modules(model, [&](std::size_t i) {
    const SiteTable* table = model.sites[i]->table();
    return table && std::any_of(table->entries.begin(), table->entries.end(),
                                [](const SiteEntry& entry) { return entry.wrapper() == Wrapper::parameter; });
  });
  for (const SavedModule& one : saved_modules(model)) modules.save(one.path);
  return modules;
}

}  // namespace graft::detail
