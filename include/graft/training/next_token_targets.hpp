#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "../tensor/rows.hpp"
#include "loss_values.hpp"

namespace graft {

namespace detail {
/// What an id is as a target. -100 stays what it is; what is no token of any vocabulary stays none, for the loss to refuse.
[[nodiscard]] inline int target_of(Index id) {
  return id == ignored_target ? ignored_target : int(std::clamp<Index>(id, -1, std::numeric_limits<int>::max()));
}
template <class = OnDemand>
[[nodiscard]] std::vector<int> shifted_targets(const Ids& ids, std::span<const Sequence> sequences) {
  std::vector<int> targets(std::size_t(ids.size()), ignored_target);
  for (const Sequence& sequence : sequences)
    for (Index i = sequence.begin; i + 1 < sequence.begin + sequence.rows; ++i) targets[std::size_t(i)] = target_of(ids[i + 1]);
  return targets;
}
}  // namespace detail

/// For every row the token that comes next in its own sequence; -100 in the last row of each.
[[nodiscard]] inline std::vector<int> next_token_targets(const Tokens& tokens) {
  return detail::shifted_targets(tokens.ids(), tokens.batch().view().sequences);
}
/// The same of ids in a batch's rows. Where they are -100, which says that a token shall not be learnt, they stay so.
/// @throws ShapeError unless there is one for every row.
[[nodiscard]] inline std::vector<int> next_token_targets(const IdsLike auto& ids, const Batch& batch) {
  std::vector<std::int64_t> storage;
  const Ids all = ids_of(ids, storage);
  if (all.size() != batch.rows()) detail::row_mismatch("next_token_targets", all.size(), batch.rows());
  return detail::shifted_targets(all, batch.view().sequences);
}
/// The same of ids that are one sequence.
[[nodiscard]] inline std::vector<int> next_token_targets(const IdsLike auto& ids) {
  std::vector<std::int64_t> storage;
  const Ids all = ids_of(ids, storage);
  const detail::OneSequence one(all.size());
  return detail::shifted_targets(all, one.view().sequences);
}

}  // namespace graft
