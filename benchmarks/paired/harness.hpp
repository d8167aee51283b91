#pragma once

#include <algorithm>
#include <cmath>
#include <ctime>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace paired {

/// Processor time of the process: what neighbours take is not counted. Wall time when `use_wall_clock` is set,
/// as several threads need it.
inline bool use_wall_clock = false;
inline double now() {
  timespec t;
  clock_gettime(use_wall_clock ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}
inline double wall() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

/// Makes the compiler believe that memory is read.
inline void clobber() { asm volatile("" ::: "memory"); }
template <class T>
void keep(const T& value) {
  asm volatile("" ::"r"(&value) : "memory");
}

/// Seconds that `calls` calls take: here, or in another process that measures itself.
using Seconds = std::function<double(long calls)>;

inline Seconds here(std::function<void()> call) {
  return [call = std::move(call)](long calls) {
    const double start = now();
    for (long i = 0; i < calls; ++i) call();
    clobber();
    return now() - start;
  };
}

/// One value for each round; a call's seconds, or what was made of several of them.
class Series {
 public:
  Series() = default;
  explicit Series(std::vector<double> rounds) : rounds_(std::move(rounds)) {}

  [[nodiscard]] bool measured() const { return !rounds_.empty(); }
  [[nodiscard]] std::size_t size() const { return rounds_.size(); }
  void add(double value) { rounds_.push_back(value); }

  [[nodiscard]] double min() const { return measured() ? *std::min_element(rounds_.begin(), rounds_.end()) : nan(); }
  [[nodiscard]] double max() const { return measured() ? *std::max_element(rounds_.begin(), rounds_.end()) : nan(); }
  [[nodiscard]] double median() const {
    if (!measured()) return nan();
    std::vector<double> sorted = rounds_;
    std::sort(sorted.begin(), sorted.end());
    const std::size_t middle = sorted.size() / 2;
    return sorted.size() % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  }

  // Round by round: a slow moment of the machine slows both sides.
  friend Series operator/(const Series& a, const Series& b) {
    return combine(a, b, [](double x, double y) { return x / y; });
  }
  friend Series operator-(const Series& a, const Series& b) {
    return combine(a, b, [](double x, double y) { return x - y; });
  }
  friend Series operator+(const Series& a, const Series& b) {
    return combine(a, b, [](double x, double y) { return x + y; });
  }
  friend Series operator*(double factor, Series a) {
    for (double& value : a.rounds_) value *= factor;
    return a;
  }
  friend Series operator+(double constant, Series a) {
    for (double& value : a.rounds_) value += constant;
    return a;
  }

 private:
  static double nan() { return std::numeric_limits<double>::quiet_NaN(); }
  template <class F>
  static Series combine(const Series& a, const Series& b, F f) {
    Series result;
    if (a.size() == b.size())
      for (std::size_t i = 0; i < a.size(); ++i) result.add(f(a.rounds_[i], b.rounds_[i]));
    return result;
  }

  std::vector<double> rounds_;
};

/// How long to measure: rounds until `seconds` have gone, at least `least` and at most `most` of them.
struct Effort {
  double seconds = 0.6, sample = 1e-3;
  int least = 5, most = 300;
};

/// Runs all contenders, which have run before, one after the other, in another order in every round, so that each round
/// has one time of each. A contender without a function stays unmeasured.
std::vector<Series> in_turn(const std::vector<Seconds>& contenders, const Effort& effort);

}  // namespace paired
