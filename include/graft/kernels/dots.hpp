#pragma once

#include "four_bit_groups.hpp"
#include "reduce.hpp"
#include "weight_view.hpp"
#include "widen.hpp"

/// Dots of rows of activations with rows of weights, in tiles of registers: what product_nt is made of.
namespace graft::kernels {

// product_nt sums block by block: blocks of x and of w then stay in the first-level cache. The borders must not
// depend on n.
template <class T>
inline constexpr std::ptrdiff_t dot_block = 4096 / sizeof(T);

// So many rows of w, a block of each, stay in the second-level cache while many rows of x pass over them.
inline constexpr std::ptrdiff_t dot_outputs = 48;

template <class T>
[[nodiscard]] constexpr std::ptrdiff_t dot_blocks(std::ptrdiff_t in) {
  return (in + dot_block<T> - 1) / dot_block<T>;
}
/// Elements from one row of a copied block to the next: rows stand close together, each at the start of a line.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t dot_stride(std::ptrdiff_t depth) {
  constexpr std::ptrdiff_t line = 64 / std::ptrdiff_t(sizeof(T));
  return depth < dot_block<T> ? (depth + line - 1) / line * line : dot_block<T>;
}

}  // namespace graft::kernels

#define GRAFT_KERNELS "dots.inc"
#include "for_each_isa.inc"
