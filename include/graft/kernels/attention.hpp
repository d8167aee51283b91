#pragma once

#include <algorithm>
#include <cmath>

#include "normalise.hpp"
#include "products.hpp"

namespace graft::kernels {

/// The shape of one sequence's attention.
struct AttentionShape {
  std::ptrdiff_t rows = 0;      ///< queries
  std::ptrdiff_t keys = 0;      ///< keys and values, cached ones included
  std::ptrdiff_t heads = 1;     ///< of the queries; a multiple of kv_heads
  std::ptrdiff_t kv_heads = 1;  ///< of the keys and values
  std::ptrdiff_t head_dim = 0;
  bool causal = true;         ///< query i sees the keys up to and including offset + i; else all
  std::ptrdiff_t offset = 0;  ///< the position of the first query among the keys
  double scale = 0;           ///< of the scores; 0: 1 / sqrt(head_dim)
};

inline namespace GRAFT_BUILD {

namespace detail {
inline constexpr std::ptrdiff_t attention_rows = 16;

[[nodiscard]] inline double attention_scale(const AttentionShape& s) {
  return s.scale != 0 ? s.scale : 1 / std::sqrt(double(s.head_dim));
}
// The keys that a query sees.
[[nodiscard]] inline std::ptrdiff_t attention_visible(const AttentionShape& s, std::ptrdiff_t row) {
  return s.causal ? std::min(s.keys, s.offset + row + 1) : s.keys;
}
// What `count` queries make of the keys of one head, softmax(scale * q k^T) in rows of as many keys as the last one sees:
// that number. The first sees `first` keys and each after it `more` more, as far as there are; behind them are zeros.
template <class T>
std::ptrdiff_t attention_weights(const AttentionShape& s, std::ptrdiff_t count, const T* q, std::ptrdiff_t ldq, const T* k,
                                 std::ptrdiff_t ldk, std::ptrdiff_t first, std::ptrdiff_t more, T* weights) {
  const T scale = T(attention_scale(s));
  const std::ptrdiff_t keys = std::min(s.keys, first + (count - 1) * more);
  const std::ptrdiff_t growing = more > 0 ? std::min(count, keys - first + 1) : 0;
  product_nt(count, keys, s.head_dim, q, ldq, k, ldk, static_cast<const T*>(nullptr), weights, keys, false);
  softmax(growing, first, weights, keys, weights, keys, scale, more);
  softmax(count - growing, keys, weights + growing * keys, keys, weights + growing * keys, keys, scale);
  for (std::ptrdiff_t i = 0; i < growing; ++i) std::fill(weights + i * keys + first + i, weights + (i + 1) * keys, T(0));
  return keys;
}
}  // namespace detail

/// The number of T that attention needs as scratch: a few rows of scores.
[[nodiscard]] constexpr std::ptrdiff_t attention_scratch(const AttentionShape& s) {
  return std::max(std::min(s.rows, detail::attention_rows), s.rows == 1 ? s.heads / s.kv_heads : 1) * s.keys;
}

/// Grouped-query attention of one sequence: y = softmax(scale * q k^T) v, head by head.
/// q and y (rows, heads * head_dim), k and v (keys, kv_heads * head_dim); query head h reads key head
/// h / (heads / kv_heads). y must not overlap the others. scratch: attention_scratch(shape) T. A query's
/// result has the same bits whatever other queries and later keys are in the call.
template <class T>
void attention(const AttentionShape& s, const T* q, std::ptrdiff_t ldq, const T* k, std::ptrdiff_t ldk,
               const T* v, std::ptrdiff_t ldv, T* y, std::ptrdiff_t ldy, T* scratch) {
  const std::ptrdiff_t d = s.head_dim, group = s.heads / s.kv_heads;
  const auto run = [&](std::ptrdiff_t count, const T* queries, std::ptrdiff_t ld_queries, std::ptrdiff_t kv_head, T* result,
                       std::ptrdiff_t ld_result, std::ptrdiff_t first, std::ptrdiff_t more) {
    const std::ptrdiff_t keys = detail::attention_weights(s, count, queries, ld_queries, k + kv_head * d, ldk, first, more, scratch);
    product_nn(count, d, keys, scratch, keys, v + kv_head * d, ldv, static_cast<const T*>(nullptr), result, ld_result, false);
  };
  if (s.rows == 1) {  // the query heads of a group are the rows: its keys are read once
    for (std::ptrdiff_t h = 0; h < s.kv_heads; ++h)
      run(group, q + h * group * d, d, h, y + h * group * d, d, detail::attention_visible(s, 0), 0);
    return;
  }
  for (std::ptrdiff_t h = 0; h < s.heads; ++h)
    for (std::ptrdiff_t i = 0; i < s.rows; i += detail::attention_rows)
      run(std::min(s.rows - i, detail::attention_rows), q + i * ldq + h * d, ldq, h / group,
          y + i * ldy + h * d, ldy, detail::attention_visible(s, i), s.causal ? 1 : 0);
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
