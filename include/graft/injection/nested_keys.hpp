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
      modules_.push_back(adapted_module_of(key));
      is_nested = is_nested || without_base_layers(modules_.back()).depth;
    }
    if (!is_nested) modules_.clear();
    // of one path the shortest module, and so the least depth, comes first
    sort_stably(modules_, [](std::string_view a, std::string_view b) {
      const std::string_view path_of_a = without_base_layers(a).path, path_of_b = without_base_layers(b).path;
      return path_of_a < path_of_b || (path_of_a == path_of_b && a.size() < b.size());
    });
  }
  /// The least depth that a key of the module has: where one has none, those of others name a layer called `base_layer`.
  [[nodiscard]] unsigned depth(std::string_view path) const {
    path = strip_peft_prefix(path);
    const auto place = std::lower_bound(modules_.begin(), modules_.end(), path,
                                        [](std::string_view module, std::string_view wanted) {
                                          return without_base_layers(module).path < wanted;
                                        });
    if (place == modules_.end()) return 0;
    const NestedModule first = without_base_layers(*place);
    return first.path == path ? first.depth : 0;
  }

 private:
  std::vector<std::string_view> modules_;
};

}  // namespace graft::detail
