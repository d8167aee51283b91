#pragma once

#include "low_rank.hpp"

/// Embeddings. `ids` is a pointer to integers or a function from a row's number to its id; every id must be
/// in [0, num): the caller has checked it.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

namespace detail {
template <class Ids>
GRAFT_INLINE std::ptrdiff_t id_of(const Ids& ids, std::ptrdiff_t i) {
  if constexpr (std::is_pointer_v<Ids>)
    return std::ptrdiff_t(ids[i]);
  else
    return std::ptrdiff_t(ids(i));
}
}  // namespace detail

/// The number of T that low_rank_embedding_update needs as scratch.
[[nodiscard]] constexpr std::ptrdiff_t low_rank_embedding_scratch(std::ptrdiff_t n, std::ptrdiff_t out,
                                                                  std::ptrdiff_t r) {
  return low_rank_scratch(n, 0, out, r);
}

/// y[i] = row ids[i] of w (num, out), widened when W is narrow. y (n, out).
template <class T, class W, class Ids>
void gather_rows(std::ptrdiff_t n, Ids ids, std::ptrdiff_t out, const W* w, std::ptrdiff_t ldw, T* y,
                 std::ptrdiff_t ldy) {
  for (std::ptrdiff_t i = 0; i < n; ++i) widen<T, W>(out, w + detail::id_of(ids, i) * ldw, y + i * ldy);
}

/// y[i] += scale * (column ids[i] of A)^T B^T: LoRA on an embedding.
/// A (r, num) and B (out, r) contiguous row-major, y (n, out); scratch: low_rank_embedding_scratch(n, out, r)
/// T.
template <class T, class Ids>
void low_rank_embedding_update(std::ptrdiff_t n, Ids ids, std::ptrdiff_t num, std::ptrdiff_t r,
                               std::ptrdiff_t out, const T* A, const T* B, T scale, T* y, std::ptrdiff_t ldy,
                               T* scratch) {
  if (r <= 0) return;
  constexpr std::ptrdiff_t chunk = detail::low_rank_rows;
  T* u = scratch;
  T* panel = scratch + std::min(n, chunk) * r;
  for (std::ptrdiff_t i = 0; i < n; i += chunk) {
    const std::ptrdiff_t rows = std::min(n - i, chunk);
    for (std::ptrdiff_t k = 0; k < rows; ++k) {
      const T* column = A + detail::id_of(ids, i + k);
      for (std::ptrdiff_t j = 0; j < r; ++j) u[k * r + j] = scale * column[j * num];
    }
    low_rank_expand(rows, out, r, u, B, y + i * ldy, ldy, panel);
  }
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
