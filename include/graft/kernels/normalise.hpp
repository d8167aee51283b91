#pragma once

#include "../core/compile_once.hpp"
#include "reduce.hpp"
#include "transcendental.hpp"
#include "widen.hpp"

#define GRAFT_KERNELS "normalise.inc"
#include "for_each_isa.inc"

/// Row-wise normalisations. Every row is taken alone. y may be x (with the same leading dimension).
namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// y = x / sqrt(mean(x^2) + eps) * weight, as transformers' LlamaRMSNorm. x and y (n, cols), weight (cols) or
/// null.
template <class T, class W>
void rms_norm(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, const W* weight,
              double eps, T* y, std::ptrdiff_t ldy) {
  static_assert(fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  GRAFT_DISPATCH(rms_norm<T, W>(n, cols, x, ldx, weight, eps, y, ldy));
}
GRAFT_SHARED_FUNCTION(rms_norm<float, float>)

/// y = (x - mean) / sqrt(variance + eps) * weight + bias, the variance over cols (not cols - 1), as torch's
/// LayerNorm. x and y (n, cols), weight and bias (cols) or null.
template <class T, class W>
void layer_norm(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, const W* weight,
                const W* bias, double eps, T* y, std::ptrdiff_t ldy) {
  static_assert(fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  GRAFT_DISPATCH(layer_norm<T, W>(n, cols, x, ldx, weight, bias, eps, y, ldy));
}

/// y = softmax(factor * x) of each row. x and y (n, cols); row i has i * more columns more. A row without a finite
/// maximum gives NaN, as in torch.
template <class T>
void softmax(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y, std::ptrdiff_t ldy,
             T factor = T(1), std::ptrdiff_t more = 0) {
  GRAFT_DISPATCH(softmax<T>(n, cols, x, ldx, y, ldy, factor, more));
}
GRAFT_SHARED_FUNCTION(softmax<float>)

/// y[i] = log of the sum of exp(x[i, j]) over j: -log softmax(x)[j] is y[i] - x[i, j]. x (n, cols), cols > 0, y (n). The
/// exponentials are T, their sum is double.
template <class T>
void log_sum_exp(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, double* y) {
  GRAFT_DISPATCH(log_sum_exp<T>(n, cols, x, ldx, y));
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
