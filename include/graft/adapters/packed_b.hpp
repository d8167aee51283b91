#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "../kernels/low_rank.hpp"
#include "../tensor/parameter.hpp"

namespace graft::detail {

/// B in the order in which updates read it, packed at the first forward after B was written. Copies start empty.
template <class T>
class PackedB {
 public:
  PackedB() = default;
  PackedB(const PackedB&) : PackedB() {}
  PackedB& operator=(const PackedB&) = delete;

  /// B (out, r) packed, for an update of n rows; null where packing gains nothing for so many, and where somebody has a
  /// view of B, through which it may be written unannounced. The bits are the same either way. Any number of threads
  /// may ask at once, as long as none writes B.
  [[nodiscard]] const T* get(const ParameterData& b, Index n, Index out, Index r) const {
    constexpr Index many = 32;  // rows that pay for turning a panel of B around
    if (n >= many || b.is_viewed()) return nullptr;
    const std::uint64_t wanted = b.version() + 1;  // 0: nothing packed yet
    if (version_.load(std::memory_order_acquire) != wanted) pack(b, out, r, wanted);
    return packed_.get();
  }

 private:
  void pack(const ParameterData& b, Index out, Index r, std::uint64_t wanted) const {
    const std::lock_guard lock(mutex_);
    if (version_.load(std::memory_order_relaxed) == wanted) return;
    if (size_ != out * r) packed_ = std::make_unique<T[]>(std::size_t(size_ = out * r));
    kernels::pack_b(out, r, reinterpret_cast<const T*>(b.data()), packed_.get());
    version_.store(wanted, std::memory_order_release);
  }

  mutable std::mutex mutex_;
  mutable std::atomic<std::uint64_t> version_{0};
  mutable Index size_ = 0;
  mutable std::unique_ptr<T[]> packed_;
};

}  // namespace graft::detail
