#pragma once

#include "col2im.hpp"
#include "conv.hpp"
#include "transpose.hpp"

/// Gradients of convolutions of one sample: dy (out, spatial…) is the gradient of the loss by the result. Everything is
/// contiguous, all gradients are added, and nothing is allocated.
namespace graft::kernels {

/// Where conv_backward adds: null for a gradient that is not wanted.
template <class T>
struct ConvGradients {
  T* dw = nullptr;  ///< (out, in / groups, kernel…)
  T* db = nullptr;  ///< (out)
  T* dx = nullptr;  ///< (in, spatial…)
};

/// Where low_rank_conv_backward adds: null for a gradient that is not wanted.
template <class T>
struct LowRankConvGradients {
  T* dA = nullptr;     ///< (r, in, kernel…)
  T* dB = nullptr;     ///< (out, r / groups)
  T* de = nullptr;     ///< (r): AdaLoRA's E
  T* dbeta = nullptr;  ///< (out): the bias of lora_B
  T* dx = nullptr;     ///< (in, spatial…)
};

inline namespace GRAFT_BUILD {

namespace detail {
// Output positions that are unrolled at once: more than the forward takes, because they are the length of the dots that dw
// is made of.
inline std::ptrdiff_t conv_backward_block(const ConvGeometry& g, std::ptrdiff_t columns) {
  return std::min(g.output_positions(), std::clamp<std::ptrdiff_t>(262144 / columns / 48 * 48, 48, 768));
}

// to[o] += scale * the sum of row o
template <class T>
void add_row_sums(std::ptrdiff_t rows, std::ptrdiff_t cols, const T* y, std::ptrdiff_t ld, T scale, T* to) {
  for (std::ptrdiff_t o = 0; o < rows; ++o) {
    double sum = 0;
    for (std::ptrdiff_t j = 0; j < cols; ++j) sum += double(y[o * ld + j]);
    to[o] += T(double(scale) * sum);
  }
}

// columns (k, cols) (+)= w^T dy with w (rows, k): some rows of w at a time are widened and turned
template <class T, class W>
void conv_columns(std::ptrdiff_t rows, std::ptrdiff_t cols, std::ptrdiff_t k, const W* w, const T* dy, std::ptrdiff_t lddy,
                  T* columns, std::ptrdiff_t ld, bool accumulate, T* scratch) {
  T *const turned = scratch, *const widened = scratch + k * conv_rows;
  for (std::ptrdiff_t o = 0; o < rows; o += conv_rows) {
    const std::ptrdiff_t here = std::min(rows - o, conv_rows);
    const T* wide = widened;
    if constexpr (std::is_same_v<T, W>) wide = w + o * k;
    else widen<T, W>(here * k, w + o * k, widened);
    transpose(here, k, wide, k, turned, here);
    product_nn(k, cols, here, turned, here, dy + o * lddy, lddy, static_cast<const T*>(nullptr), columns, ld, accumulate || o > 0);
  }
}
}  // namespace detail

/// The number of T that conv_backward needs as scratch: bounded by the weight's rows, not by the sample.
[[nodiscard]] inline std::ptrdiff_t conv_backward_scratch(const ConvGeometry& g) {
  const std::ptrdiff_t k = g.weight_columns();
  return k * (detail::conv_backward_block(g, k) + 2 * detail::conv_rows);
}

/// Adds the gradients of y = bias + conv(x, w). x is read for dw alone, and w for dx alone.
/// w (out, in / groups, kernel…) may be narrow, its gradient is not; scratch: conv_backward_scratch(g) T.
template <class T, class W>
void conv_backward(const ConvGeometry& g, const T* x, const W* w, const T* dy, const ConvGradients<T>& to, T* scratch) {
  static_assert(fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  const std::ptrdiff_t k = g.weight_columns(), positions = g.output_positions(), block = detail::conv_backward_block(g, k);
  const std::ptrdiff_t in = g.in / g.groups, out = g.out / g.groups;
  const bool pointwise = detail::is_pointwise(g);  // the input is its own columns
  T *const columns = scratch, *const turned = scratch + k * block;
  if (to.db) detail::add_row_sums(g.out, positions, dy, positions, T(1), to.db);
  for (std::ptrdiff_t group = 0; group < g.groups; ++group)
    for (std::ptrdiff_t p = 0; p < positions; p += block) {
      const std::ptrdiff_t cols = std::min(positions - p, block), channel = group * in * g.input_positions();
      const T* const dy_here = dy + group * out * positions + p;
      if (to.dw) {
        if (!pointwise) im2col(g, in, x + channel, p, cols, columns, cols);
        product_nt(out, k, cols, dy_here, positions, pointwise ? x + channel + p : columns, pointwise ? positions : cols,
                   static_cast<const T*>(nullptr), to.dw + group * out * k, k, true);
      }
      if (!to.dx) continue;
      const W* const w_here = w + group * out * k;
      if (pointwise) {
        detail::conv_columns(out, cols, k, w_here, dy_here, positions, to.dx + channel + p, positions, true, turned);
      } else {
        detail::conv_columns(out, cols, k, w_here, dy_here, positions, columns, cols, false, turned);
        col2im(g, in, columns, cols, p, cols, to.dx + channel);
      }
    }
}

/// The number of T that low_rank_conv_backward needs as scratch: bounded by A and B, not by the sample.
[[nodiscard]] inline std::ptrdiff_t low_rank_conv_backward_scratch(const ConvGeometry& base, std::ptrdiff_t r) {
  const std::ptrdiff_t k = base.in * base.kernel_positions();
  return (k + 2 * r) * detail::conv_block(base, k) + r * (k + base.out / base.groups);
}

/// Adds the gradients of low_rank_conv_update's y += scale * conv_B(conv_A(x) * e) + scale * beta.
/// `base`, r, x, A, B, e and scale: what the update was given; scratch: low_rank_conv_backward_scratch(base, r) T.
/// With r = 0 there is only beta's.
template <class T>
void low_rank_conv_backward(const ConvGeometry& base, std::ptrdiff_t r, const T* x, const T* A, const T* B, const T* e, T scale,
                            const T* dy, const LowRankConvGradients<T>& to, T* scratch) {
  const std::ptrdiff_t k = base.in * base.kernel_positions(), positions = base.output_positions();
  const std::ptrdiff_t block = detail::conv_block(base, k), out = base.out / base.groups, rank = r / base.groups;
  const T* const none = nullptr;
  if (to.dbeta) detail::add_row_sums(base.out, positions, dy, positions, scale, to.dbeta);
  const bool needs_down = to.dA || to.dx || to.de, needs_u = to.dB || to.de;
  if (r <= 0 || (!needs_down && !needs_u)) return;
  const bool pointwise = detail::is_pointwise(base);
  T* const columns = scratch;                // (k, cols)
  T* const u = columns + k * block;          // A columns (r, cols)
  T* const down = u + r * block;             // B^T dy (r, cols)
  T* const turned_a = down + r * block;      // A^T (k, r)
  T* const turned_b = turned_a + r * k;      // B^T of every group (rank, out)
  if (to.dx) transpose(r, k, A, k, turned_a, r);
  if (needs_down)
    for (std::ptrdiff_t group = 0; group < base.groups; ++group)
      transpose(out, rank, B + group * out * rank, rank, turned_b + group * rank * out, out);
  const auto scale_rows = [&](T* rows, std::ptrdiff_t cols) {
    for (std::ptrdiff_t j = 0; j < r; ++j)
      for (std::ptrdiff_t i = 0; i < cols; ++i) rows[j * cols + i] *= e ? scale * e[j] : scale;
  };
  for (std::ptrdiff_t p = 0; p < positions; p += block) {
    const std::ptrdiff_t cols = std::min(positions - p, block);
    const T* const read = pointwise ? x + p : columns;
    const std::ptrdiff_t ld = pointwise ? positions : cols;
    if (!pointwise && (needs_u || to.dA)) im2col(base, base.in, x, p, cols, columns, cols);
    if (needs_u) product_nn(r, cols, k, A, k, read, ld, none, u, cols, false);
    if (needs_down)
      for (std::ptrdiff_t group = 0; group < base.groups; ++group)
        product_nn(rank, cols, out, turned_b + group * rank * out, out, dy + group * out * positions + p, positions, none,
                   down + group * rank * cols, cols, false);
    if (to.de)
      for (std::ptrdiff_t j = 0; j < r; ++j) {
        double sum = 0;
        for (std::ptrdiff_t i = 0; i < cols; ++i) sum += double(down[j * cols + i]) * double(u[j * cols + i]);
        to.de[j] += T(double(scale) * sum);
      }
    if (to.dB) {
      scale_rows(u, cols);
      for (std::ptrdiff_t group = 0; group < base.groups; ++group)
        product_nt(out, rank, cols, dy + group * out * positions + p, positions, u + group * rank * cols, cols, none,
                   to.dB + group * out * rank, rank, true);
    }
    if (!to.dA && !to.dx) continue;
    scale_rows(down, cols);
    if (to.dA) product_nt(r, k, cols, down, cols, read, ld, none, to.dA, k, true);
    if (to.dx && pointwise) product_nn(k, cols, r, turned_a, r, down, cols, none, to.dx + p, positions, true);
    if (to.dx && !pointwise) {
      product_nn(k, cols, r, turned_a, r, down, cols, none, columns, cols, false);
      col2im(base, base.in, columns, cols, p, cols, to.dx);
    }
  }
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
