#pragma once

#include "vector.hpp"

namespace graft::kernels {
inline namespace GRAFT_ISA {

namespace detail {
typedef float Quad __attribute__((vector_size(16)));

GRAFT_INLINE void transpose_4x4(const float* x, std::ptrdiff_t ldx, float* y, std::ptrdiff_t ldy) {
  Quad a, b, c, d;
  std::memcpy(&a, x, 16);
  std::memcpy(&b, x + ldx, 16);
  std::memcpy(&c, x + 2 * ldx, 16);
  std::memcpy(&d, x + 3 * ldx, 16);
  const Quad ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5),
             ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Quad cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5),
             cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  a = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
  b = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
  c = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
  d = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
  std::memcpy(y, &a, 16);
  std::memcpy(y + ldy, &b, 16);
  std::memcpy(y + 2 * ldy, &c, 16);
  std::memcpy(y + 3 * ldy, &d, 16);
}
GRAFT_INLINE void transpose_4x4(const double* x, std::ptrdiff_t ldx, double* y, std::ptrdiff_t ldy) {
  GRAFT_UNROLL for (int i = 0; i < 4; ++i) GRAFT_UNROLL for (int j = 0; j < 4; ++j) y[j * ldy + i] =
      x[i * ldx + j];
}
}  // namespace detail

/// y (cols, rows) = the transpose of x (rows, cols); they must not overlap.
template <class T>
void transpose(std::ptrdiff_t rows, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y,
               std::ptrdiff_t ldy) {
  const std::ptrdiff_t whole_rows = rows / 4 * 4, whole_cols = cols / 4 * 4;
  for (std::ptrdiff_t i = 0; i < whole_rows; i += 4) {
    for (std::ptrdiff_t j = 0; j < whole_cols; j += 4)
      detail::transpose_4x4(x + i * ldx + j, ldx, y + j * ldy + i, ldy);
    for (std::ptrdiff_t j = whole_cols; j < cols; ++j)
      for (std::ptrdiff_t k = i; k < i + 4; ++k) y[j * ldy + k] = x[k * ldx + j];
  }
  for (std::ptrdiff_t i = whole_rows; i < rows; ++i)
    for (std::ptrdiff_t j = 0; j < cols; ++j) y[j * ldy + i] = x[i * ldx + j];
}

}  // namespace GRAFT_ISA
}  // namespace graft::kernels
