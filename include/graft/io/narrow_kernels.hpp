#pragma once

#include "../adapters/narrow.hpp"
#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "../kernels/narrow_low_rank.hpp"

/// Including this lets adapters be kept in bf16 and f16, as their files have them.
namespace graft::detail {

/// Calls f(null pointer to the type) for a narrow dtype.
template <class F>
void with_narrow(Dtype dtype, F f) {
  if (dtype == Dtype::bf16) f(static_cast<const bf16*>(nullptr));
  else f(static_cast<const f16*>(nullptr));
}

template <class = OnDemand>
void widen_narrow(Dtype dtype, Index count, const std::byte* x, float* y) {
  with_narrow(dtype, [&]<class W>(const W*) { kernels::widen<float, W>(count, reinterpret_cast<const W*>(x), y); });
}
GRAFT_SHARED_FUNCTION(widen_narrow<>)
template <class = OnDemand>
void update_narrow(Dtype dtype, const In<float>& x, Index r, const std::byte* a, const std::byte* packed_b, const float* e,
                   float scale, const float* beta, Out<float> y, float* scratch) {
  with_narrow(dtype, [&]<class W>(const W*) {
    kernels::narrow_low_rank_update<W>(x.rows(), x.cols(), y.cols(), r, x.data(), x.outerStride(), reinterpret_cast<const W*>(a),
                                       reinterpret_cast<const W*>(packed_b), e, scale, beta, y.data(), y.outerStride(), scratch);
  });
}
GRAFT_SHARED_FUNCTION(update_narrow<>)

inline constexpr NarrowKernels all_narrow_kernels{&widen_narrow<>, &update_narrow<>};
inline const bool has_narrow_kernels = (narrow_kernels = &all_narrow_kernels, true);

}  // namespace graft::detail
