#pragma once

#include "../core/compile_once.hpp"
#include "dot_panels.hpp"

namespace graft::kernels {

// Dots of up to so many columns are short: summing their lanes would cost up to half as much as their products.
inline constexpr std::ptrdiff_t dot_short = 256;
// Blocks of x that stay in the second-level cache all together.
inline constexpr std::ptrdiff_t dot_kept_blocks = 128;
// From so many rows of x on, a narrow w is copied, and the next rows of w are fetched while these are multiplied.
inline constexpr std::ptrdiff_t dot_many_rows = 48;

// From so many rows of x on, AVX2 copies a weight of four bits, which takes it longer to widen than to multiply.
inline constexpr std::ptrdiff_t dot_few_rows = 4;

/// Many rows that do not begin at lines of the cache are copied to where they do.
template <class T>
[[nodiscard]] constexpr bool dot_aligns(std::ptrdiff_t rows, std::ptrdiff_t ld) {
  return rows >= dot_many_rows && ld * std::ptrdiff_t(sizeof(T)) % 64 != 0;
}
/// Rows of x that are a power of two apart share few sets of the caches: a block of them is copied.
template <class T>
[[nodiscard]] constexpr bool dot_copies_x(std::ptrdiff_t rows, std::ptrdiff_t ldx) {
  return dot_aligns<T>(rows, ldx) || (rows >= 2 && ldx * std::ptrdiff_t(sizeof(T)) % 2048 == 0);
}
/// A narrow weight is copied, to be widened once and not by every tile.
template <class T, class W>
[[nodiscard]] constexpr bool dot_copies_w(std::ptrdiff_t rows, std::ptrdiff_t ldw) {
  return dot_aligns<T>(rows, ldw) || (rows >= dot_many_rows && !std::is_same_v<T, W>);
}
/// Whether that, or what AVX2 copies besides, may need room.
template <class T, class W>
[[nodiscard]] constexpr bool dot_may_copy_w(std::ptrdiff_t rows, std::ptrdiff_t ldw) {
  return dot_copies_w<T, W>(rows, ldw) || (rows >= dot_few_rows && std::is_same_v<W, FourBitView>);
}
/// From so many rows on, packing w, and x where its rows would not stay in the first-level cache, costs less than summing
/// the lanes of every dot; where w would be copied anyway, from half as many.
template <class T, class W>
[[nodiscard]] constexpr bool dot_packs(std::ptrdiff_t rows, std::ptrdiff_t in, std::ptrdiff_t ldw) {
  return in <= dot_short ? rows >= dot_many_rows && 2 * rows >= in : rows >= (dot_copies_w<T, W>(rows, ldw) ? 112 : 224);
}
/// Outputs from which on that pays for long dots: packing x takes as long as its products with some 25 of them.
inline constexpr std::ptrdiff_t dot_wide = 192;
/// So many rows of x pass over dot_outputs rows of w, a block of each.
[[nodiscard]] constexpr std::ptrdiff_t dot_rows(std::ptrdiff_t in, bool packs) { return in <= dot_short ? 1024 : packs ? 512 : 256; }
/// The number of T that product_nt can use as scratch: bounded, the same for every instruction set; 0 where it
/// would not help.
template <class T, class W>
[[nodiscard]] constexpr std::ptrdiff_t product_nt_scratch(std::ptrdiff_t n, std::ptrdiff_t in, std::ptrdiff_t ldx,
                                                          std::ptrdiff_t ldw) {
  const bool packs = dot_packs<T, W>(n, in, ldw);
  const std::ptrdiff_t most = dot_rows(in, packs), rows = n < most ? n : most, all = rows * dot_blocks<T>(in);
  std::ptrdiff_t needed = packs ? dot_panels_scratch<T>(in) : dot_may_copy_w<T, W>(rows, ldw) ? dot_outputs * dot_stride<T>(in) : 0;
  if ((packs && in > dot_short) || dot_copies_x<T>(rows, ldx)) needed += dot_rows_scratch<T>(all <= dot_kept_blocks ? all : rows, in);
  return needed;
}

}  // namespace graft::kernels

#define GRAFT_KERNELS "products.inc"
#include "for_each_isa.inc"

/// Dense products over plain memory. `n` rows of activations, `in` features in, `out` features out; every
/// matrix is row-major with a leading dimension (elements from one row to the next). T is float or double; a
/// weight W is T, or with T = float also bf16 or f16, widened in registers. Results depend on the row, the
/// weight and the instruction set alone: a row has the same bits whatever other rows are in the call.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// y[i,o] (+)= bias[o] + sum over k < in of x[i,k] * w[o,k]: the linear layer.
/// x (n, in), w (out, in), bias (out) or null, y (n, out). With `accumulate` y is added to, else written; y
/// must not overlap x or w. scratch: product_nt_scratch<T, W>(n, in, ldx, ldw) T, or null; it makes many rows
/// faster and changes no bit.
template <class T, class W>
void product_nt(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const T* x, std::ptrdiff_t ldx,
                const W* w, std::ptrdiff_t ldw, const T* bias, T* y, std::ptrdiff_t ldy, bool accumulate,
                T* scratch = nullptr) {
  static_assert(fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  GRAFT_DISPATCH(product_nt<T, W>(n, out, in, x, ldx, w, ldw, bias, y, ldy, accumulate, scratch));
}
GRAFT_SHARED_FUNCTION(product_nt<float, bf16>)
GRAFT_SHARED_FUNCTION(product_nt<float, f16>)
GRAFT_SHARED_FUNCTION(product_nt<float, float>)

/// product_nt over quantised rows, an Int8View or a FourBitView: the bits are those of the same product with the
/// weight widened to float before. ldw: columns from one row to the next. scratch: product_nt_scratch<float,
/// View>(n, in, ldx, ldw) float, or null.
template <class View>
void product_nt_view(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const float* x, std::ptrdiff_t ldx,
                     const View& w, std::ptrdiff_t ldw, const float* bias, float* y, std::ptrdiff_t ldy,
                     bool accumulate, float* scratch = nullptr) {
  GRAFT_DISPATCH(product_nt_view<View>(n, out, in, x, ldx, w, ldw, bias, y, ldy, accumulate, scratch));
}

/// y[i,o] (+)= bias[o] + scale * sum over k < in of x[i,k] * w[k,o]: the linear layer whose weight is stored
/// (in, out), as transformers' Conv1D does, and products with a matrix that has been transposed.
/// x (n, in), w (in, out), bias (out) or null, y (n, out). The sum takes k in order, in blocks from the
/// front, so zeros behind the end of a row of x change nothing. y must not overlap x or w.
template <class T, class W>
void product_nn(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const T* x, std::ptrdiff_t ldx,
                const W* w, std::ptrdiff_t ldw, const T* bias, T* y, std::ptrdiff_t ldy, bool accumulate,
                T scale = T(1)) {
  static_assert(fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  GRAFT_DISPATCH(product_nn<T, W>(n, out, in, x, ldx, w, ldw, bias, y, ldy, accumulate, scale));
}
GRAFT_SHARED_FUNCTION(product_nn<float, bf16>)
GRAFT_SHARED_FUNCTION(product_nn<float, f16>)
GRAFT_SHARED_FUNCTION(product_nn<float, float>)

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
