#pragma once

#include <algorithm>

#include "column_panels.hpp"
#include "products.hpp"

#define GRAFT_KERNELS "panel_product.inc"
#include "for_each_isa.inc"

/// product_nn for many rows, over a weight of any kind: parts of it are copied into panels that stay in cache.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// The number of T that the products over panels need as scratch: bounded, the same for every instruction set.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t panel_scratch(std::ptrdiff_t in, std::ptrdiff_t out) {
  const std::ptrdiff_t panel = 192 / std::ptrdiff_t(sizeof(T));  // three registers of 64 bytes
  return std::min<std::ptrdiff_t>(in, 512) * std::min(4 * panel, out + panel);
}

/// y[i,o] (+)= scale * sum over k < in of x[i,k] * w[k,o], with the bits of product_nn.
/// x (n, in), w (in, out), y (n, out); scratch: panel_scratch<T>(in, out) T.
template <class T, class W>
void product_nn_panels(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const T* x, std::ptrdiff_t ldx, const W* w,
                       std::ptrdiff_t ldw, T* y, std::ptrdiff_t ldy, bool accumulate, T scale, T* scratch) {
  static_assert(fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  GRAFT_DISPATCH(panel_product<T>(n, out, in, x, ldx, w, ldw, y, ldy, accumulate, scale, scratch));
}

/// The same over quantised rows, an Int8View or a FourBitView: the bits are those over the weight in float.
template <class View>
void product_nn_view(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const float* x, std::ptrdiff_t ldx,
                     const View& w, std::ptrdiff_t ldw, float* y, std::ptrdiff_t ldy, bool accumulate, float scale,
                     float* scratch) {
  GRAFT_DISPATCH(panel_product<float>(n, out, in, x, ldx, w, ldw, y, ldy, accumulate, scale, scratch));
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
