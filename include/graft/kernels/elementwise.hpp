#pragma once

#include "transcendental.hpp"

#define GRAFT_KERNELS "elementwise.inc"
#include "for_each_isa.inc"

/// Elementwise operations over n rows with leading dimensions. y may be an input (with the same leading
/// dimension); otherwise they do not overlap.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// y = a + b; all (n, cols).
template <class T>
void add(std::ptrdiff_t n, std::ptrdiff_t cols, const T* a, std::ptrdiff_t lda, const T* b,
         std::ptrdiff_t ldb, T* y, std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(add<T>(n, cols, a, lda, b, ldb, y, ldy));
}

/// y = a * b, element by element; all (n, cols).
template <class T>
void multiply(std::ptrdiff_t n, std::ptrdiff_t cols, const T* a, std::ptrdiff_t lda, const T* b,
              std::ptrdiff_t ldb, T* y, std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(multiply<T>(n, cols, a, lda, b, ldb, y, ldy));
}

/// y = factor * x; both (n, cols).
template <class T>
void scale(std::ptrdiff_t n, std::ptrdiff_t cols, T factor, const T* x, std::ptrdiff_t ldx, T* y,
           std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(scale<T>(n, cols, factor, x, ldx, y, ldy));
}

/// y += factor * x; both (n, cols). With ldx = 0 one row x is added to every row of y.
template <class T>
void add_scaled(std::ptrdiff_t n, std::ptrdiff_t cols, T factor, const T* x, std::ptrdiff_t ldx, T* y,
                std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(add_scaled<T>(n, cols, factor, x, ldx, y, ldy));
}

/// y = x * l, column by column: IA3 on features. x and y (n, cols), l (cols). With a weight other than 1 the
/// vector's strength is changed: x * (1 + weight * (l - 1)).
template <class T>
void scale_columns(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, const T* l,
                   T weight, T* y, std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(scale_columns<T>(n, cols, x, ldx, l, weight, y, ldy));
}

/// The same per channel: x and y (n, channels * positions) with every channel's positions together, l
/// (channels).
template <class T>
void scale_channels(std::ptrdiff_t n, std::ptrdiff_t channels, std::ptrdiff_t positions, const T* x,
                    std::ptrdiff_t ldx, const T* l, T weight, T* y, std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(scale_channels<T>(n, channels, positions, x, ldx, l, weight, y, ldy));
}

/// y = max(x, 0); NaN stays NaN.
template <class T>
void relu(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y, std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(relu<T>(n, cols, x, ldx, y, ldy));
}

/// y = 1 / (1 + e^-x)
template <class T>
void sigmoid(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y,
             std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(sigmoid<T>(n, cols, x, ldx, y, ldy));
}

/// y = x / (1 + e^-x)
template <class T>
void silu(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y, std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(silu<T>(n, cols, x, ldx, y, ldy));
}

/// y = tanh x
template <class T>
void tanh(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y, std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(tanh<T>(n, cols, x, ldx, y, ldy));
}

/// y = x / 2 * (1 + erf(x / sqrt 2)): torch's gelu.
template <class T>
void gelu_erf(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y,
              std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(gelu_erf<T>(n, cols, x, ldx, y, ldy));
}

/// y = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))): torch's gelu(approximate="tanh").
template <class T>
void gelu_tanh(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y,
               std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(gelu_tanh<T>(n, cols, x, ldx, y, ldy));
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
