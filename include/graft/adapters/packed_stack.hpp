#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "../tensor/parameter.hpp"

namespace graft::detail {

/// B of a stack's LoRA (span, r · experts), whose column is ρ · experts + e, expert by expert: (experts, r, span). Made at
/// the first forward after B was written. Copies start empty.
template <class T>
class PackedStack {
 public:
  PackedStack() = default;
  PackedStack(const PackedStack&) : PackedStack() {}
  PackedStack& operator=(const PackedStack&) = delete;

  /// Null where somebody has a view of B, through which it may be written unannounced. Any number of threads may ask at
  /// once, as long as none writes B.
  [[nodiscard]] const T* get(const ParameterData& b, Index experts, Index r) const {
    if (b.is_viewed()) return nullptr;
    const std::uint64_t wanted = b.version() + 1;  // 0: nothing packed yet
    if (version_.load(std::memory_order_acquire) != wanted) pack(b, experts, r, wanted);
    return packed_.get();
  }
  /// One expert's part: to (r, span).
  static void pack_one(const ParameterData& b, Index experts, Index r, Index expert, T* to) {
    const T* from = reinterpret_cast<const T*>(b.data()) + expert;
    const Index span = b.shape()[0];
    for (Index o = 0; o < span; ++o)
      for (Index k = 0; k < r; ++k) to[k * span + o] = from[(o * r + k) * experts];
  }

 private:
  void pack(const ParameterData& b, Index experts, Index r, std::uint64_t wanted) const {
    const std::lock_guard lock(mutex_);
    if (version_.load(std::memory_order_relaxed) == wanted) return;
    const Index span = b.shape()[0], size = experts * r * span;
    if (size_ != size) packed_ = std::make_unique<T[]>(std::size_t(size_ = size));
    for (Index e = 0; e < experts; ++e) pack_one(b, experts, r, e, packed_.get() + e * r * span);
    version_.store(wanted, std::memory_order_release);
  }

  mutable std::mutex mutex_;
  mutable std::atomic<std::uint64_t> version_{0};
  mutable Index size_ = 0;
  mutable std::unique_ptr<T[]> packed_;
};

}  // namespace graft::detail
