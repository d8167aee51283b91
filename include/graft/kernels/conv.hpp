#pragma once

#include "im2col.hpp"
#include "products.hpp"

/// Convolutions of one sample: x (in, spatial…), y (out, spatial…), weight (out, in / groups, kernel…), all
/// contiguous. The geometry has been checked. Every output position is summed alike, whatever the block it is
/// in.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

namespace detail {
// Output positions that are unrolled at once: some 64 Ki elements of columns.
inline std::ptrdiff_t conv_block(const ConvGeometry& g, std::ptrdiff_t columns) {
  return std::min(g.output_positions(), std::clamp<std::ptrdiff_t>(65536 / columns / 48 * 48, 48, 768));
}
inline constexpr std::ptrdiff_t conv_rows = 32;  // of a narrow weight, widened at once

// The input is its own column matrix.
inline bool is_pointwise(const ConvGeometry& g) {
  const ConvGeometry::Axes none{0, 0, 0}, one{1, 1, 1};
  return g.kernel == one && g.stride == one && g.padding_before == none && g.padding_after == none;
}

// y (rows, cols) += scale * w (rows, k) columns (k, cols), w widened by way of `widened` when it is narrow
template <class T, class W>
void conv_product(std::ptrdiff_t rows, std::ptrdiff_t cols, std::ptrdiff_t k, const W* w, const T* columns,
                  std::ptrdiff_t ld, T* y, std::ptrdiff_t ldy, T scale, [[maybe_unused]] T* widened) {
  const T* none = nullptr;
  if constexpr (std::is_same_v<T, W>) {
    product_nn(rows, cols, k, w, k, columns, ld, none, y, ldy, true, scale);
  } else {
    for (std::ptrdiff_t o = 0; o < rows; o += conv_rows) {
      const std::ptrdiff_t here = std::min(rows - o, conv_rows);
      widen<T, W>(here * k, w + o * k, widened);
      product_nn(here, cols, k, widened, k, columns, ld, none, y + o * ldy, ldy, true, scale);
    }
  }
}
}  // namespace detail

/// The number of T that conv_forward needs as scratch: bounded by the weight's rows, not by the sample.
[[nodiscard]] inline std::ptrdiff_t conv_scratch(const ConvGeometry& g) {
  const std::ptrdiff_t k = g.weight_columns();
  return k * (detail::conv_block(g, k) + std::min(g.out / g.groups, detail::conv_rows));
}

/// y (+)= bias + scale * conv(x, w) at the output positions [begin, end). bias (out) or null; scratch: conv_scratch(g) T; y
/// must not overlap x.
template <class T, class W>
void conv_positions(const ConvGeometry& g, std::ptrdiff_t begin, std::ptrdiff_t end, const T* x, const W* w, const T* bias,
                    T* y, T* scratch, bool accumulate = false, T scale = T(1)) {
  static_assert(fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  const std::ptrdiff_t k = g.weight_columns(), positions = g.output_positions(),
                       block = detail::conv_block(g, k);
  const std::ptrdiff_t in = g.in / g.groups, out = g.out / g.groups;
  T* widened = scratch + k * block;
  for (std::ptrdiff_t p = begin; p < end; p += block) {
    const std::ptrdiff_t cols = std::min(end - p, block);
    for (std::ptrdiff_t o = 0; o < g.out; ++o)
      for (std::ptrdiff_t j = p; j < p + cols; ++j)
        y[o * positions + j] = (accumulate ? y[o * positions + j] : T(0)) + (bias ? bias[o] : T(0));
    for (std::ptrdiff_t group = 0; group < g.groups; ++group) {
      const T* from = x + group * in * g.input_positions();
      const bool pointwise = detail::is_pointwise(g);
      if (!pointwise) im2col(g, in, from, p, cols, scratch, cols);
      detail::conv_product(out, cols, k, w + group * out * k, pointwise ? from + p : scratch,
                           pointwise ? positions : cols, y + group * out * positions + p, positions, scale,
                           widened);
    }
  }
}

/// The same at all positions.
template <class T, class W>
void conv_forward(const ConvGeometry& g, const T* x, const W* w, const T* bias, T* y, T* scratch,
                  bool accumulate = false, T scale = T(1)) {
  conv_positions<T, W>(g, 0, g.output_positions(), x, w, bias, y, scratch, accumulate, scale);
}

/// The number of T that low_rank_conv_update needs as scratch.
[[nodiscard]] inline std::ptrdiff_t low_rank_conv_scratch(const ConvGeometry& base, std::ptrdiff_t r) {
  const std::ptrdiff_t k = base.in * base.kernel_positions();
  return (k + r) * detail::conv_block(base, k);
}

/// y += scale * conv_B(conv_A(x) * e) + scale * beta. `base`: the layer's geometry. A (r, in, kernel…) sees
/// all input channels with the base's kernel, stride, padding and dilation; e (r): AdaLoRA's E, or null for
/// ones; B (out, r / groups) is a 1 x 1 convolution in the base's groups; beta (out): the bias of lora_B, or
/// null. AdaLoRA pads with zeros whatever the base does: give it a geometry whose padding_mode says so.
/// scratch: low_rank_conv_scratch(base, r) T. With r = 0 only beta adds.
template <class T>
void low_rank_conv_update(const ConvGeometry& base, std::ptrdiff_t r, const T* x, const T* A, const T* B,
                          const T* e, T scale, const T* beta, T* y, T* scratch) {
  const std::ptrdiff_t k = base.in * base.kernel_positions(), positions = base.output_positions();
  const std::ptrdiff_t block = detail::conv_block(base, k);
  const std::ptrdiff_t out = base.out / base.groups, rank = r / base.groups;
  const T* none = nullptr;
  T* u = scratch + k * block;
  for (std::ptrdiff_t p = 0; p < positions; p += block) {
    const std::ptrdiff_t cols = std::min(positions - p, block);
    if (beta)
      for (std::ptrdiff_t o = 0; o < base.out; ++o)
        for (std::ptrdiff_t j = p; j < p + cols; ++j) y[o * positions + j] += scale * beta[o];
    if (r <= 0) continue;
    im2col(base, base.in, x, p, cols, scratch, cols);
    product_nn(r, cols, k, A, k, scratch, cols, none, u, cols, false);
    if (e)
      for (std::ptrdiff_t j = 0; j < r; ++j)
        for (std::ptrdiff_t i = 0; i < cols; ++i) u[j * cols + i] *= e[j];
    for (std::ptrdiff_t group = 0; group < base.groups; ++group)
      product_nn(out, cols, rank, B + group * out * rank, rank, u + group * rank * cols, cols, none,
                 y + group * out * positions + p, positions, true, scale);
  }
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
