#pragma once

#include "products.hpp"

namespace graft::kernels {
/// The largest r of low_rank_row: beyond it product_nn sums in blocks.
inline constexpr std::ptrdiff_t low_rank_row_most = 512;
}  // namespace graft::kernels

#define GRAFT_KERNELS "low_rank_row.inc"
#include "for_each_isa.inc"

namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// y += scale * ((x A^T) * e) B^T for one row, in one call: at a small layer, the way to three kernels would cost as much
/// as they do. The bits are those of product_nt, a scaling and product_nn over the panels of B.
/// r <= low_rank_row_most; x (in), A (r, in), e (r) or null for ones, packed_b: B (out, r) in panels of `panel` columns,
/// each (r, columns); y (out); u: scratch for r T.
template <class T>
void low_rank_row(std::ptrdiff_t in, std::ptrdiff_t out, std::ptrdiff_t r, const T* x, const T* A, const T* e, T scale,
                  const T* packed_b, std::ptrdiff_t panel, T* y, T* u) {
  GRAFT_DISPATCH(low_rank_row<T>(in, out, r, x, A, e, scale, packed_b, panel, y, u));
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
