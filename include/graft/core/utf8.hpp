#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace graft::detail {

/// The code point that starts at `at`, which moves past it; nothing where the text is not valid UTF-8.
[[nodiscard]] inline std::optional<char32_t> next_code_point(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? std::uint8_t(text[i]) : std::uint8_t(0); };
  const std::uint8_t first = byte(at);
  if ((first >= 0x80 && first < 0xc2) || first >= 0xf5) return std::nullopt;
  const std::size_t length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  char32_t point = length == 1 ? first : first & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xc0) != 0x80) return std::nullopt;
    point = point << 6 | (byte(at + i) & 0x3fu);
  }
  constexpr char32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
  if (point < smallest[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
    return std::nullopt;
  at += length;
  return point;
}

/// Whether a text is valid UTF-8.
[[nodiscard]] inline bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();)
    if (!next_code_point(text, at)) return false;
  return true;
}

}  // namespace graft::detail
