#pragma once

#include "vector.hpp"

#define GRAFT_KERNELS "column_sums.inc"
#include "for_each_isa.inc"

namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// y += the sum of x's rows: the gradient of a bias. x (n, cols), y (cols).
template <class T>
void add_column_sums(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y) {
  GRAFT_DISPATCH(add_column_sums<T>(n, cols, x, ldx, y));
}
/// y += the sum over rows of x times z, both (n, cols): the gradient of a factor of columns.
template <class T>
void add_column_dots(std::ptrdiff_t n, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, const T* z, std::ptrdiff_t ldz, T* y) {
  GRAFT_DISPATCH(add_column_dots<T>(n, cols, x, ldx, z, ldz, y));
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
