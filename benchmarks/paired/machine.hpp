#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "harness.hpp"

namespace paired {

/// What this machine can do at most, measured in the same run as everything else.
class Machine {
 public:
  explicit Machine(bool quick);

  [[nodiscard]] const std::string& processor() const { return processor_; }
  /// What graft's kernels use here: "avx512", "avx2" or "baseline". The environment's GRAFT_ISA narrows it.
  [[nodiscard]] const std::string& instruction_set() const { return instruction_set_; }
  /// Whether AVX-512 runs at the rate of AVX2, two halves one after the other (Zen 4): goals that rest on the rate of
  /// arithmetic are then those of AVX2.
  [[nodiscard]] bool avx512_at_half_rate() const { return half_rate_; }

  /// Multiply-adds count as two. @returns floating-point operations a second, of one core.
  [[nodiscard]] double peak(bool is_double) const { return is_double ? peak_f64_ : peak_f32_; }
  [[nodiscard]] double peak_avx2() const { return peak_avx2_; }
  /// Bytes a second, of one core, when `bytes` bytes are read again and again.
  double read_bandwidth(std::size_t bytes);
  [[nodiscard]] const std::map<std::size_t, double>& bandwidths() const { return bandwidths_; }

  /// Runs `operations` floating-point operations at the peak rate: a contender that stands for the limit.
  [[nodiscard]] Seconds at_peak(double operations, bool is_double) const;
  /// The seconds that `operations` and `bytes` take at least.
  double limit(double operations, double bytes, bool is_double);

 private:
  std::string processor_, instruction_set_;
  bool quick_, half_rate_ = false;
  double peak_f32_ = 0, peak_f64_ = 0, peak_avx2_ = 0;
  std::map<std::size_t, double> bandwidths_;
};

/// Reads memory once from front to back, as fast as it comes.
void read_all(const void* memory, std::size_t bytes);
/// Multiplies floats in place by a factor near 1: each is read and written once.
void read_and_write_all(float* memory, std::size_t count);

}  // namespace paired
