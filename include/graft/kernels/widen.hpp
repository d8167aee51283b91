#pragma once

#include "vector.hpp"

#define GRAFT_KERNELS "widen.inc"
#include "for_each_isa.inc"

namespace graft::kernels {

/// A weight W that kernels take under activations T: T itself, or with float also bf16 and f16.
template <class T, class W>
inline constexpr bool fits =
    std::is_same_v<T, W> || (std::is_same_v<T, float> && (std::is_same_v<W, bf16> || std::is_same_v<W, f16>));

inline namespace GRAFT_BUILD {

/// y = x, `count` elements; a narrow x is widened. They do not overlap.
template <class T, class W>
void widen(std::ptrdiff_t count, const W* x, T* y) {
  static_assert(fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  if constexpr (std::is_same_v<T, W>) std::memcpy(y, x, std::size_t(count) * sizeof(T));
  else GRAFT_DISPATCH(widen<W>(count, x, y));
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
