#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "../core/half.hpp"

/// One kernel file, every instruction set. A kernel `x` has its body in x.inc, which is included once per
/// instruction set by for_each_isa.inc, and its documented entry in x.hpp, which chooses at run time by
/// GRAFT_DISPATCH. docs/kernels.md says how to write one.

// Translation units that were built with different flags never share a kernel, nor what chooses it: the
// namespace that all of them live in is named after the flags.
#define GRAFT_PASTE_OF(a, b) a##b
#define GRAFT_PASTE(a, b) GRAFT_PASTE_OF(a, b)
#define GRAFT_SECOND_OF(a, b, ...) b
#define GRAFT_SECOND(...) GRAFT_SECOND_OF(__VA_ARGS__)
#define GRAFT_COMMA_1 0, 1
#define GRAFT_FLAG(macro) GRAFT_SECOND(GRAFT_PASTE(GRAFT_COMMA_, macro), 0, 0)
#define GRAFT_PASTE_4(a, b, c, d) GRAFT_PASTE(GRAFT_PASTE(a, b), GRAFT_PASTE(c, d))
#define GRAFT_FLAGS_BASE                                                                                    \
  GRAFT_PASTE(GRAFT_PASTE_4(GRAFT_FLAG(__SSE3__), GRAFT_FLAG(__SSSE3__), GRAFT_FLAG(__SSE4_1__),            \
                            GRAFT_FLAG(__SSE4_2__)),                                                        \
              GRAFT_PASTE_4(GRAFT_FLAG(__AVX__), GRAFT_FLAG(__F16C__), GRAFT_FLAG(__FMA__), GRAFT_FLAG(__AVX2__)))
#define GRAFT_FLAGS_BITS                                                                                    \
  GRAFT_PASTE(GRAFT_PASTE_4(GRAFT_FLAG(__BMI__), GRAFT_FLAG(__BMI2__), GRAFT_FLAG(__LZCNT__),               \
                            GRAFT_FLAG(__FAST_MATH__)),                                                     \
              GRAFT_PASTE_4(GRAFT_FLAG(__AVX512F__), GRAFT_FLAG(__AVX512VL__), GRAFT_FLAG(__AVX512BW__),    \
                            GRAFT_FLAG(__AVX512DQ__)))
#define GRAFT_FLAGS_MORE                                                                                    \
  GRAFT_PASTE(GRAFT_PASTE_4(GRAFT_FLAG(__AVX512VBMI__), GRAFT_FLAG(__AVX512VBMI2__), GRAFT_FLAG(__AVX512VNNI__), \
                            GRAFT_FLAG(__AVX512BF16__)),                                                    \
              GRAFT_PASTE_4(GRAFT_FLAG(__AVX512FP16__), GRAFT_FLAG(__AVXVNNI__), GRAFT_FLAG(__AVX512CD__),  \
                            GRAFT_FLAG(__AVX512IFMA__)))

// -DGRAFT_ISA=baseline, avx2 or avx512: that one alone, whatever the processor says.
#define GRAFT_ISA_NUMBER_baseline 1
#define GRAFT_ISA_NUMBER_avx2 2
#define GRAFT_ISA_NUMBER_avx512 3
#ifdef GRAFT_ISA
#if GRAFT_PASTE(GRAFT_ISA_NUMBER_, GRAFT_ISA) + 0 < 1
#error "graft: GRAFT_ISA must be baseline, avx2 or avx512"
#endif
#define GRAFT_ONLY GRAFT_PASTE(GRAFT_ISA_NUMBER_, GRAFT_ISA)
#else
#define GRAFT_ONLY 0
#endif
#define GRAFT_BUILD                                                                                         \
  GRAFT_PASTE(GRAFT_PASTE_4(flags_, GRAFT_FLAGS_BASE, GRAFT_FLAGS_BITS, GRAFT_FLAGS_MORE), GRAFT_PASTE(_, GRAFT_ONLY))

