#pragma once

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include "../core/keys.hpp"
#include "../tensor/state_dict.hpp"

namespace graft::detail {

/// How deep inside of other methods' wrappers the keys of a state dict mean their adapter to be, by module. The state
/// dict must outlive it.
class NestedKeys {
 public:
  explicit NestedKeys(const StateDict* state_dict) {
    if (!state_dict) return;
    for (const auto& [key, view] : *state_dict) {
      const std::string_view module = adapted_module_of(key);
      const NestedModule nested = without_base_layers(module);
      if (!nested.depth) continue;
      const auto known = depths_.try_emplace(nested.path, nested.depth).first;
      known->second = std::min(known->second, nested.depth);
      plain_.insert(module);  // a layer may be called so
    }
    if (depths_.empty()) return;
    for (const auto& [key, view] : *state_dict) depths_.erase(adapted_module_of(key));
  }
  [[nodiscard]] unsigned depth(std::string_view path) const {
    const auto place = plain_.count(path) ? depths_.end() : depths_.find(path);
    return place == depths_.end() ? 0 : place->second;
  }

 private:
  std::map<std::string_view, unsigned> depths_;
  std::set<std::string_view> plain_;
};

}  // namespace graft::detail
