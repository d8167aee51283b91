#pragma once

#include "low_rank.hpp"

#define GRAFT_KERNELS "narrow_low_rank.inc"
#include "for_each_isa.inc"

/// Low-rank updates of few rows whose matrices are bf16 or f16 and are read as they are stored: half the bytes.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// y += scale * ((x A^T) * e) B^T + scale * beta, with the bits of low_rank_updates over the same matrices in float.
/// x (n, in), A (r, in), packed_b: B (out, r) in the order of pack_b, e (r) or null for ones, beta (out) or null, y (n, out);
/// scratch: r float. Each row reads both matrices: it is for few rows.
template <class W>
void narrow_low_rank_update(std::ptrdiff_t n, std::ptrdiff_t in, std::ptrdiff_t out, std::ptrdiff_t r, const float* x,
                            std::ptrdiff_t ldx, const W* A, const W* packed_b, const float* e, float scale, const float* beta,
                            float* y, std::ptrdiff_t ldy, float* scratch) {
  for (std::ptrdiff_t i = 0; i < n; ++i)
    GRAFT_DISPATCH(narrow_low_rank_row<W>(in, out, r, detail::low_rank_panel, x + i * ldx, A, packed_b, e, scale, y + i * ldy,
                                          scratch));
  if (beta) add_scaled(n, out, scale, beta, 0, y, ldy);
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
