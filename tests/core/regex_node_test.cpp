#include <graft/core/regex_node.hpp>

#include <doctest/doctest.h>

using graft::detail::CharacterSet;
using graft::detail::RegexNode;

TEST_CASE("a set of characters is ranges and kinds, turned around or not") {
  const CharacterSet some{.ranges = {{U'a', U'c'}, {U'_', U'_'}}, .kinds = {{'d', false}}};
  for (const char32_t c : {U'a', U'b', U'c', U'_', U'0', U'9'}) CHECK(some.contains(c));
  for (const char32_t c : {U'd', U'A', U' ', U'\u00e9'}) CHECK_FALSE(some.contains(c));
  CharacterSet others = some;
  others.is_negated = true;
  for (char32_t c = 0; c < 0x200; ++c) CHECK(others.contains(c) != some.contains(c));
}

TEST_CASE("where case is ignored a letter is in it in both cases, and nothing else is another's case") {
  const CharacterSet some{.ranges = {{U'X', U'_'}}, .ignores_case = true};  // X Y Z [ \ ] ^ _
  for (const char32_t c : {U'x', U'X', U'z', U'[', U'^', U'_'}) CHECK(some.contains(c));
  for (const char32_t c : {U'w', U'W', U'{', U'|', U'~', U'\x7f', U'?'}) CHECK_FALSE(some.contains(c));
}

TEST_CASE("kinds of characters are Python's: four separators are space but for (?a)") {
  for (const bool is_ascii : {false, true}) {
    const CharacterSet space{.kinds = {{'s', is_ascii}}}, no_space{.kinds = {{'S', is_ascii}}};
    for (char32_t c = 0; c < 0x80; ++c) {
      const bool is_space = c == 0x20 || (c >= 9 && c <= 13) || (!is_ascii && c >= 0x1c && c <= 0x1f);
      CHECK(space.contains(c) == is_space);
      CHECK(no_space.contains(c) != is_space);
    }
  }
}

TEST_CASE("lengths that nobody counts stay endless") {
  constexpr std::size_t endless = RegexNode::endless;
  CHECK(RegexNode::plus(3, 4) == 7);
  CHECK(RegexNode::plus(endless - 3, 4) == endless);
  CHECK(RegexNode::plus(endless, 0) == endless);
  CHECK(RegexNode::times(3, 4) == 12);
  CHECK(RegexNode::times(0, endless) == 0);
  CHECK(RegexNode::times(endless, 0) == 0);
  CHECK(RegexNode::times(std::size_t(1) << 40, std::size_t(1) << 40) == endless);
}
