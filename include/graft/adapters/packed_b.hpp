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
    return reinterpret_cast<const T*>(bytes(b, n, out, r));
  }
  /// The same of a B of any dtype, which its packed elements have too.
  [[nodiscard]] const std::byte* bytes(const ParameterData& b, Index n, Index out, Index r) const {
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
    if (size_ != b.bytes()) packed_ = zeroed(size_ = b.bytes());
    if (b.dtype() == dtype_of<T>) pack_as<T>(b, [&](const T* from, T* to) { kernels::pack_b(out, r, from, to); });
    else pack_as<std::uint16_t>(b, [&](const auto* from, auto* to) { kernels::pack_narrow_b(out, r, from, to); });
    version_.store(wanted, std::memory_order_release);
  }
  template <class S, class F>
  void pack_as(const ParameterData& b, F f) const {
    f(reinterpret_cast<const S*>(b.data()), reinterpret_cast<S*>(packed_.get()));
  }

  mutable std::mutex mutex_;
  mutable std::atomic<std::uint64_t> version_{0};
  mutable std::size_t size_ = 0;
  mutable std::shared_ptr<std::byte> packed_;
};

}  // namespace graft::detail
