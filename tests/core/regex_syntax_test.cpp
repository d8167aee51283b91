#include <graft/core/regex_syntax.hpp>

#include <doctest/doctest.h>

using graft::detail::RegexNode;
using graft::detail::RegexParser;

namespace {
/// The only part of the only alternative.
RegexNode only(std::u32string_view pattern) {
  RegexParser parser(pattern);
  const RegexNode all = parser.parse();
  REQUIRE(parser.problem() == "");
  REQUIRE(all.parts.size() == 1);
  REQUIRE(all.parts[0].parts.size() == 1);
  return all.parts[0].parts[0];
}
bool needs_ascii(std::u32string_view pattern) {
  RegexParser parser(pattern);
  (void)parser.parse();
  return parser.needs_ascii();
}
}  // namespace

TEST_CASE("counts of repetitions are Python's, and a brace that begins none is a brace") {
  struct Case {
    const char32_t* pattern;
    std::size_t least, most;
  };
  constexpr std::size_t endless = RegexNode::endless;
  for (const Case& one : {Case{U"a*", 0, endless}, {U"a+?", 1, endless}, {U"a?", 0, 1}, {U"a{3}", 3, 3}, {U"a{,3}", 0, 3}, {U"a{3,}?", 3, endless}, {U"a{,}", 0, endless}}) {
    const RegexNode node = only(one.pattern);
    CHECK(node.kind == RegexNode::Kind::repeat);
    CHECK(node.least == one.least);
    CHECK(node.most == one.most);
  }
  for (const char32_t* pattern : {U"{}", U"{a}", U"{2", U"{2,x}"}) {
    RegexParser parser(pattern);
    const RegexNode all = parser.parse();
    CHECK(parser.problem() == "");
    CHECK(all.shortest == std::u32string_view(pattern).size());
  }
}

TEST_CASE("how long a match can be is known, for what looks back") {
  const auto lengths = [](std::u32string_view pattern) {
    const RegexNode all = RegexParser(pattern).parse();
    return std::pair(all.shortest, all.longest);
  };
  constexpr std::size_t endless = RegexNode::endless;
  CHECK(lengths(U"ab|c") == std::pair<std::size_t, std::size_t>(1, 2));
  CHECK(lengths(U"(?:ab){2,3}c?") == std::pair<std::size_t, std::size_t>(4, 7));
  CHECK(lengths(U"a*") == std::pair<std::size_t, std::size_t>(0, endless));
  CHECK(lengths(U"(?=abc)^$") == std::pair<std::size_t, std::size_t>(0, 0));
  CHECK(lengths(U"(?:a{9999}){9999}") == std::pair<std::size_t, std::size_t>(9999 * 9999, 9999 * 9999));
}

TEST_CASE("flags hold for their group, or for all that follows") {
  CHECK(only(U"(?i)a").set.ignores_case);
  RegexParser parser(U"(?i:a)b");
  const RegexNode all = parser.parse();
  CHECK(all.parts[0].parts[0].parts[0].parts[0].set.ignores_case);
  CHECK_FALSE(all.parts[0].parts[1].set.ignores_case);
  CHECK(only(U"(?m)^").place == RegexNode::Place::begin_of_line);
  CHECK(only(U"^").place == RegexNode::Place::begin);
  CHECK(only(U"(?x) a # and no more").shortest == 1);
}

TEST_CASE("who asks for kinds or cases of letters needs ASCII, unless the pattern says that there is nothing else") {
  for (const char32_t* pattern : {U"\\w", U"[\\S]", U"\\b", U"(?i)a", U"(?i)[X-_]"}) CHECK(needs_ascii(pattern));
  for (const char32_t* pattern : {U"a.[^b]", U"(?a)\\w\\b", U"(?ai)a", U"(?i)1."}) CHECK_FALSE(needs_ascii(pattern));
}
