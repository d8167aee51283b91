#pragma once

#include "vector.hpp"

namespace graft::kernels {
inline namespace GRAFT_ISA {

namespace detail {
// Four registers to the four sums of their lanes. The order of summation is the same for each of the four.
typedef float Float4 __attribute__((vector_size(16)));
typedef double Double2 __attribute__((vector_size(16)));

GRAFT_INLINE void sums_of_4(Float4 a, Float4 b, Float4 c, Float4 d, float* sums) {
  const Float4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Float4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const Float4 all =
      __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
  std::memcpy(sums, &all, sizeof all);
}
GRAFT_INLINE void sums_of_4(Double2 a, Double2 b, Double2 c, Double2 d, double* sums) {
  const Double2 ab = __builtin_shufflevector(a, b, 0, 2) + __builtin_shufflevector(a, b, 1, 3);
  const Double2 cd = __builtin_shufflevector(c, d, 0, 2) + __builtin_shufflevector(c, d, 1, 3);
  std::memcpy(sums, &ab, sizeof ab);
  std::memcpy(sums + 2, &cd, sizeof cd);
}
#if GRAFT_VECTOR_BYTES >= 32
typedef float Float8 __attribute__((vector_size(32)));
typedef double Double4 __attribute__((vector_size(32)));

GRAFT_INLINE Float8 halves_of_2(Float8 a, Float8 b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
         __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
}
GRAFT_INLINE void sums_of_4(Float8 a, Float8 b, Float8 c, Float8 d, float* sums) {
  const Float8 ab = halves_of_2(a, b), cd = halves_of_2(c, d);
  Float8 q = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) +
             __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);  // a a c c b b d d
  q += __builtin_shufflevector(q, q, 1, 0, 3, 2, 5, 4, 7, 6);
  const Float4 all = __builtin_shufflevector(q, q, 0, 4, 2, 6);
  std::memcpy(sums, &all, sizeof all);
}
GRAFT_INLINE void sums_of_4(Double4 a, Double4 b, Double4 c, Double4 d, double* sums) {
  const Double4 ab = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
  const Double4 cd = __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);
  const Double4 all =
      __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
  std::memcpy(sums, &all, sizeof all);
}
#endif
#if GRAFT_VECTOR_BYTES == 64
typedef float Float16 __attribute__((vector_size(64)));
typedef double Double8 __attribute__((vector_size(64)));

GRAFT_INLINE Float16 halves_of_2(Float16 a, Float16 b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
         __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
GRAFT_INLINE void sums_of_4(Float16 a, Float16 b, Float16 c, Float16 d, float* sums) {
  const Float16 ab = halves_of_2(a, b), cd = halves_of_2(c, d);
  Float16 q = __builtin_shufflevector(ab, cd, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
              __builtin_shufflevector(ab, cd, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  q += __builtin_shufflevector(q, q, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  q += __builtin_shufflevector(q, q, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
  const Float4 all = __builtin_shufflevector(q, q, 0, 4, 8, 12);
  std::memcpy(sums, &all, sizeof all);
}
GRAFT_INLINE void sums_of_4(Double8 a, Double8 b, Double8 c, Double8 d, double* sums) {
  const Double8 ab = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
                     __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
  const Double8 cd = __builtin_shufflevector(c, d, 0, 1, 2, 3, 8, 9, 10, 11) +
                     __builtin_shufflevector(c, d, 4, 5, 6, 7, 12, 13, 14, 15);
  Double8 q = __builtin_shufflevector(ab, cd, 0, 1, 4, 5, 8, 9, 12, 13) +
              __builtin_shufflevector(ab, cd, 2, 3, 6, 7, 10, 11, 14, 15);
  q += __builtin_shufflevector(q, q, 1, 0, 3, 2, 5, 4, 7, 6);
  const Double4 all = __builtin_shufflevector(q, q, 0, 2, 4, 6);
  std::memcpy(sums, &all, sizeof all);
}
#endif
}  // namespace detail

/// The sum of the lanes.
template <class T>
GRAFT_INLINE T sum_of_lanes(const Vector<T>& v) {
  const Vector<T> zero{};
  T sums[4];
  detail::sums_of_4(v, zero, zero, zero, sums);
  return sums[0];
}
/// The largest lane; lanes that are NaN may be passed over.
template <class T>
GRAFT_INLINE T largest_lane(const Vector<T>& v) {
  T largest = v[0];
  for (std::ptrdiff_t i = 1; i < lanes<T>; ++i)
    if (v[i] > largest) largest = v[i];
  return largest;
}

}  // namespace GRAFT_ISA
}  // namespace graft::kernels
