#pragma once

#include <cmath>

#include "vector.hpp"

#define GRAFT_KERNELS "rotary.inc"
#include "for_each_isa.inc"

namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// The number of T that rotary needs as scratch.
[[nodiscard]] constexpr std::ptrdiff_t rotary_scratch(std::ptrdiff_t head_dim) { return head_dim / 2 * 3; }

/// Rotary position embedding as transformers' Llama has it: in every head the first half is rotated against
/// the second, by position / theta^(2j / head_dim). x and y (n, heads * head_dim), head_dim even; row i
/// stands at position first_position + i; y may be x. With T = float the angles are rounded to float where
/// transformers rounds them; with T = double they are not. scratch: rotary_scratch(head_dim) T.
template <class T>
void rotary(std::ptrdiff_t n, std::ptrdiff_t heads, std::ptrdiff_t head_dim, std::ptrdiff_t first_position,
            double theta, const T* x, std::ptrdiff_t ldx, T* y, std::ptrdiff_t ldy, T* scratch) {
  GRAFT_DISPATCH(rotary<T>(n, heads, head_dim, first_position, theta, x, ldx, y, ldy, scratch));
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