// What is compiled: from the flags' own instruction set upwards.
#if defined(__x86_64__)
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && \
    defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define GRAFT_FLAGS_ISA 3
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define GRAFT_FLAGS_ISA 2
#else
#define GRAFT_FLAGS_ISA 1
#endif
#define GRAFT_BEST_ISA 3
#else
#define GRAFT_FLAGS_ISA 1
#define GRAFT_BEST_ISA 1
#endif
#define GRAFT_COMPILES(number) \
  (GRAFT_ONLY ? GRAFT_ONLY == number : GRAFT_FLAGS_ISA <= number && number <= GRAFT_BEST_ISA)

/// `GRAFT_DISPATCH(f<T>(arguments))` calls this program's chosen variant of a kernel.
#if GRAFT_COMPILES(1) && GRAFT_COMPILES(2)
#define GRAFT_DISPATCH(...)                                    \
  (::graft::kernels::isa() == ::graft::kernels::Isa::avx512 ? avx512::__VA_ARGS__ \
   : ::graft::kernels::isa() == ::graft::kernels::Isa::avx2 ? avx2::__VA_ARGS__   \
                                                            : baseline::__VA_ARGS__)
#elif GRAFT_COMPILES(2) && GRAFT_COMPILES(3)
#define GRAFT_DISPATCH(...) \
  (::graft::kernels::isa() == ::graft::kernels::Isa::avx512 ? avx512::__VA_ARGS__ : avx2::__VA_ARGS__)
#elif GRAFT_COMPILES(3)
#define GRAFT_DISPATCH(...) avx512::__VA_ARGS__
#elif GRAFT_COMPILES(2)
#define GRAFT_DISPATCH(...) avx2::__VA_ARGS__
#else
#define GRAFT_DISPATCH(...) baseline::__VA_ARGS__
#endif

// Tiles of accumulators stay in registers only when their loops are unrolled, which -O2 does not do by
// itself.
#define GRAFT_UNROLL _Pragma("GCC unroll 32")
#define GRAFT_INLINE [[gnu::always_inline]] inline

namespace graft::kernels {

/// The instruction sets that kernels are written for. `baseline`: registers of 16 bytes, what every processor
/// of its kind has; `avx2`: with FMA and F16C; `avx512`: F, BW, DQ and VL.
enum class Isa { baseline = 1, avx2 = 2, avx512 = 3 };

[[nodiscard]] constexpr const char* name_of(Isa isa) {
  return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "baseline";
}

inline namespace GRAFT_BUILD {

namespace detail {
inline bool processor_has(Isa isa) {
  if (int(isa) <= GRAFT_FLAGS_ISA) return true;
#if defined(__x86_64__)
  __builtin_cpu_init();
  // avx2, fma and f16c came together in every processor but one (VIA), whose f16c the compilers cannot ask for
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::avx2) return has_avx2;
  return has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

inline Isa choose_isa() {
  if constexpr (GRAFT_ONLY != 0) return Isa(GRAFT_ONLY);
  Isa best = Isa(GRAFT_FLAGS_ISA);
  for (int i = GRAFT_FLAGS_ISA; i <= GRAFT_BEST_ISA; ++i)
    if (processor_has(Isa(i))) best = Isa(i);
  const char* wanted = std::getenv("GRAFT_ISA");
  for (int i = GRAFT_FLAGS_ISA; wanted && i <= int(best); ++i)
    if (std::strcmp(wanted, name_of(Isa(i))) == 0) return Isa(i);
  return best;
}
}  // namespace detail

/// The instruction set that this program's kernels use: the best that the processor has, or the one that the
/// environment variable GRAFT_ISA names. A name that is unknown, that the processor lacks, or that is below
/// what the compile flags already demand, is passed over. Chosen once.
[[nodiscard]] inline Isa isa() {
  static const Isa chosen = detail::choose_isa();
  return chosen;
}

/// Whether the processor runs instructions on registers of 64 bytes as two halves, as Zen 4 does: next to its arithmetic,
/// moving lanes about costs half of what it costs elsewhere.
[[nodiscard]] inline bool splits_registers() {
#if defined(__x86_64__)
  static const bool splits = isa() == Isa::avx512 && __builtin_cpu_is("amdfam19h");
  return splits;
#else
  return false;
#endif
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
