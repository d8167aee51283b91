#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "products.hpp"

/// Weights of one byte or four bits: from float, back to float, and from the bytes of bitsandbytes and ggml. Cold code: products read
/// the result through an Int8View or a FourBitView.
namespace graft::kernels {

/// bitsandbytes' NF4 (QLoRA, arXiv:2305.14314, appendix E): the values of the indices 0 to 15, times a block's largest
/// magnitude.
inline constexpr float nf4_code[16] = {
    -1.0f,           -0.6961928009986877f,  -0.5250730514526367f, -0.39491748809814453f,
    -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
    0.07958029955625534f,  0.16093020141124725f,  0.24611230194568634f,  0.33791524171829224f,
    0.44070982933044434f,  0.5626170039176941f,   0.7229568362236023f,   1.0f};
/// bitsandbytes' FP4: sign, two bits of exponent, one of mantissa, over 12.
inline constexpr float fp4_code[16] = {0.0f,  0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  0.5f,  2.0f / 12,  0.25f,
                                       -0.0f, -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -0.5f, -2.0f / 12, -0.25f};
/// The integers -8 to 7, as ggml's q4_0 has them.
inline constexpr float int4_code[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};

/// The columns of a row of 4-bit indices, padding included.
[[nodiscard]] constexpr std::ptrdiff_t four_bit_columns(std::ptrdiff_t in) {
  return (in + FourBitView::group - 1) / FourBitView::group * FourBitView::group;
}

inline namespace GRAFT_BUILD {

namespace detail {
inline std::uint32_t get_nibble(const std::uint32_t* words, std::ptrdiff_t column) {
  const std::ptrdiff_t in_group = column % FourBitView::group;
  return words[(column - in_group) / 8 + in_group % 16] >> (in_group / 16 * 4) & 15u;
}
// Into words that hold zero there.
inline void put_nibble(std::uint32_t* words, std::ptrdiff_t column, std::uint32_t index) {
  const std::ptrdiff_t in_group = column % FourBitView::group;
  words[(column - in_group) / 8 + in_group % 16] |= index << (in_group / 16 * 4);
}
inline std::uint32_t zero_index(const float* code) {
  for (std::uint32_t i = 0; i < 16; ++i)
    if (code[i] == 0) return i;
  return 0;
}
// The nearest of the code's values; of two equally near ones the smaller, as bitsandbytes compares with midpoints.
inline std::uint32_t nearest_index(const float* code, float value) {
  std::uint32_t best = 0;
  for (std::uint32_t i = 1; i < 16; ++i) {
    const float distance = std::abs(code[i] - value), least = std::abs(code[best] - value);
    if (distance < least || (distance == least && code[i] < code[best])) best = i;
  }
  return best;
}
}  // namespace detail

/// w (out, in) with rows ldw apart, to signed bytes: values (out, in), scales (out), w ~ values * scales. A row of
/// zeros has scale 0.
inline void quantize_int8(std::ptrdiff_t out, std::ptrdiff_t in, const float* w, std::ptrdiff_t ldw,
                          std::int8_t* values, float* scales) {
  for (std::ptrdiff_t o = 0; o < out; ++o) {
    float largest = 0;
    for (std::ptrdiff_t i = 0; i < in; ++i) largest = std::max(largest, std::abs(w[o * ldw + i]));
    scales[o] = largest / 127;
    for (std::ptrdiff_t i = 0; i < in; ++i) {
      const float scaled = scales[o] > 0 ? std::nearbyint(w[o * ldw + i] / scales[o]) : 0.0f;
      values[o * in + i] = std::int8_t(std::clamp(scaled, -127.0f, 127.0f));
    }
  }
}

/// w (out, in) with rows ldw apart, to indices into `code`: words (out, four_bit_columns(in) / 8), scales
/// (out, four_bit_columns(in) >> block_shift). A block's scale is its largest magnitude over the code's; with int4_code
/// the element of the largest magnitude becomes -8, as in q4_0.
inline void quantize_four_bit(std::ptrdiff_t out, std::ptrdiff_t in, const float* w, std::ptrdiff_t ldw,
                              const float* code, int block_shift, std::uint32_t* words, float* scales) {
  const std::ptrdiff_t columns = four_bit_columns(in), block = std::ptrdiff_t{1} << block_shift;
  const bool is_integer = code[0] == -8;
  std::fill(words, words + out * columns / 8, 0u);
  for (std::ptrdiff_t o = 0; o < out; ++o, words += columns / 8, scales += columns >> block_shift)
    for (std::ptrdiff_t begin = 0; begin < columns; begin += block) {
      const std::ptrdiff_t end = std::min(begin + block, in);
      float extreme = 0;
      for (std::ptrdiff_t i = begin; i < end; ++i)
        if (std::abs(w[o * ldw + i]) > std::abs(extreme)) extreme = w[o * ldw + i];
      const float scale = is_integer ? extreme / -8 : std::abs(extreme);
      scales[begin >> block_shift] = scale;
      for (std::ptrdiff_t i = begin; i < begin + block; ++i)
        detail::put_nibble(words, i, i < end && scale != 0 ? detail::nearest_index(code, w[o * ldw + i] / scale) : detail::zero_index(code));
    }
}

/// bitsandbytes' 4-bit bytes (out * in / 2, the first of two neighbours in the upper half) and the largest magnitudes
/// of blocks of 64 or 32 neighbours, to a FourBitView's words and scales. Blocks must not cross rows: in is a multiple
/// of the block.
inline void repack_bitsandbytes(std::ptrdiff_t out, std::ptrdiff_t in, const std::uint8_t* bytes, const float* absmax,
                                const float* code, int block_shift, std::uint32_t* words, float* scales) {
  const std::ptrdiff_t columns = four_bit_columns(in);
  std::fill(words, words + out * columns / 8, 0u);
  std::fill(scales, scales + (out * columns >> block_shift), 0.0f);
  for (std::ptrdiff_t o = 0; o < out; ++o, words += columns / 8, scales += columns >> block_shift) {
    for (std::ptrdiff_t i = 0; i < columns; ++i) {
      const std::ptrdiff_t at = o * in + i;
      const std::uint32_t pair = i < in ? bytes[at / 2] : 0u;
      detail::put_nibble(words, i, i >= in ? detail::zero_index(code) : at % 2 ? pair & 15u : pair >> 4);
    }
    for (std::ptrdiff_t i = 0; i < in; i += std::ptrdiff_t{1} << block_shift)
      scales[i >> block_shift] = absmax[(o * in + i) >> block_shift];
  }
}

/// ggml's q4_0: the bytes of a block of 32 columns, a factor in f16 (little-endian) and 16 bytes of which byte j holds
/// column j in its lower half and column j + 16 in its upper half, each 8 more than the integer that is meant.
inline constexpr std::ptrdiff_t q4_0_block = 32, q4_0_bytes = 18;

/// Rows of q4_0 blocks, (out, in / 32) of 18 bytes, to a FourBitView's words and scales in blocks of 32 with int4_code.
/// in is a multiple of 32.
inline void repack_q4_0(std::ptrdiff_t out, std::ptrdiff_t in, const std::uint8_t* blocks, std::uint32_t* words, float* scales) {
  const std::ptrdiff_t columns = four_bit_columns(in), half = q4_0_block / 2;
  std::fill(words, words + out * columns / 8, 0u);
  std::fill(scales, scales + out * columns / q4_0_block, 0.0f);
  for (std::ptrdiff_t o = 0; o < out; ++o, words += columns / 8, scales += columns / q4_0_block) {
    for (std::ptrdiff_t begin = 0; begin < in; begin += q4_0_block, blocks += q4_0_bytes) {
      scales[begin / q4_0_block] = float(f16::from_bits(std::uint16_t(blocks[0] | blocks[1] << 8)));
      for (std::ptrdiff_t j = 0; j < half; ++j) {
        detail::put_nibble(words, begin + j, blocks[2 + j] & 15u);
        detail::put_nibble(words, begin + j + half, std::uint32_t(blocks[2 + j]) >> 4);
      }
    }
    for (std::ptrdiff_t i = in; i < columns; ++i) detail::put_nibble(words, i, detail::zero_index(int4_code));
  }
}

/// y (out, in) = the float values of a view with rows ldw apart.
inline void dequantize(std::ptrdiff_t out, std::ptrdiff_t in, const Int8View& w, std::ptrdiff_t ldw, float* y) {
  for (std::ptrdiff_t o = 0; o < out; ++o)
    for (std::ptrdiff_t i = 0; i < in; ++i) y[o * in + i] = float(w.values[o * ldw + i]) * w.scales[o];
}
inline void dequantize(std::ptrdiff_t out, std::ptrdiff_t in, const FourBitView& w, std::ptrdiff_t ldw, float* y) {
  for (std::ptrdiff_t o = 0; o < out; ++o) {
    const FourBitView row = w.row(o, ldw);
    for (std::ptrdiff_t i = 0; i < in; ++i)
      y[o * in + i] = w.code[detail::get_nibble(row.words, i)] * row.scales[i >> w.block_shift];
  }
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
