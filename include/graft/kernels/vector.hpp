#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "../core/half.hpp"

// Everything whose machine code depends on the compile flags lives in an inline namespace that names the
// instruction set: translation units built with different flags may then be linked into one program.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && \
    defined(__FMA__) && defined(__F16C__)
#define GRAFT_ISA avx512
#define GRAFT_VECTOR_BYTES 64
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define GRAFT_ISA avx2
#define GRAFT_VECTOR_BYTES 32
#elif defined(__AVX__) && defined(__FMA__)
#define GRAFT_ISA avx_fma
#define GRAFT_VECTOR_BYTES 32
#elif defined(__AVX__)
#define GRAFT_ISA avx
#define GRAFT_VECTOR_BYTES 32
#elif defined(__SSE4_2__)
#define GRAFT_ISA sse4
#define GRAFT_VECTOR_BYTES 16
#elif defined(__SSE2__)
#define GRAFT_ISA sse2
#define GRAFT_VECTOR_BYTES 16
#else
#define GRAFT_ISA portable
#define GRAFT_VECTOR_BYTES 16
#endif

// Tiles of accumulators stay in registers only when their loops are unrolled, which -O2 does not do by
// itself.
#define GRAFT_UNROLL _Pragma("GCC unroll 32")
#define GRAFT_INLINE [[gnu::always_inline]] inline

namespace graft::kernels {
inline namespace GRAFT_ISA {

namespace detail {
template <class T>
struct VectorTypes;
template <>
struct VectorTypes<float> {
  typedef float vector __attribute__((vector_size(GRAFT_VECTOR_BYTES)));
  typedef std::int32_t mask __attribute__((vector_size(GRAFT_VECTOR_BYTES)));
};
template <>
struct VectorTypes<double> {
  typedef double vector __attribute__((vector_size(GRAFT_VECTOR_BYTES)));
  typedef std::int64_t mask __attribute__((vector_size(GRAFT_VECTOR_BYTES)));
};
}  // namespace detail

/// One register of T; arithmetic and comparisons act lane by lane.
template <class T>
using Vector = typename detail::VectorTypes<T>::vector;
/// The integers that lie over a Vector<T>; a comparison's result.
template <class T>
using Mask = typename detail::VectorTypes<T>::mask;
/// The number of T in a register.
template <class T>
inline constexpr std::ptrdiff_t lanes = GRAFT_VECTOR_BYTES / sizeof(T);

/// Every lane holds `value`.
template <class T>
GRAFT_INLINE Vector<T> broadcast(T value) {
  return value - Vector<T>{};  // not +: the sign of -0 stays
}

/// a * b + c with one rounding wherever the instruction set has it. Written out, because results may depend
/// on it: whether the compiler contracts by itself differs from one place to the next.
GRAFT_INLINE Vector<float> multiply_add(Vector<float> a, Vector<float> b, Vector<float> c) {
#if defined(__FMA__) && GRAFT_VECTOR_BYTES == 64
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__) && GRAFT_VECTOR_BYTES == 32
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}
GRAFT_INLINE Vector<double> multiply_add(Vector<double> a, Vector<double> b, Vector<double> c) {
#if defined(__FMA__) && GRAFT_VECTOR_BYTES == 64
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__) && GRAFT_VECTOR_BYTES == 32
  return _mm256_fmadd_pd(a, b, c);
#else
  return a * b + c;
#endif
}

/// The value, kept out of memory operands: a load that many instructions repeat costs more than a register.
template <class V>
GRAFT_INLINE V in_register(V v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#endif
  return v;
}

namespace detail {
#if GRAFT_VECTOR_BYTES == 32
alignas(32) inline constexpr std::int32_t lane_masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
GRAFT_INLINE __m256i first_lanes(std::ptrdiff_t count, std::ptrdiff_t words_per_lane) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lane_masks + 8 - count * words_per_lane));
}
#endif

// The narrow types' bits, before and after they are widened to one 32-bit lane each.
typedef std::uint32_t WideBits __attribute__((vector_size(GRAFT_VECTOR_BYTES)));
#if GRAFT_VECTOR_BYTES == 16
typedef std::uint16_t HalfBits __attribute__((vector_size(16)));  // the upper half is unused
#else
typedef std::uint16_t HalfBits __attribute__((vector_size(GRAFT_VECTOR_BYTES / 2)));
#endif
GRAFT_INLINE HalfBits load_bits(const void* p) {
#if GRAFT_VECTOR_BYTES == 16
  typedef std::uint64_t Pair __attribute__((vector_size(16)));
  std::uint64_t low;
  std::memcpy(&low, p, sizeof low);
  return HalfBits(Pair{low, 0});
#else
  HalfBits bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
#endif
}
GRAFT_INLINE HalfBits load_bits(const void* p, std::ptrdiff_t count) {
#if GRAFT_VECTOR_BYTES == 64
  return HalfBits(_mm256_maskz_loadu_epi16(__mmask16((1u << count) - 1), p));
#else
  std::uint16_t bits[GRAFT_VECTOR_BYTES / 4] = {};
  for (std::ptrdiff_t i = 0; i < count; ++i) std::memcpy(bits + i, static_cast<const char*>(p) + 2 * i, 2);
  return load_bits(bits);
#endif
}
GRAFT_INLINE WideBits widen(HalfBits bits) {
#if GRAFT_VECTOR_BYTES == 64
  return WideBits(_mm512_maskz_cvtepu16_epi32(__mmask16(-1), __m256i(bits)));
#elif defined(__AVX2__)
  return WideBits(_mm256_cvtepu16_epi32(__m128i(bits)));
#elif GRAFT_VECTOR_BYTES == 16 && defined(__SSE2__)
  return WideBits(_mm_unpacklo_epi16(__m128i(bits), __m128i{}));
#else
  WideBits wide;
  for (std::size_t i = 0; i < GRAFT_VECTOR_BYTES / 4; ++i) wide[i] = bits[i];
  return wide;
#endif
}
GRAFT_INLINE Vector<float> widen_bf16(HalfBits bits) { return Vector<float>(widen(bits) << 16); }
GRAFT_INLINE Vector<float> widen_f16(HalfBits bits) {
#if defined(__F16C__) && GRAFT_VECTOR_BYTES == 64
  return _mm512_maskz_cvtph_ps(__mmask16(-1), __m256i(bits));
#elif defined(__F16C__) && GRAFT_VECTOR_BYTES == 32
  return _mm256_cvtph_ps(__m128i(bits));
#else
  // As f16's own conversion: a multiplication by 2^112 moves the exponent and normalises subnormals.
  const WideBits wide = widen(bits);
  const WideBits magnitude = (wide & 0x7fffu) << 13;
  const Vector<float> scaled = Vector<float>(magnitude) * 0x1p112f;
  const WideBits special = WideBits(((wide & 0x7c00u) == 0x7c00u)) & 0x7f800000u;
  return Vector<float>(WideBits(scaled) | special | (wide & 0x8000u) << 16);
#endif
}
}  // namespace detail

