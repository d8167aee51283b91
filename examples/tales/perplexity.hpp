#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <graft/core/error.hpp>
#include <graft/kernels/normalise.hpp>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace tales {

// Window i of a text reads the tokens [128 i, 128 i + 128) as a sequence of its own, from position 0, and is
// scored on the 128 tokens [128 i + 1, 128 i + 129). What is left after the last whole window is dropped.
inline constexpr std::size_t window_length = 128;

/// How many whole windows a text of `tokens` tokens has.
constexpr std::size_t whole_windows(std::size_t tokens) { return tokens ? (tokens - 1) / window_length : 0; }

/// -log softmax(logits)[target]: summed in double, of exponentials in float, which are exact to 1e-7 and far faster.
inline double token_loss(std::span<const float> logits, int target) {
  const auto count = std::ptrdiff_t(logits.size());
  double log_sum = 0;
  graft::kernels::log_sum_exp(1, count, logits.data(), count, &log_sum);
  return log_sum - double(logits[std::size_t(target)]);
}

/// exp of the mean loss of a token; `losses` holds the sum of each window.
inline double perplexity(std::span<const double> losses) {
  double total = 0;
  for (const double loss : losses) total += loss;
  return std::exp(total / double(losses.size() * window_length));
}

/// Runs work(first, count) for every chunk of [0, items) on `threads` threads; make_work() makes one work for
/// each thread, with whatever scratch memory it needs. What a chunk throws is thrown here.
template <class MakeWork>
void share_out(std::size_t items, std::size_t chunk, unsigned threads, MakeWork&& make_work) {
  std::atomic<std::size_t> next{0};
  std::exception_ptr error;
  std::mutex error_lock;
  const auto run = [&] {
    try {
      auto work = make_work();
      for (;;) {
        const std::size_t first = next.fetch_add(chunk);
        if (first >= items) return;
        work(first, std::min(chunk, items - first));
      }
    } catch (...) {
      next = items;
      const std::lock_guard hold(error_lock);
      if (!error) error = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  for (unsigned i = 1; i < threads && i * chunk < items; ++i) others.emplace_back(run);
  run();
  for (std::thread& thread : others) thread.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace tales
