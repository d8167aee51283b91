#pragma once

#include <algorithm>
#include <cmath>

#include "vector.hpp"

/// Folding adapters into weights: W += scale * (B * e) A, and factors of rows and columns.
namespace graft::kernels {
inline namespace GRAFT_ISA {

namespace detail {
inline constexpr std::ptrdiff_t merge_rows = GRAFT_VECTOR_BYTES == 64 ? 12 : 6;
inline constexpr std::ptrdiff_t merge_most_rows = 12, merge_most_cols = 32;

/// A (r, width) in strips of two registers' columns, each strip row by row; zeros behind the last column.
template <class T>
void pack_strips(std::ptrdiff_t r, std::ptrdiff_t width, const T* A, std::ptrdiff_t lda, T* packed) {
  constexpr std::ptrdiff_t strip = 2 * lanes<T>;
  for (std::ptrdiff_t i = 0; i < width; i += strip) {
    const std::ptrdiff_t cols = std::min(width - i, strip);
    for (std::ptrdiff_t j = 0; j < r; ++j, packed += strip)
      for (std::ptrdiff_t c = 0; c < strip; ++c) packed[c] = c < cols ? A[j * lda + i + c] : T(0);
  }
}

/// M rows of W: the sums start from zero and are added to W once.
template <int M, class T>
void add_delta_rows(std::ptrdiff_t width, std::ptrdiff_t r, const T* factors, const T* packed, T* W,
                    std::ptrdiff_t ldw) {
  constexpr std::ptrdiff_t strip = 2 * lanes<T>;
  for (std::ptrdiff_t i = 0; i < width; i += strip, packed += r * strip) {
    Vector<T> sums[M][2]{};
    for (std::ptrdiff_t j = 0; j < r; ++j) {
      const Vector<T> left = load(packed + j * strip), right = load(packed + j * strip + lanes<T>);
      GRAFT_UNROLL for (int m = 0; m < M; ++m) {
        const Vector<T> factor = broadcast(factors[m * r + j]);
        sums[m][0] = multiply_add(factor, left, sums[m][0]);
        sums[m][1] = multiply_add(factor, right, sums[m][1]);
      }
    }
    const std::ptrdiff_t cols = width - i;
    GRAFT_UNROLL for (int m = 0; m < M; ++m) {
      T* to = W + m * ldw + i;
      if (cols >= strip) {
        store(to, load(to) + sums[m][0]);
        store(to + lanes<T>, load(to + lanes<T>) + sums[m][1]);
        continue;
      }
      const std::ptrdiff_t first = std::min(cols, lanes<T>), second = cols - first;
      store_some(to, load_some(to, first) + sums[m][0], first);
      if (second > 0) store_some(to + first, load_some(to + first, second) + sums[m][1], second);
    }
  }
}
}  // namespace detail

/// The number of T that add_low_rank_delta needs as scratch, the same in every translation unit.
[[nodiscard]] constexpr std::ptrdiff_t low_rank_delta_scratch(std::ptrdiff_t width, std::ptrdiff_t r) {
  const std::ptrdiff_t strips = (width + detail::merge_most_cols - 1) / detail::merge_most_cols;
  return r * (strips * detail::merge_most_cols + detail::merge_most_rows);
}

/// W += scale * (B * e) A with every element of the product summed from zero, in the order of r, and added once:
/// it has the same bits whatever W is and however rows are split, and with -scale the negated ones.
/// B (rows, r) with rows ldb apart, e (r) or null for ones, A (r, width), W (rows, width).
template <class T>
void add_low_rank_delta(std::ptrdiff_t rows, std::ptrdiff_t width, std::ptrdiff_t r, const T* B, std::ptrdiff_t ldb,
                        const T* e, T scale, const T* A, std::ptrdiff_t lda, T* W, std::ptrdiff_t ldw, T* scratch) {
  if (r <= 0 || rows <= 0) return;
  T* factors = scratch;
  T* packed = scratch + detail::merge_most_rows * r;
  detail::pack_strips(r, width, A, lda, packed);
  for (std::ptrdiff_t o = 0; o < rows;) {
    const std::ptrdiff_t count = rows - o >= detail::merge_rows ? detail::merge_rows : 1;
    for (std::ptrdiff_t m = 0; m < count; ++m)
      for (std::ptrdiff_t j = 0; j < r; ++j) {
        const T factor = e ? B[(o + m) * ldb + j] * e[j] : B[(o + m) * ldb + j];
        factors[m * r + j] = factor * scale;
      }
    if (count == 1) detail::add_delta_rows<1>(width, r, factors, packed, W + o * ldw, ldw);
    else detail::add_delta_rows<int(detail::merge_rows)>(width, r, factors, packed, W + o * ldw, ldw);
    o += count;
  }
}

/// Whether every element is finite.
template <class T>
[[nodiscard]] bool all_finite(std::ptrdiff_t count, const T* values) {
  Vector<T> zero{};  // x - x is 0 for finite x, else NaN; sums keep it
  std::ptrdiff_t i = 0;
  for (; i + lanes<T> <= count; i += lanes<T>) {
    const Vector<T> v = load(values + i);
    zero += v - v;
  }
  T sum = 0;
  for (std::ptrdiff_t lane = 0; lane < lanes<T>; ++lane) sum += zero[lane];
  for (; i < count; ++i) sum += values[i] - values[i];
  return sum == T(0);
}

}  // namespace GRAFT_ISA
}  // namespace graft::kernels
