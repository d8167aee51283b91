#pragma once

#include <utility>
#include <vector>

#include "../core/on_demand.hpp"
#include "../injection/nested_keys.hpp"
#include "slots.hpp"

namespace graft::detail {

/// Puts an adapter inside of the wrappers that a state dict's keys name (`q_proj.base_layer.ia3_l`), where the keys do;
/// back where it was unless `keep` is called.
template <class = OnDemand>
class NestingGuard {
 public:
  NestingGuard(const ModelSites& model, const AdapterParts& parts, const StateDict& state_dict) {
    const NestedKeys nested(&state_dict);
    for (std::size_t i = 0; i < model.sites.size(); ++i) {
      SiteAdapter* here = parts.at[i];
      const unsigned depth = nested.depth(model.sites[i]->path());
      if (!here || !here->state || !depth || depth == here->depth) continue;
      before_.push_back({here, here->depth});
      here->depth = depth;
    }
  }
  NestingGuard(const NestingGuard&) = delete;
  NestingGuard& operator=(const NestingGuard&) = delete;
  ~NestingGuard() {
    for (const auto& [here, depth] : before_) here->depth = depth;
  }
  void keep() { before_.clear(); }

 private:
  std::vector<std::pair<SiteAdapter*, unsigned>> before_;
};

}  // namespace graft::detail
