#pragma once

#include "attention.hpp"
#include "elementwise.hpp"
#include "normalise_backward.hpp"
#include "transpose.hpp"

namespace graft::kernels {

/// Where attention_backward adds: null for a gradient that is not wanted. Rows as those of q, k and v.
template <class T>
struct AttentionGradients {
  T* dq = nullptr;
  std::ptrdiff_t lddq = 0;
  T* dk = nullptr;
  std::ptrdiff_t lddk = 0;
  T* dv = nullptr;
  std::ptrdiff_t lddv = 0;
};

inline namespace GRAFT_BUILD {

namespace detail {
// Queries whose weights are made anew at once: some 32 Ki of them, so that they stay in the second-level cache.
[[nodiscard]] constexpr std::ptrdiff_t attention_backward_rows(const AttentionShape& s) {
  return std::min(s.rows, std::clamp<std::ptrdiff_t>(32768 / std::max<std::ptrdiff_t>(s.keys, 1) / 16 * 16, attention_rows, 64));
}

// The gradient of the scores from that of the weights p (count, keys), all of them in rows ld apart:
// to[i,j] = scale * p[i,j] * (d[i,j] - the sum of p[i] d[i]),
// and zeros behind the keys that a query sees. That sum is dy[i] y[i] too, but only this one leaves nothing of what cancels
// where one key has all the weight.
template <class T>
void attention_scores_backward(std::ptrdiff_t count, std::ptrdiff_t keys, std::ptrdiff_t first, std::ptrdiff_t more, T scale,
                               std::ptrdiff_t ld, const T* p, const T* d, T* to) {
  for (std::ptrdiff_t i = 0; i < count; ++i, p += ld, d += ld, to += ld) {
    const std::ptrdiff_t seen = std::min(keys, first + i * more);
    std::fill(to, to + keys, T(0));
    softmax_backward<T>(1, seen, p, keys, d, keys, to, keys);
    kernels::scale<T>(1, seen, scale, to, keys, to, keys);
  }
}
}  // namespace detail

/// The number of T that attention_backward needs as scratch: a few rows of scores and, for many queries, the keys of a head.
[[nodiscard]] constexpr std::ptrdiff_t attention_backward_scratch(const AttentionShape& s) {
  return 3 * detail::attention_backward_rows(s) * detail::attention_stride(s.keys) + detail::attention_panels(s);
}

/// Adds the gradients of attention's y = softmax(scale * q k^T) v. q, k, v: what it was given; dy (rows, heads * head_dim) is
/// the gradient of the loss by y. The weights are made anew; query heads of a group add to one key head.
/// scratch: attention_backward_scratch(shape) T.
template <class T>
void attention_backward(const AttentionShape& s, const T* q, std::ptrdiff_t ldq, const T* k, std::ptrdiff_t ldk, const T* v,
                        std::ptrdiff_t ldv, const T* dy, std::ptrdiff_t lddy, const AttentionGradients<T>& to, T* scratch) {
  const std::ptrdiff_t d = s.head_dim, group = s.heads / s.kv_heads, more = s.causal ? 1 : 0;
  const std::ptrdiff_t most = detail::attention_backward_rows(s), ld = detail::attention_stride(s.keys);
  const T* const none = nullptr;
  T *const weights = scratch + detail::attention_panels(s), *const scores = weights + most * ld, *const turned = scores + most * ld;
  detail::AttentionKeys<T> packed{};
  for (std::ptrdiff_t h = 0; h < s.heads; ++h) {
    const std::ptrdiff_t kv = h / group * d;
    if (h % group == 0) packed = detail::attention_keys(s, k + kv, ldk, scratch);
    for (std::ptrdiff_t i = 0; i < s.rows; i += most) {
      const std::ptrdiff_t count = std::min(s.rows - i, most), first = detail::attention_visible(s, i);
      const T *const q_here = q + i * ldq + h * d, *const dy_here = dy + i * lddy + h * d;
      const std::ptrdiff_t keys = detail::attention_weights(s, count, q_here, ldq, packed, first, more, weights);
      if (to.dv) {
        transpose(count, keys, weights, ld, turned, count);
        product_nn(keys, d, count, turned, count, dy_here, lddy, none, to.dv + kv, to.lddv, true);
      }
      if (!to.dq && !to.dk) continue;
      product_nt(count, keys, d, dy_here, lddy, v + kv, ldv, none, scores, ld, false);
      T* const by_scores = turned;  // free again
      detail::attention_scores_backward(count, keys, first, more, T(detail::attention_scale(s)), ld, weights, scores, by_scores);
      if (to.dq) product_nn(count, d, keys, by_scores, ld, k + kv, ldk, none, to.dq + i * to.lddq + h * d, to.lddq, true);
      if (!to.dk) continue;
      transpose(count, keys, by_scores, ld, scores, count);
      product_nn(keys, d, count, scores, count, q_here, ldq, none, to.dk + kv, to.lddk, true);
    }
  }
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