/// A register from memory at any address; narrow types are widened to float.
GRAFT_INLINE Vector<float> load(const float* p) {
  Vector<float> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
GRAFT_INLINE Vector<double> load(const double* p) {
  Vector<double> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
GRAFT_INLINE Vector<float> load(const bf16* p) { return detail::widen_bf16(detail::load_bits(p)); }
GRAFT_INLINE Vector<float> load(const f16* p) { return detail::widen_f16(detail::load_bits(p)); }

/// The first `count` lanes (0 < count < lanes) from memory, zero in the others; no byte behind them is read.
GRAFT_INLINE Vector<float> load(const float* p, std::ptrdiff_t count) {
#if GRAFT_VECTOR_BYTES == 64
  return _mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), p);
#elif GRAFT_VECTOR_BYTES == 32
  return _mm256_maskload_ps(p, detail::first_lanes(count, 1));
#else
  Vector<float> v{};
  std::memcpy(&v, p, 4);
  if (count > 1) {
    float second;
    std::memcpy(&second, p + 1, 4);
    v[1] = second;
  }
  if (count > 2) {
    float third;
    std::memcpy(&third, p + 2, 4);
    v[2] = third;
  }
  return v;
#endif
}
GRAFT_INLINE Vector<double> load(const double* p, std::ptrdiff_t count) {
#if GRAFT_VECTOR_BYTES == 64
  return _mm512_maskz_loadu_pd(__mmask8((1u << count) - 1), p);
#elif GRAFT_VECTOR_BYTES == 32
  return _mm256_maskload_pd(p, detail::first_lanes(count, 2));
#else
  Vector<double> v{};
  std::memcpy(&v, p, 8 * std::size_t(count));
  return v;
#endif
}
GRAFT_INLINE Vector<float> load(const bf16* p, std::ptrdiff_t count) {
  return detail::widen_bf16(detail::load_bits(p, count));
}
GRAFT_INLINE Vector<float> load(const f16* p, std::ptrdiff_t count) {
  return detail::widen_f16(detail::load_bits(p, count));
}

/// A register to memory at any address.
template <class T>
GRAFT_INLINE void store(T* p, Vector<T> v) {
  std::memcpy(p, &v, sizeof v);
}
/// The first `count` lanes (0 < count < lanes) to memory; no byte behind them is written.
GRAFT_INLINE void store(float* p, Vector<float> v, std::ptrdiff_t count) {
#if GRAFT_VECTOR_BYTES == 64
  _mm512_mask_storeu_ps(p, __mmask16((1u << count) - 1), v);
#elif GRAFT_VECTOR_BYTES == 32
  _mm256_maskstore_ps(p, detail::first_lanes(count, 1), v);
#else
  for (std::ptrdiff_t i = 0; i < count; ++i) p[i] = v[i];
#endif
}
GRAFT_INLINE void store(double* p, Vector<double> v, std::ptrdiff_t count) {
#if GRAFT_VECTOR_BYTES == 64
  _mm512_mask_storeu_pd(p, __mmask8((1u << count) - 1), v);
#elif GRAFT_VECTOR_BYTES == 32
  _mm256_maskstore_pd(p, detail::first_lanes(count, 2), v);
#else
  for (std::ptrdiff_t i = 0; i < count; ++i) p[i] = v[i];
#endif
}

/// Calls f(offset, whole) for every register of `count` elements: `whole` is lanes, or what is left at the
/// end.
template <class T, class F>
GRAFT_INLINE void for_each_register(std::ptrdiff_t count, F&& f) {
  std::ptrdiff_t i = 0;
  for (; i + lanes<T> <= count; i += lanes<T>) f(i, lanes<T>);
  if (i < count) f(i, count - i);
}
/// load and store for a count up to and including lanes.
template <class W>
GRAFT_INLINE auto load_some(const W* p, std::ptrdiff_t count) {
  using T = std::conditional_t<std::is_same_v<W, double>, double, float>;
  return count == lanes<T> ? load(p) : load(p, count);
}
template <class T>
GRAFT_INLINE void store_some(T* p, Vector<T> v, std::ptrdiff_t count) {
  count == lanes<T> ? store(p, v) : store(p, v, count);
}

}  // namespace GRAFT_ISA
}  // namespace graft::kernels
