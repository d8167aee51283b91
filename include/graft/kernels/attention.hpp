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
// From one row of scores to the next: an odd number of lines, or the rows of a tile would share few sets of the caches.
[[nodiscard]] constexpr std::ptrdiff_t attention_stride(std::ptrdiff_t keys) { return ((keys + 15) / 16 | 1) * 16; }
// Whether so many queries read the keys of a head that packing them costs less than summing the lanes of every score. Of keys
// of a few features nearly all of what is packed would be zeros, which take as much room as some rows of scores.
[[nodiscard]] constexpr bool attention_packs(const AttentionShape& s) {
  return s.rows > 1 && s.rows * (s.heads / s.kv_heads) >= 2 * dot_many_rows && s.head_dim >= 8 && s.head_dim <= dot_short;
}
// Keys of one head, where they stand or packed.
template <class T>
struct AttentionKeys {
  const T* data;
  std::ptrdiff_t ld;
  const T* panels = nullptr;  // of all of them
};
[[nodiscard]] constexpr std::ptrdiff_t attention_panels(const AttentionShape& s) {
  return attention_packs(s) ? dot_panels_scratch<float>(s.head_dim, s.keys) : 0;
}
template <class T>
[[nodiscard]] AttentionKeys<T> attention_keys(const AttentionShape& s, const T* k, std::ptrdiff_t ldk, T* panels) {
  if (!attention_packs(s) || isa() == Isa::baseline) return {k, ldk};  // few lanes are summed as fast as keys are packed
  pack_dot_panels(s.keys, s.head_dim, k, ldk, panels);
  return {k, ldk, panels};
}

// What `count` queries make of the keys of one head, softmax(scale * q k^T) in rows attention_stride(s.keys) apart, of as many
// keys as the last query sees: that number. The first sees `first` keys and each after it `more` more, as far as there are;
// behind them are zeros.
template <class T>
std::ptrdiff_t attention_weights(const AttentionShape& s, std::ptrdiff_t count, const T* q, std::ptrdiff_t ldq,
                                 const AttentionKeys<T>& k, std::ptrdiff_t first, std::ptrdiff_t more, T* weights) {
  const T* const none = nullptr;
  const T scale = T(attention_scale(s));
  const std::ptrdiff_t ld = attention_stride(s.keys), keys = std::min(s.keys, first + (count - 1) * more);
  const std::ptrdiff_t growing = more > 0 ? std::min(count, keys - first + 1) : 0;
  if (k.panels) {
    const std::ptrdiff_t whole = std::min(s.keys, (keys + dot_outputs - 1) / dot_outputs * dot_outputs);
    dots_over_panels(count, whole, s.head_dim, q, ldq, k.panels, none, weights, ld, false, static_cast<T*>(nullptr));
  } else {
    product_nt(count, keys, s.head_dim, q, ldq, k.data, k.ld, none, weights, ld, false);
  }
  softmax(growing, first, weights, ld, weights, ld, scale, more);
  softmax(count - growing, keys, weights + growing * ld, ld, weights + growing * ld, ld, scale);
  for (std::ptrdiff_t i = 0; i < growing; ++i) std::fill(weights + i * ld + first + i, weights + i * ld + keys, T(0));
  return keys;
}
}  // namespace detail

/// The number of T that attention needs as scratch: a few rows of scores and, for many queries, the keys of a head.
[[nodiscard]] constexpr std::ptrdiff_t attention_scratch(const AttentionShape& s) {
  const std::ptrdiff_t rows = std::max(std::min(s.rows, detail::attention_rows), s.rows == 1 ? s.heads / s.kv_heads : 1);
  return rows * detail::attention_stride(s.keys) + detail::attention_panels(s);
}

/// Grouped-query attention of one sequence: y = softmax(scale * q k^T) v, head by head.
/// q and y (rows, heads * head_dim), k and v (keys, kv_heads * head_dim); query head h reads key head
/// h / (heads / kv_heads). y must not overlap the others. scratch: attention_scratch(shape) T. A query's
/// result has the same bits whatever other queries and later keys are in the call.
template <class T>
void attention(const AttentionShape& s, const T* q, std::ptrdiff_t ldq, const T* k, std::ptrdiff_t ldk,
               const T* v, std::ptrdiff_t ldv, T* y, std::ptrdiff_t ldy, T* scratch) {
  const std::ptrdiff_t d = s.head_dim, group = s.heads / s.kv_heads;
  const T* const none = nullptr;
  T* const weights = scratch + detail::attention_panels(s);
  for (std::ptrdiff_t kv_head = 0; kv_head < s.kv_heads; ++kv_head) {
    const auto keys = detail::attention_keys(s, k + kv_head * d, ldk, scratch);
    const auto run = [&](std::ptrdiff_t count, const T* queries, std::ptrdiff_t ld_queries, T* result, std::ptrdiff_t ld_result,
                         std::ptrdiff_t first, std::ptrdiff_t more) {
      const std::ptrdiff_t seen = detail::attention_weights(s, count, queries, ld_queries, keys, first, more, weights);
      product_nn(count, d, seen, weights, detail::attention_stride(s.keys), v + kv_head * d, ldv, none, result, ld_result, false);
    };
    const std::ptrdiff_t first_head = kv_head * group * d;
    if (s.rows == 1) {  // the query heads of a group are the rows: its keys are read once
      run(group, q + first_head, d, y + first_head, d, detail::attention_visible(s, 0), 0);
      continue;
    }
    for (std::ptrdiff_t h = first_head; h < first_head + group * d; h += d)
      for (std::ptrdiff_t i = 0; i < s.rows; i += detail::attention_rows)
        run(std::min(s.rows - i, detail::attention_rows), q + i * ldq + h, ldq, y + i * ldy + h, ldy,
            detail::attention_visible(s, i), s.causal ? 1 : 0);
  }
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
