#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>

#include "../tensor/parameter.hpp"

namespace graft::detail {

/// B of a stack's LoRA (span, r · experts), whose column is ρ · experts + e, expert by expert: (experts, r, span), of B's
/// own dtype. Made at the first forward after B was written. Copies start empty.
class PackedStack {
 public:
  PackedStack() = default;
  PackedStack(const PackedStack&) : PackedStack() {}
  PackedStack& operator=(const PackedStack&) = delete;

  /// Null where somebody has a view of B, through which it may be written unannounced. Any number of threads may ask at
  /// once, as long as none writes B.
  [[nodiscard]] const std::byte* get(const ParameterData& b, Index experts, Index r) const {
    if (b.is_viewed()) return nullptr;
    const std::uint64_t wanted = b.version() + 1;  // 0: nothing packed yet
    if (version_.load(std::memory_order_acquire) != wanted) pack(b, experts, r, wanted);
    return packed_.get();
  }
  /// One expert's part: to (r, span).
  static void pack_one(const ParameterData& b, Index experts, Index r, Index expert, std::byte* to) {
    switch (size_of(b.dtype())) {
      case 2: return pack_elements<std::uint16_t>(b, experts, r, expert, to);
      case 4: return pack_elements<std::uint32_t>(b, experts, r, expert, to);
      default: return pack_elements<std::uint64_t>(b, experts, r, expert, to);
    }
  }

 private:
  /// Elements are moved, so that their size is all that matters.
  template <class Bits>
  static void pack_elements(const ParameterData& b, Index experts, Index r, Index expert, std::byte* to) {
    constexpr Index size = sizeof(Bits);
    const Index span = b.shape()[0];
    for (Index o = 0; o < span; ++o)
      for (Index k = 0; k < r; ++k)
        std::memcpy(to + (k * span + o) * size, b.data() + ((o * r + k) * experts + expert) * size, std::size_t(size));
  }
  void pack(const ParameterData& b, Index experts, Index r, std::uint64_t wanted) const {
    const std::lock_guard lock(mutex_);
    if (version_.load(std::memory_order_relaxed) == wanted) return;
    if (size_ != b.bytes()) packed_ = zeroed(size_ = b.bytes());
    for (Index e = 0; e < experts; ++e) pack_one(b, experts, r, e, packed_.get() + std::size_t(e) * b.bytes() / std::size_t(experts));
    version_.store(wanted, std::memory_order_release);
  }

  mutable std::mutex mutex_;
  mutable std::atomic<std::uint64_t> version_{0};
  mutable std::size_t size_ = 0;
  mutable std::shared_ptr<std::byte> packed_;
};

}  // namespace graft::detail
