#pragma once

#include "reduce.hpp"
#include "weight_view.hpp"
#include "widen.hpp"

namespace graft::kernels {
// So many rows of w, a block of each, stay in the second-level cache while many rows of x pass over them.
inline constexpr std::ptrdiff_t dot_outputs = 96;
}  // namespace graft::kernels

#define GRAFT_KERNELS "dot_panels.inc"
#include "for_each_isa.inc"

/// Dots of many rows with a packed weight, for product_nt: the bits are those of the dots that it takes of the weight
/// where it stands. n rows of x (n, depth) and rows of w (cols, depth) give y (n, cols); cols <= dot_outputs.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// The number of T that packing takes, the same for every instruction set.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t dot_panels_scratch(std::ptrdiff_t depth) {
  constexpr std::ptrdiff_t widest = 64 / std::ptrdiff_t(sizeof(T));
  return dot_outputs * ((depth + widest - 1) / widest * widest);
}

/// y[i,o] (+)= bias[o] + sum over k < depth of x[i,k] * w[o,k]. panels: dot_panels_scratch<T>(depth) T.
template <class T, class W>
void dots_over_panels(std::ptrdiff_t n, std::ptrdiff_t cols, std::ptrdiff_t depth, const T* x, std::ptrdiff_t ldx, const W* w,
                      std::ptrdiff_t ldw, const T* bias, T* y, std::ptrdiff_t ldy, bool accumulate, T* panels) {
  static_assert(fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  GRAFT_DISPATCH(dots_over_panels<T, W>(n, cols, depth, x, ldx, w, ldw, bias, y, ldy, accumulate, panels));
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
