#pragma once

#include <sched.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace graft {

/// A value that is replaced as a whole while any number of threads read it.
///
/// A reader enters with one atomic addition on a counter that it shares with few other threads, and takes no lock and
/// no memory. A writer exchanges the pointer and then waits until it has seen every counter at zero: a reader that
/// got the old value had raised its counter before the exchange, so the old value has no reader any more then. Readers
/// that come later raise the counters of the other parity, so that the writer is not kept waiting by them.
template <class T>
class Published {
 public:
  /// A reader's hold on the value that was current when it came. Keep it short: a writer waits for it.
  class Reader {
   public:
    Reader() = default;
    Reader(Reader&& other) noexcept
        : counter_(std::exchange(other.counter_, nullptr)), value_(std::exchange(other.value_, nullptr)) {}
    Reader& operator=(Reader&& other) noexcept {
      std::swap(counter_, other.counter_);
      std::swap(value_, other.value_);
      return *this;
    }
    ~Reader() {
      if (counter_) counter_->fetch_sub(1, std::memory_order_release);
    }
    [[nodiscard]] const std::shared_ptr<T>& shared() const { return *value_; }
    [[nodiscard]] T* get() const { return value_->get(); }
    T* operator->() const { return get(); }
    T& operator*() const { return *get(); }

   private:
    friend class Published;
    Reader(std::atomic<std::uint32_t>* counter, const std::shared_ptr<T>* value) : counter_(counter), value_(value) {}
    std::atomic<std::uint32_t>* counter_ = nullptr;
    const std::shared_ptr<T>* value_ = nullptr;
  };

  explicit Published(std::shared_ptr<T> first = nullptr) : current_(new std::shared_ptr<T>(std::move(first))) {}
  Published(const Published&) = delete;
  Published& operator=(const Published&) = delete;
  ~Published() { delete current_.load(std::memory_order_relaxed); }

  /// The current value, for as long as the result lives.
  [[nodiscard]] Reader read() const {
    const char here = 0;  // threads have stacks of their own: the address tells them apart, at no cost
    auto& counters = stripes_[stripe_of(&here)].readers;
    auto& counter = counters[parity_.load(std::memory_order_relaxed) & 1];
    counter.fetch_add(1, std::memory_order_seq_cst);
    return {&counter, current_.load(std::memory_order_seq_cst)};
  }
  /// The current value, shared: to be kept.
  [[nodiscard]] std::shared_ptr<T> pin() const { return read().shared(); }
  /// The current value, for the thread that publishes: nobody else may be publishing.
  [[nodiscard]] const std::shared_ptr<T>& own() const { return *current_.load(std::memory_order_acquire); }

  /// Makes `next` the value that every later reader gets, waits for the readers of the old one and returns it.
  /// Never to be called by a thread that is reading.
  std::shared_ptr<T> publish(std::shared_ptr<T> next) {
    const std::unique_ptr<const std::shared_ptr<T>> old(
        current_.exchange(new std::shared_ptr<T>(std::move(next)), std::memory_order_seq_cst));
    const std::uint32_t parity = parity_.load(std::memory_order_relaxed);
    wait_for(parity + 1);  // those who read the parity before it last changed, and then were late
    parity_.store(parity + 1, std::memory_order_relaxed);
    wait_for(parity);
    return *old;
  }

 private:
  static constexpr std::size_t stripe_count = 8;
  struct alignas(64) Stripe {
    std::array<std::atomic<std::uint32_t>, 2> readers{};
  };

  static std::size_t stripe_of(const void* address) {
    return std::size_t((reinterpret_cast<std::uintptr_t>(address) >> 16) * 0x9E3779B97F4A7C15u >> 61);
  }
  void wait_for(std::uint32_t parity) const {
    for (const Stripe& stripe : stripes_)
      while (stripe.readers[parity & 1].load(std::memory_order_seq_cst) != 0) ::sched_yield();
  }

  std::atomic<const std::shared_ptr<T>*> current_;
  std::atomic<std::uint32_t> parity_{0};
  mutable std::array<Stripe, stripe_count> stripes_{};
};

}  // namespace graft
