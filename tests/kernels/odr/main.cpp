// Units compiled with different flags in one program: each must run its own kernels, not those that the linker
// happened to keep; plain flags must choose the best set.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "products.hpp"

namespace {

using Index = std::ptrdiff_t;
constexpr Index n = 7, out = 45, in = 769;

struct Numbers {
  std::vector<float> x = std::vector<float>(n * in), w = std::vector<float>(out * in);
  Numbers() {
    unsigned state = 1;
    for (auto* values : {&x, &w})
      for (float& value : *values)
        value = float(int((state = state * 1664525u + 1013904223u) >> 8) - (1 << 23)) / (1 << 23);
  }
};

bool is_right(const Numbers& numbers, const std::vector<float>& y, bool transposed) {
  for (Index i = 0; i < n; ++i)
    for (Index o = 0; o < out; ++o) {
      double sum = 0, magnitude = 0;
      for (Index k = 0; k < in; ++k) {
        const double term = double(numbers.x[std::size_t(i * in + k)]) *
                            double(numbers.w[std::size_t(transposed ? k * out + o : o * in + k)]);
        sum += term;
        magnitude += std::abs(term);
      }
      if (!(std::abs(double(y[std::size_t(i * out + o)]) - sum) <= 769 * 1.2e-7 * magnitude)) return false;
    }
  return true;
}

}  // namespace

int main() {
  const char* wanted = std::getenv("GRAFT_ISA");
  const bool is_forced = wanted && *wanted;
  const Numbers numbers;
  std::vector<Products> units = {baseline_products(), only_baseline_products()};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) units.push_back(avx2_products());
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
    units.push_back(avx512_products());
#endif
  int failures = 0;
  const auto check = [&](bool holds, const char* what, const char* where) {
    if (!holds) std::printf("FAILED: %s (%s)\n", what, where), ++failures;
  };
  std::vector<std::vector<float>> results;
  for (const Products& unit : units) {
    std::vector<float> y(n * out);
    unit.product_nn(n, out, in, numbers.x.data(), numbers.w.data(), y.data());
    check(is_right(numbers, y, true), "product_nn is wrong", unit.instruction_set);
    unit.product_nt(n, out, in, numbers.x.data(), numbers.w.data(), y.data());
    check(is_right(numbers, y, false), "product_nt is wrong", unit.instruction_set);
    for (std::size_t k = 0; k < results.size(); ++k) {
      check(std::strcmp(units[k].flags, unit.flags) != 0, "two sets of flags share a namespace", unit.flags);
      // Registers of another width sum in another order, which shows in the last bits of some of 315 dots.
      const bool same = std::strcmp(units[k].instruction_set, unit.instruction_set) == 0;
      check((results[k] == y) == same, same ? "one set gave two results" : "two sets ran the same kernel",
            unit.instruction_set);
    }
    results.push_back(y);
  }
  check(std::strcmp(units[1].instruction_set, "baseline") == 0, "the macro GRAFT_ISA chose", units[1].instruction_set);
#if defined(__x86_64__)
  check(std::strcmp(units.back().instruction_set, units.front().instruction_set) == 0 || is_forced,
        "a plain build did not choose the best set but", units.front().instruction_set);
#endif
  std::printf("%zu sets of flags, %d failures\n", units.size(), failures);
  return failures == 0 ? 0 : 1;
}
