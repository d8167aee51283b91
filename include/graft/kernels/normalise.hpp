#pragma once

#include <cmath>

#include "reduce.hpp"
#include "transcendental.hpp"

/// Row-wise normalisations. Every row is taken alone. y may be x (with the same leading dimension).
namespace graft::kernels {
inline namespace GRAFT_ISA {

namespace detail {
// The sum of f(register, count) over a row. Registers are summed in runs, the runs in double: the error does
// not grow with the row.
template <class T, class F>
GRAFT_INLINE double sum_over_row(std::ptrdiff_t cols, F&& f) {
  constexpr std::ptrdiff_t run = 16 * lanes<T>;
  double total = 0;
  for (std::ptrdiff_t start = 0; start < cols; start += run) {
    Vector<T> sum{};
    for_each_register<T>(cols - start < run ? cols - start : run,
                         [&](std::ptrdiff_t o, std::ptrdiff_t count) { sum += f(start + o, count); });
    total += double(sum_of_lanes<T>(sum));
  }
  return total;
}
// Zero in the lanes from `count` on.
template <class T>
GRAFT_INLINE Vector<T> first_lanes_of(Vector<T> v, std::ptrdiff_t count) {
  if (count == lanes<T>) return v;
  Mask<T> index;
  for (std::ptrdiff_t i = 0; i < lanes<T>; ++i) index[i] = i;
  const Mask<T> limit = decltype(index[0] + 0)(count) - Mask<T>{};
  return index < limit ? v : Vector<T>{};
}
template <class T, class W>
inline constexpr bool weighs = std::is_same_v<T, W> || (std::is_same_v<T, float> && sizeof(W) == 2);
}  // namespace detail

/// y = x / sqrt(mean(x^2) + eps) * weight, as transformers' LlamaRMSNorm. x and y (n, cols), weight (cols) or
/// null.
template <class T, class W>
void rms_norm(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, const W* weight,
              double eps, T* y, std::ptrdiff_t ldy) {
  static_assert(detail::weighs<T, W>,
                "graft: a weight has the activations' scalar, or is narrow under float");
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const T* row = x + i * ldx;
    const double squares = detail::sum_over_row<T>(cols, [&](std::ptrdiff_t o, std::ptrdiff_t count) {
      const Vector<T> v = load_some(row + o, count);
      return v * v;
    });
    const Vector<T> factor = broadcast(T(1 / std::sqrt(squares / double(cols) + eps)));
    for_each_register<T>(cols, [&](std::ptrdiff_t o, std::ptrdiff_t count) {
      Vector<T> v = load_some(row + o, count) * factor;
      if (weight) v *= load_some(weight + o, count);
      store_some(y + i * ldy + o, v, count);
    });
  }
}

/// y = (x - mean) / sqrt(variance + eps) * weight + bias, the variance over cols (not cols - 1), as torch's
/// LayerNorm. x and y (n, cols), weight and bias (cols) or null.
template <class T, class W>
void layer_norm(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, const W* weight,
                const W* bias, double eps, T* y, std::ptrdiff_t ldy) {
  static_assert(detail::weighs<T, W>,
                "graft: a weight has the activations' scalar, or is narrow under float");
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const T* row = x + i * ldx;
    const double sum = detail::sum_over_row<T>(
        cols, [&](std::ptrdiff_t o, std::ptrdiff_t count) { return load_some(row + o, count); });
    const Vector<T> mean = broadcast(T(sum / double(cols)));
    // Deviations from the mean, not squares minus its square: large means cost no digits.
    const double squares = detail::sum_over_row<T>(cols, [&](std::ptrdiff_t o, std::ptrdiff_t count) {
      const Vector<T> d = detail::first_lanes_of<T>(load_some(row + o, count) - mean, count);
      return d * d;
    });
    const Vector<T> factor = broadcast(T(1 / std::sqrt(squares / double(cols) + eps)));
    for_each_register<T>(cols, [&](std::ptrdiff_t o, std::ptrdiff_t count) {
      Vector<T> v = (load_some(row + o, count) - mean) * factor;
      if (weight) v *= load_some(weight + o, count);
      if (bias) v += load_some(bias + o, count);
      store_some(y + i * ldy + o, v, count);
    });
  }
}

/// y = softmax(factor * x) of each row. x and y (n, cols). A row without a finite maximum gives NaN, as in
/// torch.
template <class T>
void softmax(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y, std::ptrdiff_t ldy,
             T factor = T(1)) {
  if (cols <= 0) return;
  const Vector<T> f = broadcast(factor);
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const T* row = x + i * ldx;
    T* result = y + i * ldy;
    Vector<T> largest = broadcast(row[0]);  // scaled later: a negative factor turns the order round
    const auto keep_larger = [&](Vector<T> v) { largest = v > largest ? v : largest; };
    const T sign = factor < T(0) ? T(-1) : T(1);
    largest *= broadcast(sign);
    for_each_register<T>(cols, [&](std::ptrdiff_t o, std::ptrdiff_t count) {
      if (count == lanes<T>)
        keep_larger(load(row + o) * broadcast(sign));
      else
        for (std::ptrdiff_t j = o; j < cols; ++j) keep_larger(broadcast(row[j] * sign));
    });
    const T highest = largest_lane<T>(largest) * sign * factor;
    const Vector<T> top = broadcast(highest);
    const double sum = detail::sum_over_row<T>(cols, [&](std::ptrdiff_t o, std::ptrdiff_t count) {
      const Vector<T> e = exp(f * load_some(row + o, count) - top);
      store_some(result + o, e, count);
      return detail::first_lanes_of<T>(e, count);
    });
    const Vector<T> share = broadcast(T(1 / sum));
    for_each_register<T>(cols, [&](std::ptrdiff_t o, std::ptrdiff_t count) {
      store_some(result + o, load_some(result + o, count) * share, count);
    });
  }
}

}  // namespace GRAFT_ISA
}  // namespace graft::kernels
