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

namespace graft::detail {

/// The modules that PEFT wraps because parameters of theirs are adapted (`target_parameters`), once for each of them.
/// What such a module holds stands so many `base_layer` components deeper then.
class WrappedModules {
 public:
  WrappedModules() = default;
  /// `is_wrapped(i)`: whether the parameter at the model's site i is adapted.
  template <class IsWrapped>
  WrappedModules(const ModelSites& model, IsWrapped is_wrapped) {
    for (std::size_t i = 0; i < model.sites.size(); ++i) {
      if (model.sites[i]->kind() != LayerKind::parameter || !is_wrapped(i)) continue;
      const std::string module(parent_path(model.sites[i]->path()));
      const auto known = std::find_if(modules_.begin(), modules_.end(), [&](const auto& one) { return one.first == module; });
      if (known != modules_.end()) ++known->second;
      else modules_.emplace_back(module, 1);
    }
    // the longest first: what stands in front of a path does not change then
    std::sort(modules_.begin(), modules_.end(), [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  }

  [[nodiscard]] bool empty() const { return modules_.empty(); }
  /// The path of what stands in these modules: "experts.base_layer.router" of "experts.router".
  [[nodiscard]] std::string inside(std::string path) const {
    for (const auto& [module, wrappers] : modules_)
      if (path.size() > module.size() && path.starts_with(module) && path[module.size()] == '.')
        path = nested_path(module, wrappers) + path.substr(module.size());
    return path;
  }
  /// The module that the matrices of a site's adapter stand in, inside of `depth` wrappers, or of what it came with.
  [[nodiscard]] std::string holder(const AnySite& site, unsigned depth, bool with_outer = false) const {
    if (with_outer) return inside(adapter_module(site, depth, true));
    if (site.kind() != LayerKind::parameter) return nested_path(inside(site.path()), depth);
    return nested_path(inside(std::string(parent_path(site.path()))), depth);
  }

 private:
  std::vector<std::pair<std::string, unsigned>> modules_;
};

/// As all adapters of the model together make it.
template <class = OnDemand>
[[nodiscard]] WrappedModules wrapped_modules(const ModelSites& model) {
  return WrappedModules(model, [&](std::size_t i) {
    const SiteTable* table = model.sites[i]->table();
    return table && std::any_of(table->entries.begin(), table->entries.end(),
                                [](const SiteEntry& entry) { return entry.wrapper() == Wrapper::parameter; });
  });
}

}  // namespace graft::detail
