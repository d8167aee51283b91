#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "../core/on_demand.hpp"
#include "../tensor/convert.hpp"
#include "kept_ranks.hpp"

namespace graft::detail {

/// Takes out of an AdaLoRA adapter's memory what its rank_pattern gave up, where a state dict has no more than the kept ranks:
/// the adapter's own, as training leaves it. Everything is as it was unless `keep` is called.
template <class = OnDemand>
class PruningGuard {
 public:
  PruningGuard(const ModelSites& model, const AdapterRecord& record, const AdapterParts& parts, const StateDict& state_dict) {
    const KeptRanks<> kept(model, record);
    if (kept.is_everything() || !holds_kept(kept, model, parts, state_dict)) return;
    for (SiteAdapter* here : parts.at) {
      if (!here || !here->state) continue;
      for (const AdapterParameter& parameter : here->state->parameters()) {
        if (const KeptPart* part = kept.find(parameter.data)) exchange(*parameter.data, read_kept(*part));
        // what scales the update stays as it was, but for a layer of which nothing is left
        else if (parameter.name == "ranknum" && here->state->rank() == 0) exchange(*parameter.data, zero_of(*parameter.data));
      }
    }
  }
  PruningGuard(const PruningGuard&) = delete;
  PruningGuard& operator=(const PruningGuard&) = delete;
  ~PruningGuard() {
    for (auto& [parameter, before] : before_) *parameter = std::move(before);
  }
  [[nodiscard]] bool has_pruned() const { return !before_.empty(); }
  void keep() { before_.clear(); }

 private:
  [[nodiscard]] static bool holds_kept(const KeptRanks<>& kept, const ModelSites& model, const AdapterParts& parts, const StateDict& state_dict) {
    const auto holds = [&](const KeptPart& part, const std::string& key) {
      const TensorView* view = state_dict.find(key);
      return view && view->shape == part.shape().to_vector();
    };
    for (const AdapterSlot& slot : adapter_slots(model, parts)) {
      const KeptPart* part = kept.find(slot.parameter);
      if (!part) continue;
      std::vector<std::string> keys = slot.other_keys;
      keys.push_back(slot.key);
      for (const std::string& key : keys)
        if (holds(*part, key) || holds(*part, std::string(peft_prefix) + key)) return true;
    }
    return false;
  }
  [[nodiscard]] static TensorView zero_of(const ParameterData& number) {
    const std::shared_ptr<std::byte> bytes = zeroed(number.bytes());
    return {number.dtype(), number.shape().to_vector(), bytes.get(), bytes};
  }
  /// At the parameter's place in memory, which optimisers know.
  void exchange(ParameterData& parameter, const TensorView& values) {
    ParameterData pruned(values.dtype, Shape(values.shape));
    assign(pruned, values, false);
    pruned.set_requires_grad(parameter.requires_grad());
    before_.emplace_back(&parameter, std::exchange(parameter, std::move(pruned)));
  }

  std::vector<std::pair<ParameterData*, ParameterData>> before_;
};

}  // namespace graft::detail
