#pragma once

#include <cstddef>
#include <limits>

#include "../core/compile_once.hpp"
#include "column_panels.hpp"

namespace graft::kernels {
inline namespace GRAFT_BUILD {
// The largest of all sets: scratch has one size, whichever runs.
inline constexpr std::ptrdiff_t merge_most_rows = 6, merge_most_cols = 64;
}  // namespace GRAFT_BUILD
}  // namespace graft::kernels

#define GRAFT_KERNELS "merge.inc"
#include "for_each_isa.inc"

/// Folding adapters into weights: W += scale * (B * e) A, and factors of rows and columns.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// The number of T that add_low_rank_delta needs as scratch, the same in every translation unit.
[[nodiscard]] constexpr std::ptrdiff_t low_rank_delta_scratch(std::ptrdiff_t width, std::ptrdiff_t r) {
  const std::ptrdiff_t panels = (width + merge_most_cols - 1) / merge_most_cols;
  return r * (panels * merge_most_cols + merge_most_rows);
}

/// W += scale * (B * e) A with every element of the product summed from zero, in the order of r, and added once:
/// it has the same bits whatever W is and however rows are split, and with -scale the negated ones.
/// B (rows, r) with rows ldb apart, e (r) or null for ones, A (r, width), W (rows, width).
template <class T>
void add_low_rank_delta(std::ptrdiff_t rows, std::ptrdiff_t width, std::ptrdiff_t r, const T* B, std::ptrdiff_t ldb,
                        const T* e, T scale, const T* A, std::ptrdiff_t lda, T* W, std::ptrdiff_t ldw, T* scratch) {
  GRAFT_DISPATCH(add_low_rank_delta<T>(rows, width, r, B, ldb, e, scale, A, lda, W, ldw, scratch));
}
GRAFT_SHARED_FUNCTION(add_low_rank_delta<float>)

/// The largest |x|; infinity as soon as one x is not finite.
template <class T>
[[nodiscard]] T largest_magnitude(std::ptrdiff_t count, const T* values) {
  return GRAFT_DISPATCH(largest_magnitude<T>(count, values));
}

/// Whether every element is finite.
template <class T>
[[nodiscard]] bool all_finite(std::ptrdiff_t count, const T* values) {
  return GRAFT_DISPATCH(all_finite<T>(count, values));
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
