#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace graft::detail {

/// Which characters one place of a pattern takes.
struct CharacterSet {
  struct Kind {
    char letter;  ///< one of "dDsSwW"
    bool is_ascii;
  };
  std::vector<std::pair<char32_t, char32_t>> ranges{};  ///< first and last
  std::vector<Kind> kinds{};
  bool is_negated = false, ignores_case = false;

  [[nodiscard]] bool contains(char32_t c) const {
    bool is_in = in_ranges(c);
    if (ignores_case && !is_in && is_letter(c)) is_in = in_ranges(c ^ 0x20);
    for (const Kind& kind : kinds) is_in = is_in || is_of(kind, c);
    return is_in != is_negated;
  }
  [[nodiscard]] static constexpr bool is_letter(char32_t c) { return (c >= U'a' && c <= U'z') || (c >= U'A' && c <= U'Z'); }
  [[nodiscard]] static constexpr bool is_digit(char32_t c) { return c >= U'0' && c <= U'9'; }
  [[nodiscard]] static constexpr bool is_word(char32_t c) { return is_letter(c) || is_digit(c) || c == U'_'; }

 private:
  [[nodiscard]] bool in_ranges(char32_t c) const {
    return std::any_of(ranges.begin(), ranges.end(), [c](const auto& range) { return range.first <= c && c <= range.second; });
  }
  /// For ASCII characters, and where the pattern says that there are no others.
  [[nodiscard]] static bool is_of(const Kind& kind, char32_t c) {
    const bool is_space = c == U' ' || (c >= U'\t' && c <= U'\r') || (!kind.is_ascii && c >= 0x1c && c <= 0x1f);
    switch (kind.letter) {
      case 'd': return is_digit(c);
      case 'D': return !is_digit(c);
      case 's': return is_space;
      case 'S': return !is_space;
      case 'w': return is_word(c);
      default: return !is_word(c);
    }
  }
};

/// A pattern, or a part of one, as Python's `re` reads it.
struct RegexNode {
  enum class Kind { character, sequence, alternatives, repeat, look, place };
  /// Python's \A, ^ and $ with (?m), $ without, \Z, \b and \B.
  enum class Place { begin, begin_of_line, end_of_line, end_or_last_break, end, word_boundary, no_word_boundary };
  static constexpr std::size_t endless = std::size_t(-1);

  Kind kind = Kind::sequence;
  std::vector<RegexNode> parts{};          ///< of repeat and look one
  CharacterSet set{};
  std::size_t least = 1, most = 1;         ///< how often it is repeated
  bool is_behind = false, is_negative = false;
  Place place = Place::begin;
  std::size_t shortest = 0, longest = 0;   ///< in characters; so many that nobody counts them are endless

  [[nodiscard]] static std::size_t plus(std::size_t a, std::size_t b) { return a > endless - b ? endless : a + b; }
  [[nodiscard]] static std::size_t times(std::size_t a, std::size_t b) { return a != 0 && b > endless / a ? endless : a * b; }
};

}  // namespace graft::detail
