#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <string>

#include "../core/error.hpp"
#include "../core/on_demand.hpp"
#include "../kernels/elementwise.hpp"
#include "../kernels/normalise.hpp"
#include "../tensor/matrix.hpp"

/// Losses over rows and their gradients: the arithmetic alone.
namespace graft {

/// The target of a row that has none: torch's ignore_index.
inline constexpr int ignored_target = -100;

struct CrossEntropyOptions {
  double label_smoothing = 0;  ///< so much of a target's weight is spread over all classes, as in torch
};

namespace detail {
/// How many rows have a target. @throws ShapeError, TrainingError.
template <class = OnDemand>
[[nodiscard]] Index check_targets(Index n, Index classes, std::span<const int> targets) {
  if (Index(targets.size()) != n)
    fail<ShapeError>(std::to_string(targets.size()) + " targets for " + std::to_string(n) + " rows of logits",
                     "every row has one", "give the rows that shall not count the target -100");
  Index count = 0;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] == ignored_target) continue;
    if (targets[i] < 0 || targets[i] >= classes)
      fail<ShapeError>("row " + std::to_string(i) + " has the target " + std::to_string(targets[i]) + " of " +
                           std::to_string(classes) + " classes",
                       "a target is the column of a class", "use 0 to " + std::to_string(classes - 1) + ", or -100 for a row that shall not count");
    ++count;
  }
  if (count == 0)
    fail<TrainingError>("no row of " + std::to_string(n) + " has a target", "the mean over none of them is no number",
                        "leave such a batch out; sequences of one token have no next one");
  return count;
}
template <class = OnDemand>
void check_smoothing(double label_smoothing) {
  if (!(label_smoothing >= 0 && label_smoothing <= 1))
    fail<TrainingError>("label_smoothing is " + std::to_string(label_smoothing), "it is the part of a target's weight that others get",
                        "use a number from 0 to 1");
}
template <class = OnDemand>
void check_alike(Index rows, Index cols, Index other_rows, Index other_cols, const char* what) {
  if (rows != other_rows || cols != other_cols)
    fail<ShapeError>(std::string(what) + " of " + std::to_string(other_rows) + " x " + std::to_string(other_cols) + " for values of " +
                         std::to_string(rows) + " x " + std::to_string(cols),
                     "they belong together element by element", "give both the same sizes");
}

/// The log of the sum of exponentials of a row, from its softmax: it is x - log p anywhere, and the largest p is no tiny number.
template <class T>
[[nodiscard]] double log_sum_exp_from(Index cols, const T* x, const T* p) {
  const Index largest = std::max_element(p, p + cols) - p;
  return double(x[largest]) - std::log(double(p[largest]));
}
}  // namespace detail

/// The mean over rows of -log softmax(logits)[target], as torch's cross_entropy. Rows whose target is -100 do not count.
///
/// logits (n, classes); `dlogits`, the same, is overwritten with the gradient, zeros in rows that do not count; without data
/// no gradient is formed. They do not overlap.
/// @throws ShapeError for targets that are no class or not n, TrainingError if no row counts: torch's mean is NaN then.
template <class T>
double cross_entropy_values(const In<T>& logits, std::span<const int> targets, Out<T> dlogits, const CrossEntropyOptions& options = {}) {
  const Index n = logits.rows(), classes = logits.cols();
  detail::check_smoothing(options.label_smoothing);
  if (dlogits.data()) detail::check_alike(n, classes, dlogits.rows(), dlogits.cols(), "a gradient");
  const double count = double(detail::check_targets(n, classes, targets));
  const double spread = options.label_smoothing / double(classes), own = 1 - options.label_smoothing;
  double sum = 0;
  for (Index i = 0; i < n; ++i) {
    const T* x = logits.data() + i * logits.outerStride();
    T* dx = dlogits.data() ? dlogits.data() + i * dlogits.outerStride() : nullptr;
    const int target = targets[std::size_t(i)];
    if (target == ignored_target) {
      if (dx) std::fill_n(dx, classes, T(0));
      continue;
    }
    double log_sum;
    if (dx) {
      kernels::softmax<T>(1, classes, x, classes, dx, classes);
      log_sum = detail::log_sum_exp_from(classes, x, dx);
      kernels::scale<T>(1, classes, T(1 / count), dx, classes, dx, classes);
      dx[target] -= T(own / count);
    } else {
      kernels::log_sum_exp<T>(1, classes, x, classes, &log_sum);
    }
    sum += own * (log_sum - double(x[target]));
    if (spread == 0) continue;
    double all = 0;
    for (Index j = 0; j < classes; ++j) {
      all += log_sum - double(x[j]);
      if (dx) dx[j] -= T(spread / count);
    }
    sum += spread * all;
  }
  return sum / count;
}

/// The mean of (x - target)^2 over all elements, as torch's mse_loss. x and target (n, cols); `dx`, the same, is overwritten
/// with the gradient by x; without data no gradient is formed. @throws ShapeError, TrainingError without elements.
template <class T>
double mse_values(const In<T>& x, const In<T>& target, Out<T> dx) {
  const Index n = x.rows(), cols = x.cols();
  detail::check_alike(n, cols, target.rows(), target.cols(), "targets");
  if (dx.data()) detail::check_alike(n, cols, dx.rows(), dx.cols(), "a gradient");
  if (n * cols == 0) fail<TrainingError>("the mean over no elements", "it is no number", "leave such a batch out");
  const double count = double(n * cols);
  double sum = 0;
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < cols; ++j) {
      const T difference = x(i, j) - target(i, j);
      sum += double(difference) * double(difference);
      if (dx.data()) dx(i, j) = T(2 / count) * difference;
    }
  return sum / count;
}

}  // namespace graft
