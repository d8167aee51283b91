#pragma once

#include "../core/compile_once.hpp"
#include "dots.hpp"
#include "transpose.hpp"

#define GRAFT_KERNELS "dot_panels.inc"
#include "for_each_isa.inc"

/// Dots of many rows with a packed weight, for product_nt: the bits are those of the dots that it takes of the weight
/// where it stands. n rows of x (n, depth) and rows of w (cols, depth) give y (n, cols); cols <= dot_outputs.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// The number of T that packing w takes, the same for every instruction set; depth <= dot_block<T>.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t dot_panels_scratch(std::ptrdiff_t depth) {
  constexpr std::ptrdiff_t a_line_for_every_lane = 256;
  return dot_outputs * dot_stride<T>(depth) + a_line_for_every_lane;
}
/// The same for packing n rows of x.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t dot_rows_scratch(std::ptrdiff_t n, std::ptrdiff_t depth) {
  return (n + 7) / 8 * 8 * dot_stride<T>(depth);
}

/// y[i,o] (+)= bias[o] + sum over k < depth of x[i,k] * w[o,k]. panels: dot_panels_scratch<T>(depth) T; packed:
/// dot_rows_scratch<T>(n, depth) T, or null, then x is read where it stands.
template <class T, class W>
void dots_over_panels(std::ptrdiff_t n, std::ptrdiff_t cols, std::ptrdiff_t depth, const T* x, std::ptrdiff_t ldx, const W* w,
                      std::ptrdiff_t ldw, const T* bias, T* y, std::ptrdiff_t ldy, bool accumulate, T* panels, T* packed) {
  static_assert(fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  GRAFT_DISPATCH(dots_over_panels<T, W>(n, cols, depth, x, ldx, w, ldw, bias, y, ldy, accumulate, panels, packed));
}
GRAFT_SHARED_FUNCTION(dots_over_panels<float, float>)

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
