#pragma once

#include <cstdint>
#include <cstring>

#include "packed_copy.hpp"

namespace graft::detail {

/// B of a stack's LoRA (span, r · experts), whose column is ρ · experts + e, expert by expert: (experts, r, span), of B's
/// own dtype. Made at the first forward after B was written. Copies start empty.
class PackedStack {
 public:
  /// Null where somebody has a view of B, through which it may be written unannounced. Any number of threads may ask at
  /// once, as long as none writes B.
  [[nodiscard]] const std::byte* get(const ParameterData& b, Index experts, Index r) const {
    return packed_.get(b, [&](std::byte* to) {
      for (Index e = 0; e < experts; ++e) pack_one(b, experts, r, e, to + std::size_t(e) * b.bytes() / std::size_t(experts));
    });
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

  PackedCopy packed_;
};

}  // namespace graft::detail
