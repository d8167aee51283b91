#pragma once

#include <graft/core/error.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "unicode_classes.hpp"

namespace tales {

/// A code point of a text, its class and its first byte.
struct Character {
  char32_t value;
  CharacterClass kind;
  std::size_t begin;
};

/// The code points of UTF-8 text. @throws graft::FileError where the bytes are not UTF-8.
inline std::vector<Character> characters(std::string_view text) {
  std::vector<Character> all;
  all.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto byte = [&](std::size_t i) -> unsigned {
      return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
    };
    const unsigned lead = byte(0);
    const std::size_t length = lead < 0x80   ? 1
                               : lead < 0xc0 ? 0
                               : lead < 0xe0 ? 2
                               : lead < 0xf0 ? 3
                               : lead < 0xf8 ? 4
                                             : 0;
    char32_t value = length < 2 ? lead : lead & (0x7fu >> length);
    bool valid = length > 0;
    for (std::size_t i = 1; i < length; ++i) {
      valid = valid && (byte(i) & 0xc0u) == 0x80u;
      value = value << 6 | (byte(i) & 0x3fu);
    }
    constexpr char32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    valid = valid && value >= smallest[length] && value < 0x110000 && (value < 0xd800 || value > 0xdfff);
    if (!valid)
      graft::fail<graft::FileError>("the text is not UTF-8",
                                    "byte " + std::to_string(at) + " begins no character",
                                    "convert the text, for example with iconv");
    all.push_back({value, class_of(value), at});
    at += length;
  }
  return all;
}

/// Calls piece(string_view) for each word of GPT-2's pattern, in order; the pieces cover the text. The
/// pattern is 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
template <class F>
void gpt2_split(std::string_view text, F&& piece) {
  const std::vector<Character> all = characters(text);
  const std::size_t count = all.size();
  const auto begin_of = [&](std::size_t i) { return i < count ? all[i].begin : text.size(); };
  const auto end_of_run = [&](std::size_t i) {
    const CharacterClass kind = all[i].kind;
    while (i < count && all[i].kind == kind) ++i;
    return i;
  };
  const auto contraction = [&](std::size_t i) -> std::size_t {
    if (all[i].value != U'\'') return 0;
    for (const std::string_view ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"})
      if (text.substr(all[i].begin, ending.size()) == ending) return ending.size();
    return 0;
  };
  for (std::size_t i = 0; i < count;) {
    std::size_t end = i + contraction(i);
    if (end == i) {
      const std::size_t word = i + (all[i].value == U' ' && i + 1 < count ? 1 : 0);
      if (all[word].kind != CharacterClass::space) {
        end = end_of_run(word);
      } else {
        end = end_of_run(i);
        if (end < count && end - i > 1) --end;  // the last blank belongs to the word behind it
      }
    }
    piece(text.substr(all[i].begin, begin_of(end) - all[i].begin));
    i = end;
  }
}

/// Calls piece(string_view) for each run of numbers and each run between them; `individual`: for each number.
template <class F>
void digits_split(std::string_view text, bool individual, F&& piece) {
  const std::vector<Character> all = characters(text);
  std::size_t begin = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const bool number = all[i].kind == CharacterClass::number;
    const bool next_is_number = i + 1 < all.size() && all[i + 1].kind == CharacterClass::number;
    if (i + 1 < all.size() && number == next_is_number && !(number && individual)) continue;
    const std::size_t end = i + 1 < all.size() ? all[i + 1].begin : text.size();
    piece(text.substr(begin, end - begin));
    begin = end;
  }
}

}  // namespace tales
