#pragma once

#include "transcendental.hpp"

#define GRAFT_KERNELS "elementwise_backward.inc"
#include "for_each_isa.inc"

/// Gradients of elementwise operations: added to dx, given dy and the forward's x or y. All (n, cols), rows with leading
/// dimensions; dx overlaps none of the others.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// y += a * b, element by element; all (n, cols).
template <class T>
void add_product(std::ptrdiff_t n, std::ptrdiff_t cols, const T* a, std::ptrdiff_t lda, const T* b, std::ptrdiff_t ldb, T* y,
                 std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(add_product<T>(n, cols, a, lda, b, ldb, y, ldy));
}

/// The gradient of relu: dy where x > 0, and where x is NaN; at 0 it is 0, as in torch.
template <class T>
void relu_backward(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, const T* dy, std::ptrdiff_t lddy, T* dx,
                   std::ptrdiff_t lddx) {
  GRAFT_DISPATCH(relu_backward<T>(n, cols, x, ldx, dy, lddy, dx, lddx));
}

/// Of sigmoid, by its result: dy * y * (1 - y).
template <class T>
void sigmoid_backward(std::ptrdiff_t n, std::ptrdiff_t cols, const T* y, std::ptrdiff_t ldy, const T* dy, std::ptrdiff_t lddy, T* dx,
                      std::ptrdiff_t lddx) {
  GRAFT_DISPATCH(sigmoid_backward<T>(n, cols, y, ldy, dy, lddy, dx, lddx));
}

/// Of tanh, by its result: dy * (1 - y^2).
template <class T>
void tanh_backward(std::ptrdiff_t n, std::ptrdiff_t cols, const T* y, std::ptrdiff_t ldy, const T* dy, std::ptrdiff_t lddy, T* dx,
                   std::ptrdiff_t lddx) {
  GRAFT_DISPATCH(tanh_backward<T>(n, cols, y, ldy, dy, lddy, dx, lddx));
}

/// Of silu: dy * s * (1 + x * (1 - s)) with s = sigmoid(x).
template <class T>
void silu_backward(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, const T* dy, std::ptrdiff_t lddy, T* dx,
                   std::ptrdiff_t lddx) {
  GRAFT_DISPATCH(silu_backward<T>(n, cols, x, ldx, dy, lddy, dx, lddx));
}

/// Of gelu_erf: dy * (P(x) + x * p(x)), the normal distribution and its density.
template <class T>
void gelu_erf_backward(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, const T* dy, std::ptrdiff_t lddy, T* dx,
                       std::ptrdiff_t lddx) {
  GRAFT_DISPATCH(gelu_erf_backward<T>(n, cols, x, ldx, dy, lddy, dx, lddx));
}

/// Of gelu_tanh: dy * half of 1 + t + x * (1 - t^2) * the inner function's derivative, t its tanh.
template <class T>
void gelu_tanh_backward(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, const T* dy, std::ptrdiff_t lddy, T* dx,
                        std::ptrdiff_t lddx) {
  GRAFT_DISPATCH(gelu_tanh_backward<T>(n, cols, x, ldx, dy, lddy, dx, lddx));
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
