#pragma once

#include "column_sums.hpp"
#include "normalise.hpp"

namespace graft::kernels {

// So many rows at a time: they are in cache when their products are summed, and scratch is bounded.
inline constexpr std::ptrdiff_t norm_backward_rows = 64;

/// The number of T that norm_backward needs as scratch: bounded in n.
[[nodiscard]] constexpr std::ptrdiff_t norm_backward_scratch(std::ptrdiff_t n) {
  return 2 * (n < norm_backward_rows ? n : norm_backward_rows);
}

}  // namespace graft::kernels

#define GRAFT_KERNELS "normalise_backward.inc"
#include "for_each_isa.inc"

/// Gradients of row-wise normalisations. Every row is taken alone.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// Adds the gradients of layer_norm (`Centred`) or rms_norm, each null where it is not wanted: dx (n, cols), dweight and
/// dbias (cols), given dy (n, cols) and the forward's x (n, cols), weight (cols) or null, and eps. scratch:
/// norm_backward_scratch(n) T.
template <bool Centred, class T, class W>
void norm_backward(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, const W* weight, double eps, const T* dy,
                   std::ptrdiff_t lddy, T* dx, std::ptrdiff_t lddx, T* dweight, T* dbias, T* scratch) {
  static_assert(fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  GRAFT_DISPATCH(norm_backward<Centred, T, W>(n, cols, x, ldx, weight, eps, dy, lddy, dx, lddx, dweight, dbias, scratch));
}

/// dx += y * (dy - the row's sum of y dy): the gradient of y = softmax(x). All (n, cols).
template <class T>
void softmax_backward(std::ptrdiff_t n, std::ptrdiff_t cols, const T* y, std::ptrdiff_t ldy, const T* dy, std::ptrdiff_t lddy, T* dx,
                      std::ptrdiff_t lddx) {
  GRAFT_DISPATCH(softmax_backward<T>(n, cols, y, ldy, dy, lddy, dx, lddx));
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
