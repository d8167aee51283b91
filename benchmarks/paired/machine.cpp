#include "machine.hpp"

#include <fstream>
#include <vector>

#include "memory.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if __has_include(<graft/kernels/isa.hpp>)
#include <graft/kernels/isa.hpp>
#define PAIRED_HAS_DISPATCH 1
#endif

namespace paired {
namespace {

// Twelve chains hide the latency of an addition behind a multiply-add on every processor of today.
constexpr int chains = 12;

#define PAIRED_FMA_LOOP(Name, Target, Register, Set, Step, Width)                       \
  __attribute__((noinline, target(Target))) double Name(long steps) {                  \
    Register sums[chains];                                                             \
    for (int c = 0; c < chains; ++c) sums[c] = Set(c);                                  \
    const Register a = Set(1.0001), b = Set(0.9999);                                    \
    for (long i = 0; i < steps; ++i) {                                                 \
      _Pragma("GCC unroll 12") for (int c = 0; c < chains; ++c) sums[c] = Step(sums[c], a, b); \
    }                                                                                  \
    keep(sums);                                                                        \
    clobber();                                                                         \
    return double(steps) * chains * Width * 2;                                         \
  }

#if defined(__x86_64__)
PAIRED_FMA_LOOP(fma_f32_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, 16)
PAIRED_FMA_LOOP(fma_f64_avx512, "avx512f", __m512d, _mm512_set1_pd, _mm512_fmadd_pd, 8)
PAIRED_FMA_LOOP(fma_f32_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, 8)
PAIRED_FMA_LOOP(fma_f64_avx2, "avx2,fma", __m256d, _mm256_set1_pd, _mm256_fmadd_pd, 4)

__attribute__((noinline, target("avx512f"))) void read_avx512(const char* p, std::size_t bytes) {
  __m512i sums[8]{};
  for (const char* end = p + bytes / 512 * 512; p != end; p += 512)
    for (int k = 0; k < 8; ++k) sums[k] = _mm512_xor_si512(sums[k], _mm512_loadu_si512(p + 64 * k));
  keep(sums);
}
__attribute__((noinline, target("avx2"))) void read_avx2(const char* p, std::size_t bytes) {
  __m256i sums[8]{};
  for (const char* end = p + bytes / 256 * 256; p != end; p += 256)
    for (int k = 0; k < 8; ++k)
      sums[k] = _mm256_xor_si256(sums[k], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32 * k)));
  keep(sums);
}
#endif

// Other processors, and x86 without AVX2: what the compiler makes of plain loops.
template <class T>
double fma_baseline(long steps) {
  typedef T Register __attribute__((vector_size(16)));
  Register sums[chains]{};
  const Register a = T(1.0001) - Register{}, b = T(0.9999) - Register{};
  for (long i = 0; i < steps; ++i) {
    _Pragma("GCC unroll 12") for (int c = 0; c < chains; ++c) sums[c] = sums[c] * a + b;
  }
  keep(sums);
  clobber();
  return double(steps) * chains * (16 / sizeof(T)) * 2;
}
void read_baseline(const char* p, std::size_t bytes) {
  typedef unsigned long long Register __attribute__((vector_size(16), may_alias, aligned(8)));
  Register sums[8]{};
  for (const char* end = p + bytes / 128 * 128; p != end; p += 128)
    for (int k = 0; k < 8; ++k) sums[k] ^= *reinterpret_cast<const Register*>(p + 16 * k);
  keep(sums);
}

using FmaLoop = double (*)(long);
bool has_avx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}
bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

FmaLoop fma_loop(const std::string& instruction_set, bool is_double) {
#if defined(__x86_64__)
  if (instruction_set == "avx512") return is_double ? fma_f64_avx512 : fma_f32_avx512;
  if (instruction_set == "avx2") return is_double ? fma_f64_avx2 : fma_f32_avx2;
#endif
  return is_double ? fma_baseline<double> : fma_baseline<float>;
}

double rate(FmaLoop loop, int repetitions) {
  double best = 0;
  loop(100'000);
  for (int i = 0; i < repetitions; ++i) {
    const double start = now();
    const double operations = loop(1'000'000);
    best = std::max(best, operations / (now() - start));
  }
  return best;
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  std::string name, family, model;
  for (std::string line; std::getline(info, line) && !line.empty();) {
    const auto value = [&](const char* key) {
      return line.rfind(key, 0) == 0 ? line.substr(std::min(line.size(), line.find(':') + 2)) : std::string();
    };
    if (name.empty()) name = value("model name");
    if (family.empty()) family = value("cpu family");
    if (model.empty()) model = value("model\t");
  }
  if (name.empty()) return "unknown";
  return name + " (family " + family + ", model " + model + ")";
}

}  // namespace

void read_all(const void* memory, std::size_t bytes) {
  const char* p = static_cast<const char*>(memory);
#if defined(__x86_64__)
  static const bool avx512 = has_avx512(), avx2 = has_avx2();
  if (avx512) return read_avx512(p, bytes);
  if (avx2) return read_avx2(p, bytes);
#endif
  read_baseline(p, bytes);
}

void read_and_write_all(float* __restrict memory, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) memory[i] *= 1.0000001f;
  clobber();
}

Machine::Machine(bool quick) : processor_(processor_name()), quick_(quick) {
#ifdef PAIRED_HAS_DISPATCH
  instruction_set_ = graft::kernels::name_of(graft::kernels::isa());
#else
  instruction_set_ = has_avx512() ? "avx512" : has_avx2() ? "avx2" : "baseline";
#endif
  const int repetitions = quick ? 5 : 15;
  peak_f32_ = rate(fma_loop(instruction_set_, false), repetitions);
  peak_f64_ = rate(fma_loop(instruction_set_, true), repetitions);
  peak_avx2_ = has_avx2() ? rate(fma_loop("avx2", false), repetitions) : 0;
  half_rate_ = instruction_set_ == "avx512" && peak_f32_ < 1.5 * peak_avx2_;
}

double Machine::read_bandwidth(std::size_t bytes) {
  // Within a factor of two the same caches hold it.
  std::size_t footprint = std::size_t(16) << 10;
  while (footprint < bytes && footprint < (std::size_t(256) << 20)) footprint *= 2;
  const auto known = bandwidths_.find(footprint);
  if (known != bandwidths_.end()) return known->second;
  const Memory<char> memory(footprint);
  const long calls = std::max<long>(1, long(32e6 / double(footprint)));
  double best = 0;
  for (int i = 0; i < (quick_ ? 4 : 10); ++i) {
    const double start = now();
    for (long k = 0; k < calls; ++k) read_all(memory.data(), footprint);
    best = std::max(best, double(footprint) * double(calls) / (now() - start));
  }
  return bandwidths_[footprint] = best;
}

Seconds Machine::at_peak(double operations, bool is_double) const {
  const FmaLoop loop = fma_loop(instruction_set_, is_double);
  return [loop, operations](long calls) {
    // a fixed amount of work, scaled: one call of a small product is shorter than the clock can tell
    const double start = now();
    const double done = loop(200'000);
    return (now() - start) / done * operations * double(calls);
  };
}

double Machine::limit(double operations, double bytes, bool is_double) {
  return std::max(operations / peak(is_double), bytes / read_bandwidth(std::size_t(bytes)));
}

}  // namespace paired
