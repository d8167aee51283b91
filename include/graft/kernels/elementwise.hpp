#pragma once

#include "transcendental.hpp"

/// Elementwise operations over n rows with leading dimensions. y may be an input (with the same leading
/// dimension); otherwise they do not overlap.
namespace graft::kernels {
inline namespace GRAFT_ISA {

namespace detail {
// f(registers of x...) -> register of y, over n rows of cols.
template <class T, class F>
GRAFT_INLINE void map_rows(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y,
                           std::ptrdiff_t ldy, F&& f) {
  for (std::ptrdiff_t i = 0; i < n; ++i)
    for_each_register<T>(cols, [&](std::ptrdiff_t o, std::ptrdiff_t count) {
      store_some(y + i * ldy + o, f(load_some(x + i * ldx + o, count)), count);
    });
}
template <class T, class F>
GRAFT_INLINE void map_rows(std::ptrdiff_t n, std::ptrdiff_t cols, const T* a, std::ptrdiff_t lda, const T* b,
                           std::ptrdiff_t ldb, T* y, std::ptrdiff_t ldy, F&& f) {
  for (std::ptrdiff_t i = 0; i < n; ++i)
    for_each_register<T>(cols, [&](std::ptrdiff_t o, std::ptrdiff_t count) {
      store_some(y + i * ldy + o, f(load_some(a + i * lda + o, count), load_some(b + i * ldb + o, count)),
                 count);
    });
}
}  // namespace detail

/// y = a + b; all (n, cols).
template <class T>
void add(std::ptrdiff_t n, std::ptrdiff_t cols, const T* a, std::ptrdiff_t lda, const T* b,
         std::ptrdiff_t ldb, T* y, std::ptrdiff_t ldy) {
  detail::map_rows(n, cols, a, lda, b, ldb, y, ldy, [](Vector<T> p, Vector<T> q) { return p + q; });
}
/// y = a * b, element by element; all (n, cols).
template <class T>
void multiply(std::ptrdiff_t n, std::ptrdiff_t cols, const T* a, std::ptrdiff_t lda, const T* b,
              std::ptrdiff_t ldb, T* y, std::ptrdiff_t ldy) {
  detail::map_rows(n, cols, a, lda, b, ldb, y, ldy, [](Vector<T> p, Vector<T> q) { return p * q; });
}
/// y = factor * x; both (n, cols).
template <class T>
void scale(std::ptrdiff_t n, std::ptrdiff_t cols, T factor, const T* x, std::ptrdiff_t ldx, T* y,
           std::ptrdiff_t ldy) {
  const Vector<T> f = broadcast(factor);
  detail::map_rows(n, cols, x, ldx, y, ldy, [&](Vector<T> v) { return f * v; });
}
/// y += factor * x; both (n, cols). With ldx = 0 one row x is added to every row of y.
template <class T>
void add_scaled(std::ptrdiff_t n, std::ptrdiff_t cols, T factor, const T* x, std::ptrdiff_t ldx, T* y,
                std::ptrdiff_t ldy) {
  const Vector<T> f = broadcast(factor);
  detail::map_rows(n, cols, x, ldx, y, ldy, y, ldy,
                   [&](Vector<T> v, Vector<T> u) { return multiply_add(f, v, u); });
}

/// y = x * l, column by column: IA3 on features. x and y (n, cols), l (cols). With a weight other than 1 the
/// vector's strength is changed: x * (1 + weight * (l - 1)).
template <class T>
void scale_columns(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, const T* l,
                   T weight, T* y, std::ptrdiff_t ldy) {
  if (weight == T(1))
    return detail::map_rows(n, cols, x, ldx, l, 0, y, ldy, [](Vector<T> v, Vector<T> f) { return v * f; });
  const Vector<T> w = broadcast(weight), one = broadcast(T(1));
  detail::map_rows(n, cols, x, ldx, l, 0, y, ldy,
                   [&](Vector<T> v, Vector<T> f) { return v * multiply_add(w, f - one, one); });
}
/// The same per channel: x and y (n, channels * positions) with every channel's positions together, l
/// (channels).
template <class T>
void scale_channels(std::ptrdiff_t n, std::ptrdiff_t channels, std::ptrdiff_t positions, const T* x,
                    std::ptrdiff_t ldx, const T* l, T weight, T* y, std::ptrdiff_t ldy) {
  for (std::ptrdiff_t i = 0; i < n; ++i)
    for (std::ptrdiff_t c = 0; c < channels; ++c) {
      const T factor = weight == T(1) ? l[c] : T(1) + weight * (l[c] - T(1));
      scale(1, positions, factor, x + i * ldx + c * positions, 0, y + i * ldy + c * positions, 0);
    }
}

/// y = max(x, 0); NaN stays NaN.
template <class T>
void relu(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y, std::ptrdiff_t ldy) {
  detail::map_rows(n, cols, x, ldx, y, ldy, [](Vector<T> v) { return v < Vector<T>{} ? Vector<T>{} : v; });
}
/// y = 1 / (1 + e^-x)
template <class T>
void sigmoid(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y,
             std::ptrdiff_t ldy) {
  const Vector<T> one = broadcast(T(1));
  detail::map_rows(n, cols, x, ldx, y, ldy, [&](Vector<T> v) { return one / (one + exp(-v)); });
}
/// y = x / (1 + e^-x)
template <class T>
void silu(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y, std::ptrdiff_t ldy) {
  const Vector<T> one = broadcast(T(1));
  detail::map_rows(n, cols, x, ldx, y, ldy, [&](Vector<T> v) { return v / (one + exp(-v)); });
}
/// y = tanh x
template <class T>
void tanh(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y, std::ptrdiff_t ldy) {
  detail::map_rows(n, cols, x, ldx, y, ldy, [](Vector<T> v) { return tanh(v); });
}
/// y = x / 2 * (1 + erf(x / sqrt 2)): torch's gelu.
template <class T>
void gelu_erf(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y,
              std::ptrdiff_t ldy) {
  const Vector<T> one = broadcast(T(1)), half = broadcast(T(0.5)),
                  root = broadcast(T(0.70710678118654752440));
  detail::map_rows(n, cols, x, ldx, y, ldy, [&](Vector<T> v) { return half * v * (one + erf(v * root)); });
}
/// y = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))): torch's gelu(approximate="tanh").
template <class T>
void gelu_tanh(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y,
               std::ptrdiff_t ldy) {
  const Vector<T> one = broadcast(T(1)), half = broadcast(T(0.5)), cubic = broadcast(T(0.044715)),
                  factor = broadcast(T(0.79788456080286535588));
  detail::map_rows(n, cols, x, ldx, y, ldy, [&](Vector<T> v) {
    return half * v * (one + tanh(factor * multiply_add(cubic * v * v, v, v)));
  });
}

}  // namespace GRAFT_ISA
}  // namespace graft::kernels
