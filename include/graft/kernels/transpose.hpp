#pragma once

#include "vector.hpp"

#define GRAFT_KERNELS "transpose.inc"
#include "for_each_isa.inc"

namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// y (cols, rows) = the transpose of x (rows, cols); they must not overlap.
template <class T>
void transpose(std::ptrdiff_t rows, std::ptrdiff_t cols, const T* x, std::ptrdiff_t ldx, T* y,
               std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(transpose<T>(rows, cols, x, ldx, y, ldy));
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
