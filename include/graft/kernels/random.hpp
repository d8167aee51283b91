#pragma once

#include "../core/compile_once.hpp"
#include "vector.hpp"

#define GRAFT_KERNELS "random.inc"
#include "for_each_isa.inc"

/// Random numbers that depend on (key, stream, counter) alone: Philox4x32-10. They have the same
/// bits in every instruction set.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// y[i] = (2 u - 1) * bound, rounded once to T, with u uniform in [0, 1): number first + i of a sequence that takes two from
/// each counter, the front words' and then the back words'.
template <class T>
void random_uniform(std::uint64_t key, std::uint64_t stream, std::uint64_t first, std::ptrdiff_t count, double bound, T* y) {
  GRAFT_DISPATCH(random_uniform<T>(key, stream, first, count, bound, y));
}
GRAFT_SHARED_FUNCTION(random_uniform<float>)

/// The two numbers in [0, 1) of each counter from `first` on: u[i] of its front words, v[i] of its back words.
inline void random_units(std::uint64_t key, std::uint64_t stream, std::uint64_t first, std::ptrdiff_t count, double* u, double* v) {
  GRAFT_DISPATCH(random_units(key, stream, first, count, u, v));
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
