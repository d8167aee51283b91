#pragma once

#include <bit>
#include <cstdint>

#include "version.hpp"

namespace graft {

/// A brain float: the upper half of a float's bits. Conversion to it rounds to nearest even; NaN stays NaN.
struct bf16 {
  std::uint16_t bits = 0;

  constexpr bf16() = default;
  constexpr explicit bf16(float value) : bits(round(value)) {}
  constexpr explicit operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
  [[nodiscard]] static constexpr bf16 from_bits(std::uint16_t bits) {
    bf16 value;
    value.bits = bits;
    return value;
  }
  friend constexpr bool operator==(bf16 a, bf16 b) { return float(a) == float(b); }

 private:
  static constexpr std::uint16_t round(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) return std::uint16_t(u >> 16 | 0x40u);  // quiet, never rounded to infinity
    return std::uint16_t((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
  }
};

/// An IEEE 754 half float. Conversion to it rounds to nearest even, overflows to infinity and keeps subnormals.
struct f16 {
  std::uint16_t bits = 0;

  constexpr f16() = default;
  constexpr explicit f16(float value) : bits(round(value)) {}
  constexpr explicit operator float() const { return widen(bits); }
  [[nodiscard]] static constexpr f16 from_bits(std::uint16_t bits) {
    f16 value;
    value.bits = bits;
    return value;
  }
  friend constexpr bool operator==(f16 a, f16 b) { return float(a) == float(b); }

 private:
  // Branch-free in the hot direction, so that loops over it vectorise: the exponent is moved by a
  // multiplication with 2^112, which also normalises subnormals.
  static constexpr float widen(std::uint16_t bits) {
    const std::uint32_t magnitude = std::uint32_t{bits & 0x7fffu} << 13;
    const float scaled = std::bit_cast<float>(magnitude) * std::bit_cast<float>(std::uint32_t{239u << 23});
    const std::uint32_t special = (bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | special | std::uint32_t{bits & 0x8000u} << 16);
  }
  static constexpr std::uint16_t round(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    const auto sign = std::uint16_t(u >> 16 & 0x8000u);
    const std::uint32_t magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return std::uint16_t(sign | 0x7e00u | (magnitude >> 13 & 0x1ffu));
    if (magnitude >= 0x477ff000u) return std::uint16_t(sign | 0x7c00u);  // 65520 and above
    if (magnitude < 0x38800000u) {                                        // below 2^-14: subnormal
      const float shifted = std::bit_cast<float>(magnitude) + std::bit_cast<float>(std::uint32_t{126u << 23});
      return std::uint16_t(sign | (std::bit_cast<std::uint32_t>(shifted) - (126u << 23)));
    }
    const std::uint32_t odd = magnitude >> 13 & 1u;
    return std::uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
  }
};

}  // namespace graft
