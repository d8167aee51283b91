#!/usr/bin/env python3
"""Writes unicode_classes.hpp: what the `tokenizers` package takes for letters, numbers and white space.

Every code point is put behind a letter, a digit and a sign: it belongs to the class that it is not cut off
from."""
import pathlib

from tokenizers import __version__, pre_tokenizers

OUT = pathlib.Path(__file__).resolve().parents[1] / "unicode_classes.hpp"
HEAD = """#pragma once

#include <algorithm>
#include <array>

namespace tales {{

/// The classes of code points that the GPT-2 split knows.
enum class CharacterClass {{ other, letter, number, space }};

namespace detail {{
struct CodePoints {{
  char32_t first, last;
}};
// Asked of tokenizers {version}, code point by code point, by tests/make_unicode_classes.py.
// clang-format off
"""
TAIL = """// clang-format on

template <std::size_t N>
constexpr bool holds(const std::array<CodePoints, N>& ranges, char32_t c) {{
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), c,
                                      [](char32_t value, const CodePoints& r) {{ return value < r.first; }});
  return after != ranges.begin() && c <= (after - 1)->last;
}}
}}  // namespace detail

/// The class of a code point, as in the Unicode categories L and N and the property White_Space.
constexpr CharacterClass class_of(char32_t c) {{
  if (c < 128) {{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return CharacterClass::letter;
    if (c >= '0' && c <= '9') return CharacterClass::number;
    return c == ' ' || (c >= '\\t' && c <= '\\r') ? CharacterClass::space : CharacterClass::other;
  }}
  if (detail::holds(detail::letters, c)) return CharacterClass::letter;
  if (detail::holds(detail::numbers, c)) return CharacterClass::number;
  return detail::holds(detail::spaces, c) ? CharacterClass::space : CharacterClass::other;
}}

}}  // namespace tales
"""


def classify():
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str
    ranges = {"letters": [], "numbers": [], "spaces": []}
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        name = next((name for name, head in (("letters", "a"), ("numbers", "1"), ("others", "!"))
                     if len(split(head + chr(code))) == 1), "spaces")
        if name == "others":
            continue
        if ranges[name] and ranges[name][-1][1] == code - 1:
            ranges[name][-1][1] = code
        else:
            ranges[name].append([code, code])
    return ranges


def table(name, ranges):
    lines = [f"inline constexpr std::array<CodePoints, {len(ranges)}> {name}{{{{"]
    line = " "
    for first, last in ranges:
        item = f" {{0x{first:x}, 0x{last:x}}},"
        if len(line) + len(item) > 110:
            lines.append(line)
            line = " "
        line += item
    return "\n".join([*lines, line, "}};", ""])


if __name__ == "__main__":
    tables = "".join(table(name, ranges) for name, ranges in classify().items())
    OUT.write_text(HEAD.format(version=__version__) + tables + TAIL.format(), encoding="ascii")
