#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../tensor/parameter.hpp"
#include "token_rows.hpp"

namespace graft {

struct SiteTable;
namespace detail {
class AnyWeightDoor;
}

/// How a merge is undone.
enum class Unmerge {
  by_delta,  ///< the delta is computed again and subtracted: exact to one rounding of the sum, however often
  backup,    ///< the weight is kept: exact to the bit, its memory twice
  reread     ///< the weight is a view of somebody's memory, to which it is bound again: exact, without a copy
};

/// What a merge does about a weight that two layers share.
enum class Tied {
  refuse,      ///< an error
  untie,       ///< the layer that is merged gets memory of its own until it is unmerged
  change_both  ///< the other layer changes with it
};

/// What is known of a weight at one version: no element is larger. It saves looking at all of them again.
struct WeightBound {
  std::uint64_t version = 0;
  double largest = 0;
};

/// Adapters that were folded into a site's layer together, and what undoes that.
struct MergeStep {
  std::vector<unsigned> ids{};  ///< in the order of activation
  bool changes_weight = false;
  bool is_rebound = false;      ///< the layer has new memory: `weight` is the parameter that it had before
  bool is_bias_rebound = false;
  std::optional<ParameterData> weight{};  ///< what was there; without it the delta is subtracted
  std::optional<ParameterData> bias{};
  std::optional<TokenRows> rows{};        ///< what was there, where only trained tokens were written
  std::vector<std::uint64_t> marks{};     ///< of the adapters' parameters, where the delta has to be the same again
  /// `detail::swap_out`, which only who merges something compiles.
  void (*swap_out)(SiteTable&, detail::AnyWeightDoor&) = nullptr;
  bool is_tied = false;  ///< it was written into memory that is another layer's too
};

}  // namespace graft
