#pragma once

#include "reduce.hpp"
#include "widen.hpp"

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
/// must not overlap x or w.
template <class T, class W>
void product_nt(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const T* x, std::ptrdiff_t ldx,
                const W* w, std::ptrdiff_t ldw, const T* bias, T* y, std::ptrdiff_t ldy, bool accumulate) {
  static_assert(fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  GRAFT_DISPATCH(product_nt<T, W>(n, out, in, x, ldx, w, ldw, bias, y, ldy, accumulate));
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

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
