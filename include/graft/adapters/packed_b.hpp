#pragma once

#include "../kernels/low_rank.hpp"
#include "packed_copy.hpp"

namespace graft::detail {

/// B in the order in which updates read it, packed at the first forward after B was written. Copies start empty.
template <class T>
class PackedB {
 public:
  /// B (out, r) packed, for an update of n rows; null where packing gains nothing for so many, and where somebody has a
  /// view of B, through which it may be written unannounced. The bits are the same either way. Any number of threads
  /// may ask at once, as long as none writes B.
  [[nodiscard]] const T* get(const ParameterData& b, Index n, Index out, Index r) const {
    return reinterpret_cast<const T*>(bytes(b, n, out, r));
  }
  /// The same of a B of any dtype, which its packed elements have too.
  [[nodiscard]] const std::byte* bytes(const ParameterData& b, Index n, Index out, Index r) const {
    constexpr Index many = 32;  // rows that pay for turning a panel of B around
    if (n >= many) return nullptr;
    return packed_.get(b, [&](std::byte* to) {
      if (b.dtype() == dtype_of<T>) kernels::pack_b(out, r, reinterpret_cast<const T*>(b.data()), reinterpret_cast<T*>(to));
      else kernels::pack_narrow_b(out, r, reinterpret_cast<const std::uint16_t*>(b.data()), reinterpret_cast<std::uint16_t*>(to));
    });
  }

 private:
  PackedCopy packed_;
};

}  // namespace graft::detail
