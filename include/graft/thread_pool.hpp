#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "tensor/parallel_for.hpp"

namespace graft {

/// A small pool for `Batch::set_parallel_for`: threads that look out for work for a while and then sleep.
///
///     graft::ThreadPool pool(4);
///     batch.set_parallel_for(pool);
///
/// Any number of batches and threads may share one. A loop that finds the pool busy with another one is run by its caller
/// alone: nobody waits for a stranger's work, and results are the same.
class ThreadPool {
 public:
  /// `threads`, the caller's among them; 0: as many as the machine runs at once. `spins`: how often a thread looks for work
  /// before it sleeps, some 20 ns each; 0 on a machine that has others to serve.
  explicit ThreadPool(Index threads = 0, Index spins = 2000)
      : threads_(threads > 0 ? threads : std::max<Index>(1, Index(std::thread::hardware_concurrency()))),
        spins_(std::thread::hardware_concurrency() > 1 ? spins : 0) {
    start();
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() { stop(); }

  [[nodiscard]] Index threads() const { return threads_; }

  /// Calls body(i) for every i in [0, count) and returns when all calls have. A body that throws ends the program.
  void operator()(Index count, const LoopBody& body) noexcept {
    if (count < 2 || count > most || workers_.empty() || is_busy_.exchange(true, std::memory_order_acquire)) {
      for (Index i = 0; i < count; ++i) body(i);
      return;
    }
    body_ = &body;
    done_.store(0, std::memory_order_relaxed);
    ticket_.store(std::uint64_t(count) << 32);
    if (sleepers_.load() > 0) {
      { const std::lock_guard<std::mutex> lock(mutex_); }  // whoever is about to sleep has seen no ticket, or sleeps
      wake_.notify_all();
    }
    while (take_one()) {
    }
    wait_until_done(std::uint32_t(count));
    is_busy_.store(false, std::memory_order_release);
  }

 private:
  static constexpr Index most = 0x7fffffff;

  // A ticket holds the number of pieces in its upper half and the next one to be taken in its lower half.
  static std::uint32_t next_of(std::uint64_t ticket) { return std::uint32_t(ticket); }
  static std::uint32_t count_of(std::uint64_t ticket) { return std::uint32_t(ticket >> 32); }
  static bool has_work(std::uint64_t ticket) { return next_of(ticket) < count_of(ticket); }

  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  /// Does one piece; false where none is left. What a loop is about is read only by who has taken a piece of it: until
  /// that piece is done, the loop does not end.
  bool take_one() {
    std::uint64_t ticket = ticket_.load();
    do {
      if (!has_work(ticket)) return false;
    } while (!ticket_.compare_exchange_weak(ticket, ticket + 1));
    (*body_)(Index(next_of(ticket)));
    if (done_.fetch_add(1) + 1 == count_of(ticket) && is_caller_asleep_.load()) {
      { const std::lock_guard<std::mutex> lock(mutex_); }
      all_done_.notify_one();
    }
    return true;
  }

  void wait_until_done(std::uint32_t count) {
    for (Index i = 0; i < spins_; ++i, pause())
      if (done_.load(std::memory_order_acquire) == count) return;
    std::unique_lock<std::mutex> lock(mutex_);
    is_caller_asleep_.store(true);
    all_done_.wait(lock, [&] { return done_.load() == count; });
    is_caller_asleep_.store(false);
  }

  void work() {
    for (;;) {
      while (take_one()) {
      }
      bool found = false;
      for (Index i = 0; i < spins_ && !found; ++i, pause())
        found = has_work(ticket_.load(std::memory_order_acquire)) || is_stopping_.load(std::memory_order_relaxed);
      if (!found) {
        std::unique_lock<std::mutex> lock(mutex_);
        sleepers_.fetch_add(1);
        wake_.wait(lock, [&] { return has_work(ticket_.load()) || is_stopping_.load(); });
        sleepers_.fetch_sub(1);
      }
      if (is_stopping_.load()) return;
    }
  }

  void start() {
    struct Guard {  // threads that could be started are stopped where another could not
      ThreadPool* pool;
      ~Guard() {
        if (pool) pool->stop();
      }
    } guard{this};
    workers_.reserve(std::size_t(threads_ - 1));
    for (Index i = 1; i < threads_; ++i) workers_.emplace_back([this] { work(); });
    guard.pool = nullptr;
  }
  void stop() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      is_stopping_.store(true);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

  const Index threads_, spins_;
  const LoopBody* body_ = nullptr;
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  alignas(64) std::atomic<std::uint32_t> done_{0};
  alignas(64) std::atomic<bool> is_busy_{false};
  std::atomic<bool> is_stopping_{false}, is_caller_asleep_{false};
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable wake_, all_done_;
  std::vector<std::thread> workers_;
};

}  // namespace graft
