#pragma once

#include <algorithm>

#include "elementwise.hpp"
#include "products.hpp"
#include "transpose.hpp"

/// The low-rank updates of LoRA and AdaLoRA over any base product: y += scale * ((x A^T) * e) B^T.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

namespace detail {
// So many rows share one transposed panel of B; so many columns of y are updated at once.
inline constexpr std::ptrdiff_t low_rank_rows = 128, low_rank_panel = 128;
}  // namespace detail

/// The number of T that low_rank_update needs as scratch for x (n, in), A (r, in), B (out, r): bounded in n
/// and out, the same in every translation unit.
[[nodiscard]] constexpr std::ptrdiff_t low_rank_scratch(std::ptrdiff_t n, std::ptrdiff_t /*in*/,
                                                        std::ptrdiff_t out, std::ptrdiff_t r) {
  return r * (std::min(n, detail::low_rank_rows) + std::min(out, detail::low_rank_panel));
}

namespace detail {
// u[i,j] *= scale * e[j]
template <class T>
void scale_low_rank(std::ptrdiff_t n, std::ptrdiff_t r, const T* e, T scale, T* u) {
  for (std::ptrdiff_t i = 0; i < n; ++i)
    for (std::ptrdiff_t j = 0; j < r; ++j) u[i * r + j] *= e ? scale * e[j] : scale;
}
}  // namespace detail

/// y += u B^T. u (n, r), contiguous; B (out, r), row-major; y (n, out). Each element takes r in order,
/// whatever n is. `panel` is scratch for r * min(out, 128) T.
template <class T>
void low_rank_expand(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t r, const T* u, const T* B, T* y,
                     std::ptrdiff_t ldy, T* panel) {
  for (std::ptrdiff_t o = 0; o < out; o += detail::low_rank_panel) {
    const std::ptrdiff_t cols = std::min(out - o, detail::low_rank_panel);
    transpose(cols, r, B + o * r, r, panel, cols);
    product_nn(n, cols, r, u, r, panel, cols, static_cast<const T*>(nullptr), y + o, ldy, true);
  }
}

/// y += scale * ((x A^T) * e) B^T + scale * beta.
/// x (n, in), A (r, in) and B (out, r) contiguous row-major, e (r): AdaLoRA's E, or null for ones; beta
/// (out): the bias of lora_B, or null; y (n, out); scratch: low_rank_scratch(n, in, out, r) T. With r = 0
/// only beta adds.
template <class T>
void low_rank_update(std::ptrdiff_t n, std::ptrdiff_t in, std::ptrdiff_t out, std::ptrdiff_t r, const T* x,
                     std::ptrdiff_t ldx, const T* A, const T* B, const T* e, T scale, const T* beta, T* y,
                     std::ptrdiff_t ldy, T* scratch) {
  T* u = scratch;
  T* panel = scratch + std::min(n, detail::low_rank_rows) * r;
  for (std::ptrdiff_t i = 0; i < n; i += detail::low_rank_rows) {
    const std::ptrdiff_t rows = std::min(n - i, detail::low_rank_rows);
    if (r > 0) {
      product_nt(rows, r, in, x + i * ldx, ldx, A, in, static_cast<const T*>(nullptr), u, r, false);
      detail::scale_low_rank(rows, r, e, scale, u);
      low_rank_expand(rows, out, r, u, B, y + i * ldy, ldy, panel);
    }
    if (beta) add_scaled(rows, out, scale, beta, 0, y + i * ldy, ldy);
  }
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
