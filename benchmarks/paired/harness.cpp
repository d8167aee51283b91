#include "harness.hpp"

#include <numeric>
#include <random>

namespace paired {
namespace {

constexpr double short_enough = 0.02;

/// Calls that make up a sample, and about how long it takes.
struct Sample {
  long calls = 1;
  double seconds = 0;
};

Sample sample_of(const Seconds& contender, double least) {
  const auto calls_for = [&](double one) { return std::clamp(long(least / std::max(one, 1e-9)), 1L, 1L << 24); };
  double one = contender(1);
  // twice: the first estimate of something short is mostly the clock
  for (int attempt = 0; attempt < 2 && one < least; ++attempt) {
    const long calls = calls_for(one);
    one = contender(calls) / double(calls);
  }
  const long calls = calls_for(one);
  return {calls, one * double(calls)};
}

}  // namespace

std::vector<Series> in_turn(const std::vector<Seconds>& contenders, const Effort& effort) {
  std::vector<Sample> samples(contenders.size());
  double one_round = 0;
  for (std::size_t i = 0; i < contenders.size(); ++i) {
    if (!contenders[i]) continue;
    samples[i] = sample_of(contenders[i], effort.sample);
    one_round += samples[i].seconds;
  }
  const int rounds = std::clamp(int(effort.seconds / std::max(one_round, 1e-9)), effort.least, effort.most);
  std::vector<Series> series(contenders.size());
  std::vector<std::size_t> order(contenders.size());
  std::iota(order.begin(), order.end(), std::size_t(0));
  std::mt19937 random(1);
  const double start = wall();
  for (int round = 0; round < rounds; ++round) {
    // Who reads shared memory first fetches it for those who follow: each is first as often as the others.
    std::shuffle(order.begin(), order.end(), random);
    for (const std::size_t i : order) {
      if (!contenders[i]) continue;
      // What is short finds its own data in the caches, not the last contender's.
      if (samples[i].seconds < short_enough * double(samples[i].calls)) contenders[i](1);
      series[i].add(contenders[i](samples[i].calls) / double(samples[i].calls));
    }
    // on a crowded machine processor time hardly passes
    if (round + 1 >= effort.least && wall() - start > 4 * effort.seconds) break;
  }
  return series;
}

}  // namespace paired
