#pragma once

#include "../core/compile_once.hpp"
#include "dots.hpp"
#include "transpose.hpp"

#define GRAFT_KERNELS "dot_panels.inc"
#include "for_each_isa.inc"

/// Dots of many rows with a packed weight: the bits are those of the dots that product_nt takes of the weight where it stands.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// The number of T that packing `cols` rows of w takes, the same for every instruction set; depth <= dot_block<T>.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t dot_panels_scratch(std::ptrdiff_t depth, std::ptrdiff_t cols = dot_outputs) {
  constexpr std::ptrdiff_t a_line_for_every_lane = 256;
  return (cols + dot_outputs - 1) / dot_outputs * (dot_outputs * dot_stride<T>(depth) + a_line_for_every_lane);
}
/// The same for packing n rows of x.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t dot_rows_scratch(std::ptrdiff_t n, std::ptrdiff_t depth) {
  return (n + 7) / 8 * 8 * dot_stride<T>(depth);
}

/// w (cols, depth) into the order in which dots_over_panels reads it. panels: dot_panels_scratch<T>(depth, cols) T.
template <class T, class W>
void pack_dot_panels(std::ptrdiff_t cols, std::ptrdiff_t depth, const W* w, std::ptrdiff_t ldw, T* panels) {
  static_assert(fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  GRAFT_DISPATCH(pack_dot_panels<T>(cols, depth, w, ldw, panels));
}

/// y[i,o] (+)= bias[o] + sum over k < depth of x[i,k] * w[o,k], for n rows of x and all rows of the packed w, or as many from
/// the first on as are a multiple of dot_outputs. packed: dot_rows_scratch<T>(n, depth) T, or null, then x is read where it stands.
template <class T>
void dots_over_panels(std::ptrdiff_t n, std::ptrdiff_t cols, std::ptrdiff_t depth, const T* x, std::ptrdiff_t ldx, const T* panels,
                      const T* bias, T* y, std::ptrdiff_t ldy, bool accumulate, T* packed) {
  GRAFT_DISPATCH(dots_over_panels<T>(n, cols, depth, x, ldx, panels, bias, y, ldy, accumulate, packed));
}
GRAFT_SHARED_FUNCTION(pack_dot_panels<float, float>)
GRAFT_SHARED_FUNCTION(dots_over_panels<float>)

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
