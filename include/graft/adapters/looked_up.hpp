#pragma once

#include "../modules/layer_traits.hpp"
#include "../tensor/ids.hpp"
#include "../tensor/workspace.hpp"

namespace graft::detail {

/// What rows of an embedding give to the gradient of the vectors that they looked up, as in torch: nothing for padding_idx,
/// and with scale_grad_by_freq a part for each row that looked up the same.
class LookUps {
 public:
  LookUps(const Ids& ids, const LayerFacts& facts, Workspace* workspace)
      : ids_(ids), padding_(facts.padding_idx.value_or(-1)), counts_(workspace, facts.scale_grad_by_freq ? facts.in : 0) {
    if (!counts_.data()) return;
    for (Index i = 0; i < ids.size(); ++i) counts_.data()[ids[i]] = 0;
    for (Index i = 0; i < ids.size(); ++i) ++counts_.data()[ids[i]];
  }
  [[nodiscard]] double factor(Index row) const {
    const Index id = ids_[row];
    if (id == padding_) return 0;
    return counts_.data() ? 1 / double(counts_.data()[id]) : 1;
  }

 private:
  const Ids& ids_;
  Index padding_;
  Scratch<Index> counts_;
};

}  // namespace graft::detail
