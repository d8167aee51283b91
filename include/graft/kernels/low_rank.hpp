#pragma once

#include <algorithm>
#include <span>

#include "../core/compile_once.hpp"
#include "elementwise.hpp"
#include "low_rank_row.hpp"
#include "products.hpp"
#include "transpose.hpp"

/// The low-rank updates of LoRA and AdaLoRA over any base product: y += scale * ((x A^T) * e) B^T.
namespace graft::kernels {

/// One of the low-rank updates that low_rank_updates adds.
template <class T>
struct LowRankTerm {
  std::ptrdiff_t r = 0;
  const T* A = nullptr;         ///< (r, in)
  const T* packed_b = nullptr;  ///< B (out, r) by pack_b, or null
  const T* e = nullptr;         ///< (r): AdaLoRA's E, or null for ones
  T scale = T(1);
  const T* beta = nullptr;  ///< (out): the bias of lora_B, or null
  const T* B = nullptr;     ///< (out, r), as it is stored: read where there is no `packed_b`
};

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

/// B (out, r), row-major, in the order in which updates read it: pack it once, whenever B has changed. `packed`
/// takes as many T as B has.
template <class T>
void pack_b(std::ptrdiff_t out, std::ptrdiff_t r, const T* B, T* packed) {
  for (std::ptrdiff_t o = 0; o < out; o += detail::low_rank_panel) {
    const std::ptrdiff_t cols = std::min(out - o, detail::low_rank_panel);
    transpose(cols, r, B + o * r, r, packed + o * r, cols);
  }
}

/// The same for B of a narrow type, element by element.
template <class W>
void pack_narrow_b(std::ptrdiff_t out, std::ptrdiff_t r, const W* B, W* packed) {
  for (std::ptrdiff_t o = 0; o < out; o += detail::low_rank_panel) {
    const std::ptrdiff_t cols = std::min(out - o, detail::low_rank_panel);
    for (std::ptrdiff_t j = 0; j < r; ++j)
      for (std::ptrdiff_t c = 0; c < cols; ++c) *packed++ = B[(o + c) * r + j];
  }
}

/// y += u B^T. u (n, r) with rows ldu apart; packed: B by pack_b; y (n, out). Each element takes r in order,
/// whatever n is.
template <class T>
void low_rank_expand_packed(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t r, const T* u,
                            std::ptrdiff_t ldu, const T* packed, T* y, std::ptrdiff_t ldy) {
  for (std::ptrdiff_t o = 0; o < out; o += detail::low_rank_panel) {
    const std::ptrdiff_t cols = std::min(out - o, detail::low_rank_panel);
    product_nn(n, cols, r, u, ldu, packed + o * r, cols, static_cast<const T*>(nullptr), y + o, ldy, true);
  }
}

/// y += u B^T with B (out, r) as it is stored; the same bits. u (n, r), contiguous. `panel` is scratch for
/// r * min(out, 128) T.
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
GRAFT_SHARED_FUNCTION(low_rank_update<float>)

/// The number of T that low_rank_updates needs as scratch; `ranks`: the sum of the terms' r, `unpacked`: the largest r of
/// those whose B is not packed. Bounded in n.
[[nodiscard]] constexpr std::ptrdiff_t low_rank_updates_scratch(std::ptrdiff_t n, std::ptrdiff_t ranks,
                                                                std::ptrdiff_t unpacked = 0) {
  return ranks * std::min(n, detail::low_rank_rows) + unpacked * detail::low_rank_panel;
}
/// The same for these terms.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t low_rank_updates_scratch(std::ptrdiff_t n, std::span<const LowRankTerm<T>> terms) {
  std::ptrdiff_t ranks = 0, unpacked = 0;
  for (const LowRankTerm<T>& term : terms) {
    ranks += term.r;
    if (!term.packed_b) unpacked = std::max(unpacked, term.r);
  }
  return low_rank_updates_scratch(n, ranks, unpacked);
}

/// y = (y + sum of the terms' updates) * columns: the updates of several adapters in one pass over y. The terms are
/// added one after the other, so the bits are those of as many calls of low_rank_update.
/// columns (out): factors of DoRA or IA3, or null for ones; scratch: low_rank_updates_scratch(n, terms) T.
template <class T>
void low_rank_updates(std::ptrdiff_t n, std::ptrdiff_t in, std::ptrdiff_t out, std::span<const LowRankTerm<T>> terms,
                      const T* x, std::ptrdiff_t ldx, const T* columns, T* y, std::ptrdiff_t ldy, T* scratch) {
  if (n == 1 && terms.size() == 1 && terms[0].packed_b && terms[0].r > 0 && terms[0].r <= low_rank_row_most) {
    const LowRankTerm<T>& term = terms[0];
    low_rank_row(in, out, term.r, x, term.A, term.e, term.scale, term.packed_b, detail::low_rank_panel, y, scratch);
    if (term.beta) add_scaled(1, out, term.scale, term.beta, 0, y, 0);
    if (columns) scale_columns(1, out, y, 0, columns, T(1), y, 0);
    return;
  }
  for (std::ptrdiff_t i = 0; i < n; i += detail::low_rank_rows) {
    const std::ptrdiff_t rows = std::min(n - i, detail::low_rank_rows);
    T* u = scratch;
    for (const LowRankTerm<T>& term : terms) {
      if (term.r == 0) continue;
      product_nt(rows, term.r, in, x + i * ldx, ldx, term.A, in, static_cast<const T*>(nullptr), u, term.r, false);
      detail::scale_low_rank(rows, term.r, term.e, term.scale, u);
      u += rows * term.r;
    }
    T* const turned = u;
    // a panel of y stays in the first-level cache until all terms have been there
    for (std::ptrdiff_t o = 0; o < out; o += detail::low_rank_panel) {
      const std::ptrdiff_t cols = std::min(out - o, detail::low_rank_panel);
      T* const to = y + i * ldy + o;
      u = scratch;
      for (const LowRankTerm<T>& term : terms) {
        if (term.r > 0) {
          if (!term.packed_b) transpose(cols, term.r, term.B + o * term.r, term.r, turned, cols);
          const T* const panel = term.packed_b ? term.packed_b + o * term.r : turned;
          product_nn(rows, cols, term.r, u, term.r, panel, cols, static_cast<const T*>(nullptr), to, ldy, true);
        }
        if (term.beta) add_scaled(rows, cols, term.scale, term.beta + o, 0, to, ldy);
        u += rows * term.r;
      }
    }
    // whole rows: panels of y whose rows are a power of two apart share few sets of the first-level cache
    if (columns) scale_columns(rows, out, y + i * ldy, ldy, columns, T(1), y + i * ldy, ldy);
  }
}
GRAFT_SHARED_FUNCTION(low_rank_updates<float>)

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
