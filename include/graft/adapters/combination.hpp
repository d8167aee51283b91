#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "../core/error.hpp"
#include "../core/on_demand.hpp"
#include "../tensor/init.hpp"
#include "../tensor/matrix.hpp"

namespace graft {

/// How adapters become one (PEFT's `combination_type`). The names that end in svd work on whole weight
/// updates and take the best approximation of the result; the others work on A and B; `cat` is exact.
enum class CombinationType {
  linear,
  cat,
  svd,
  ties,
  ties_svd,
  dare_linear,
  dare_ties,
  dare_linear_svd,
  dare_ties_svd,
  magnitude_prune,
  magnitude_prune_svd
};

/// How ties finds the sign that an entry gets: by the sum of the values, or by the number of each sign.
enum class MajoritySign { total, frequency };

/// What `add_weighted_adapter` may be told.
struct CombineOptions {
  std::optional<double> density{};  ///< the share of entries that pruning keeps; 1 and more keeps all
  std::optional<int> svd_rank{};    ///< the rank of the result; unset: the largest of the adapters'
  MajoritySign majority_sign = MajoritySign::total;
  std::uint64_t seed = 0;  ///< of the entries that dare drops
  bool absent_is_zero =
      false;  ///< (IA)³: an adapter that is not at a site counts as 0 there, as in PEFT, not as 1
};

namespace detail {

[[nodiscard]] constexpr bool ends_in_svd(CombinationType type) {
  using enum CombinationType;
  return type == svd || type == ties_svd || type == dare_linear_svd || type == dare_ties_svd ||
         type == magnitude_prune_svd;
}
[[nodiscard]] constexpr bool drops_at_random(CombinationType type) {
  using enum CombinationType;
  return type == dare_linear || type == dare_linear_svd || type == dare_ties || type == dare_ties_svd;
}
[[nodiscard]] constexpr bool elects_signs(CombinationType type) {
  using enum CombinationType;
  return type == ties || type == ties_svd || type == dare_ties || type == dare_ties_svd;
}
[[nodiscard]] constexpr bool keeps_the_largest(CombinationType type) {
  using enum CombinationType;
  return type == ties || type == ties_svd || type == magnitude_prune || type == magnitude_prune_svd;
}
[[nodiscard]] constexpr bool prunes(CombinationType type) {
  return drops_at_random(type) || keeps_the_largest(type);
}

/// Keeps the int(density · size) entries of largest magnitude, of equal ones the first.
template <class S>
void prune_by_magnitude(Matrix<S>& values, double density) {
  const auto kept = std::size_t(density * double(values.size()));
  std::vector<Index> order(std::size_t(values.size()));
  std::iota(order.begin(), order.end(), Index{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](Index i, Index j) { return std::abs(values.data()[i]) > std::abs(values.data()[j]); });
  for (std::size_t i = kept; i < order.size(); ++i) values.data()[order[i]] = 0;
}

/// DARE (Yu et al., arXiv:2311.03099): keeps each entry with probability `density`, and divides by it.
template <class S>
void prune_at_random(Matrix<S>& values, double density, const Seed& seed) {
  for_each_random(seed, values.size(), [&](Index i, auto u) {
    S& value = values.data()[i];
    value = u[0] < density ? value / S(density) : S(0);
  });
}

/// TIES (Yadav et al., arXiv:2306.01708): per entry a sign is elected from the unweighted values, and those
/// that have it are averaged with their weights. An exact zero never agrees; zeros alone elect plus.
template <class S>
[[nodiscard]] Matrix<S> merge_by_sign(const std::vector<Matrix<S>>& tensors,
                                      const std::vector<double>& weights, MajoritySign how) {
  const auto sign = [](S value) { return value > 0 ? 1 : value < 0 ? -1 : 0; };
  Matrix<S> merged = Matrix<S>::Zero(tensors.front().rows(), tensors.front().cols());
  for (Index i = 0; i < merged.size(); ++i) {
    S votes = 0, sum = 0;
    for (const auto& tensor : tensors)
      votes += how == MajoritySign::total ? tensor.data()[i] : S(sign(tensor.data()[i]));
    const int elected = votes >= 0 ? 1 : -1;
    int agreeing = 0;
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      if (sign(tensors[t].data()[i]) != elected) continue;
      sum += S(weights[t]) * tensors[t].data()[i];
      ++agreeing;
    }
    merged.data()[i] = sum / S(std::max(agreeing, 1));
  }
  return merged;
}

/// Tensors of one shape with a weight each, as the type says. Random numbers come of (seed, name of each
/// tensor).
template <class S>
[[nodiscard]] Matrix<S> combine_tensors(CombinationType type, std::vector<Matrix<S>> tensors,
                                        const std::vector<double>& weights, const CombineOptions& options,
                                        const std::vector<std::string>& names) {
  if (prunes(type) && *options.density < 1)
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      if (drops_at_random(type))
        prune_at_random(tensors[t], *options.density, {options.seed, names[t]});
      else
        prune_by_magnitude(tensors[t], *options.density);
    }
  if (elects_signs(type)) return merge_by_sign(tensors, weights, options.majority_sign);
  Matrix<S> sum = Matrix<S>::Zero(tensors.front().rows(), tensors.front().cols());
  for (std::size_t t = 0; t < tensors.size(); ++t) sum += S(weights[t]) * tensors[t];
  return sum;
}

/// @throws ConfigError where the density does not go with the type.
template <class = OnDemand>
void check_density(CombinationType type, const CombineOptions& options) {
  if (!prunes(type)) return;
  if (!options.density)
    fail<ConfigError>("a combination that prunes was asked for without a density",
                      "it says which share of the entries is kept",
                      "set CombineOptions::density, to 0.5 for example");
  const double density = *options.density;
  if (!(density >= 0) || (density == 0 && drops_at_random(type)))
    fail<ConfigError>("the density of a combination is " + std::to_string(density),
                      "it is the share of the entries that is kept, and dare divides by it",
                      "use a number from 0 to 1");
}

}  // namespace detail
}  // namespace graft
