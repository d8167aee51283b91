#pragma once

#include "vector.hpp"

namespace graft::kernels {

/// A weight (out, in) of signed bytes with one factor per row.
struct Int8View {
  const std::int8_t* values = nullptr;
  const float* scales = nullptr;  ///< (out)

  [[nodiscard]] Int8View row(std::ptrdiff_t o, std::ptrdiff_t ld) const { return {values + o * ld, scales + o}; }
};

/// A weight (out, in) of 4-bit indices into a code of 16 values, with one factor per block of columns. Rows are
/// padded to a multiple of 128 columns, the leading dimension: a group of 128 is 16 words of 32 bits, and nibble n
/// of word l is column 16 n + l.
struct FourBitView {
  const std::uint32_t* words = nullptr;
  const float* scales = nullptr;  ///< (out, ld >> block_shift); of padding alone: 0
  const float* code = nullptr;    ///< (16)
  int block_shift = 6;            ///< 6: blocks of 64 columns, 5: of 32

  static constexpr std::ptrdiff_t group = 128, words_per_group = 16;
  [[nodiscard]] FourBitView row(std::ptrdiff_t o, std::ptrdiff_t ld) const {
    return {words + o * ld / 8, scales + (o * ld >> block_shift), code, block_shift};
  }
};

}  // namespace graft::kernels

// What a product needs of a weight W: a row, a register of a row's columns, and the same at a row's end.
#define GRAFT_KERNELS "weight_view.inc"
#include "for_each_isa.inc"
