#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../adapters/content_mark.hpp"
#include "../core/on_demand.hpp"
#include "../injection/records.hpp"

namespace graft::detail {

/// The weights of the base that an adapter started from (PiSSA, OLoRA), as they were then: what it subtracts is computed from them.
/// Of a layer whose weight stands in no `Parameter` nothing is known.
template <class = OnDemand>
class BaseStarts {
 public:
  BaseStarts() = default;
  BaseStarts(const ModelSites& model, const AdapterGeneration& generation) {
    for (const auto& site : model.sites) {
      const SiteAdapter* here = site->table() ? generation.find(*site->table()) : nullptr;
      if (!here || !here->state || !here->state->initial_factors()) continue;
      for (const BaseTensor& tensor : site->tensors())
        if (tensor.key == "weight" && tensor.parameter)
          starts_.push_back({tensor.parameter, tensor.parameter->version(), content_mark(*tensor.parameter)});
    }
  }
  /// Whether one of them has other values now. Looks at the values only of those that were written since.
  [[nodiscard]] bool are_outdated() {
    return std::any_of(starts_.begin(), starts_.end(), [](Start& start) {
      const std::uint64_t version = start.weight->version();
      if (version == start.version && !start.weight->is_viewed()) return false;
      start.version = version;
      return content_mark(*start.weight) != start.mark;
    });
  }

 private:
  struct Start {
    const ParameterData* weight;
    std::uint64_t version, mark;
  };
  std::vector<Start> starts_;
};

}  // namespace graft::detail
