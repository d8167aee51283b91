#pragma once

#include <cmath>

#include "vector.hpp"

namespace graft::kernels {
inline namespace GRAFT_ISA {

/// The number of T that rotary needs as scratch.
[[nodiscard]] constexpr std::ptrdiff_t rotary_scratch(std::ptrdiff_t head_dim) { return head_dim / 2 * 3; }

/// Rotary position embedding as transformers' Llama has it: in every head the first half is rotated against
/// the second, by position / theta^(2j / head_dim). x and y (n, heads * head_dim), head_dim even; row i
/// stands at position first_position + i; y may be x. With T = float the angles are rounded to float where
/// transformers rounds them; with T = double they are not. scratch: rotary_scratch(head_dim) T.
template <class T>
void rotary(std::ptrdiff_t n, std::ptrdiff_t heads, std::ptrdiff_t head_dim, std::ptrdiff_t first_position,
            double theta, const T* x, std::ptrdiff_t ldx, T* y, std::ptrdiff_t ldy, T* scratch) {
  const std::ptrdiff_t half = head_dim / 2;
  T* frequencies = scratch;
  T* cosines = scratch + half;
  T* sines = scratch + 2 * half;
  for (std::ptrdiff_t j = 0; j < half; ++j) {
    const T exponent = T(2 * j) / T(head_dim);
    frequencies[j] = T(1) / T(std::pow(double(T(theta)), double(exponent)));
  }
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    for (std::ptrdiff_t j = 0; j < half; ++j) {
      const T angle = T(first_position + i) * frequencies[j];
      cosines[j] = T(std::cos(double(angle)));
      sines[j] = T(std::sin(double(angle)));
    }
    for (std::ptrdiff_t h = 0; h < heads; ++h) {
      const T* from = x + i * ldx + h * head_dim;
      T* to = y + i * ldy + h * head_dim;
      for_each_register<T>(half, [&](std::ptrdiff_t j, std::ptrdiff_t count) {
        const Vector<T> c = load_some(cosines + j, count), s = load_some(sines + j, count);
        const Vector<T> first = load_some(from + j, count), second = load_some(from + half + j, count);
        store_some(to + j, multiply_add(first, c, -(second * s)), count);
        store_some(to + half + j, multiply_add(second, c, first * s), count);
      });
    }
  }
}

}  // namespace GRAFT_ISA
}  // namespace graft::kernels
