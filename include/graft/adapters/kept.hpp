#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

namespace graft::detail {

/// What is made from values that are seldom written, and kept until they are. Threads in forward share it: one of them
/// makes it, the others wait; afterwards nobody locks. A copy belongs to other values: it starts empty.
template <class Value>
class Kept {
 public:
  Kept() = default;
  Kept(const Kept&) : Kept() {}
  Kept& operator=(const Kept&) = delete;

  /// The value that make(value) has made at `stamp`, which is never 0 and another one after every write; make gets the
  /// value of the stamp before. What it throws is thrown here, and it is asked again the next time. Any number of threads
  /// may ask at once for one stamp; nobody may still read what belongs to another.
  template <class Make>
  const Value& at(std::uint64_t stamp, const Make& make) const {
    if (stamp_.load(std::memory_order_acquire) != stamp) remake(stamp, make);
    return value_;
  }

 private:
  template <class Make>
  [[gnu::noinline]] void remake(std::uint64_t stamp, const Make& make) const {
    const std::lock_guard lock(mutex_);
    if (stamp_.load(std::memory_order_relaxed) == stamp) return;
    stamp_.store(0, std::memory_order_relaxed);  // what make leaves unfinished belongs to no stamp
    make(value_);
    stamp_.store(stamp, std::memory_order_release);
  }

  mutable std::mutex mutex_;
  mutable std::atomic<std::uint64_t> stamp_{0};
  mutable Value value_{};
};

}  // namespace graft::detail
