#pragma once

#include "backward.hpp"
#include "embedding.hpp"

namespace graft::kernels {

/// Where low_rank_embedding_backward adds: null for a gradient that is not wanted.
template <class T>
struct LowRankEmbeddingGradients {
  T* dA = nullptr;  ///< (r, num)
  T* dB = nullptr;  ///< (out, r)
};

inline namespace GRAFT_BUILD {

/// The number of T that low_rank_embedding_backward needs as scratch: bounded in n.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t low_rank_embedding_backward_scratch(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t r) {
  const std::ptrdiff_t rows = std::min(n, detail::backward_rows);
  return 2 * r * out + r * rows + panel_scratch<T>(rows, out);
}

/// Adds the gradients of low_rank_embedding_update's y[i] += scale * (column ids[i] of A)^T B^T:
///   column ids[i] of dA += scale * (g[i] B)^T,  dB += scale * g^T A[:, ids]^T
/// g (n, out) is the gradient of the loss by y; A (r, num), B (out, r) and their gradients are contiguous. The column of A
/// of `padding_id` gets none: torch's padding_idx, negative for no such id.
/// scratch: low_rank_embedding_backward_scratch<T>(n, out, r) T.
template <class T, class Ids>
void low_rank_embedding_backward(std::ptrdiff_t n, Ids ids, std::ptrdiff_t num, std::ptrdiff_t r, std::ptrdiff_t out, const T* A,
                                 const T* B, T scale, const T* g, std::ptrdiff_t ldg, const LowRankEmbeddingGradients<T>& to,
                                 T* scratch, std::ptrdiff_t padding_id = -1) {
  if (n <= 0 || r <= 0) return;
  const std::ptrdiff_t most = std::min(n, detail::backward_rows);
  T* const turned_b = scratch;              // B^T (r, out)
  T* const turned_db = turned_b + r * out;  // dB^T (r, out)
  T* const u = turned_db + r * out;         // g B (rows, r), then the columns of A that were read (r, rows)
  T* const panels = u + r * most;
  if (to.dA) transpose(out, r, B, r, turned_b, out);
  for (std::ptrdiff_t i = 0; i < n; i += most) {
    const std::ptrdiff_t rows = std::min(n - i, most);
    const T* const g_here = g + i * ldg;
    if (to.dA) {
      product_nt(rows, r, out, g_here, ldg, turned_b, out, static_cast<const T*>(nullptr), u, r, false);
      for (std::ptrdiff_t k = 0; k < rows; ++k) {
        const std::ptrdiff_t id = detail::id_of(ids, i + k);
        if (id == padding_id) continue;
        for (std::ptrdiff_t j = 0; j < r; ++j) to.dA[j * num + id] += scale * u[k * r + j];
      }
    }
    if (!to.dB) continue;
    for (std::ptrdiff_t k = 0; k < rows; ++k) {
      const T* const column = A + detail::id_of(ids, i + k);
      for (std::ptrdiff_t j = 0; j < r; ++j) u[j * rows + k] = scale * column[j * num];
    }
    detail::product_nn_either(r, out, rows, u, rows, g_here, ldg, turned_db, out, i > 0, panels);
  }
  if (!to.dB) return;
  transpose(r, out, turned_db, out, turned_b, r);
  add(1, out * r, to.dB, 0, turned_b, 0, to.dB, 0);
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
