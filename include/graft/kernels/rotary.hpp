#pragma once

#include <cmath>

#include "../core/compile_once.hpp"
#include "vector.hpp"

#define GRAFT_KERNELS "rotary.inc"
#include "for_each_isa.inc"

namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// The number of T in a table of n positions.
[[nodiscard]] constexpr std::ptrdiff_t rotary_table_size(std::ptrdiff_t n, std::ptrdiff_t head_dim) { return n * head_dim; }

/// The angles j / theta^(2j / head_dim) of one position: frequencies (head_dim / 2).
template <class T>
void rotary_frequencies(std::ptrdiff_t head_dim, double theta, T* frequencies) {
  for (std::ptrdiff_t j = 0; j < head_dim / 2; ++j) {
    const T exponent = T(2 * j) / T(head_dim);
    frequencies[j] = T(1) / T(std::pow(double(T(theta)), double(exponent)));
  }
}
/// The cosines, and behind them the sines, of n positions from `first_position` on: table (n, head_dim). With T = float
/// the angles are rounded to float where transformers rounds them; with T = double they are not.
template <class T>
void rotary_table(std::ptrdiff_t n, std::ptrdiff_t head_dim, std::ptrdiff_t first_position, const T* frequencies, T* table) {
  const std::ptrdiff_t half = head_dim / 2;
  for (std::ptrdiff_t i = 0; i < n; ++i)
    for (std::ptrdiff_t j = 0; j < half; ++j) {
      const T angle = T(first_position + i) * frequencies[j];
      table[i * head_dim + j] = T(std::cos(double(angle)));
      table[i * head_dim + half + j] = T(std::sin(double(angle)));
    }
}

/// Rotary position embedding as transformers' Llama has it: in every head the first half is rotated against the second, by
/// position / theta^(2j / head_dim). x and y (n, heads * head_dim), head_dim even; row i takes row i of the table; y may be x.
template <class T>
void rotary(std::ptrdiff_t n, std::ptrdiff_t heads, std::ptrdiff_t head_dim, const T* table, const T* x, std::ptrdiff_t ldx, T* y,
            std::ptrdiff_t ldy) {
  GRAFT_DISPATCH(rotary<T>(n, heads, head_dim, table, x, ldx, y, ldy));
}
GRAFT_SHARED_FUNCTION(rotary<float>)

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
