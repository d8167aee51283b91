#pragma once

#include <algorithm>
#include <string_view>
#include <vector>

#include "../core/keys.hpp"
#include "../core/sort.hpp"
#include "../tensor/state_dict.hpp"

namespace graft::detail {

/// How deep inside of other methods' wrappers the keys of a state dict mean their adapter to be, by module. The state
/// dict must outlive it.
class NestedKeys {
 public:
  explicit NestedKeys(const StateDict* state_dict) {
    if (!state_dict) return;
    bool is_nested = false;
    for (const auto& [key, view] : *state_dict) {
      modules_.push_back(without_base_layers(adapted_module_of(key)));
      is_nested = is_nested || modules_.back().depth;
    }
    if (!is_nested) modules_.clear();
    sort_stably(modules_, [](const NestedModule& a, const NestedModule& b) {
      return a.path < b.path || (a.path == b.path && a.depth < b.depth);
    });
  }
  /// The least depth that a key of the module has: where one has none, those of others name a layer called `base_layer`.
  [[nodiscard]] unsigned depth(std::string_view path) const {
    const auto place = std::lower_bound(modules_.begin(), modules_.end(), path,
                                        [](const NestedModule& one, std::string_view wanted) { return one.path < wanted; });
    return place == modules_.end() || place->path != path ? 0 : place->depth;
  }

 private:
  std::vector<NestedModule> modules_;
};

}  // namespace graft::detail
