#include <graft/core/regex_match.hpp>

#include <doctest/doctest.h>

#include <string>

#include <graft/core/regex_syntax.hpp>

using graft::detail::RegexMatcher;
using graft::detail::RegexParser;

namespace {
std::optional<bool> matches(std::u32string_view pattern, std::u32string_view text) {
  RegexParser parser(pattern);
  const auto root = parser.parse();
  REQUIRE(parser.problem() == "");
  return RegexMatcher(text).matches_all(root);
}
}  // namespace

// What Python 3.11 answers; tests/regex_test.cpp has more.
TEST_CASE("a repetition takes as many as it may, and no more") {
  for (std::size_t count = 0; count < 9; ++count) {
    const std::u32string text(count, U'a');
    CHECK(matches(U"a{2,5}", text) == (count >= 2 && count <= 5));
    CHECK(matches(U"(?:aa|aaa){2}", text) == (count >= 4 && count <= 6));
    CHECK(matches(U"(?:a{0,2}){3}", text) == (count <= 6));
    CHECK(matches(U"(?:aa){2,}", text) == (count >= 4 && count % 2 == 0));
    CHECK(matches(U"(?:aaa|a{5}){1,}", text) == (count == 3 || count == 5 || count == 6 || count == 8));
    CHECK(matches(U"(?:a|){5}", text) == (count <= 5));
  }
}

TEST_CASE("what looks around sees the whole text, its ends and borders of words too") {
  CHECK(matches(U"a(?<=^a)b", U"ab") == true);
  CHECK(matches(U"ab(?<=^b)", U"ab") == false);
  CHECK(matches(U"a(?=b$)b", U"ab") == true);
  CHECK(matches(U"a(?=b$)bc", U"abc") == false);
  CHECK(matches(U"a(?=b\\b)b-", U"ab-") == true);
  CHECK(matches(U"(?:(?<!b)a|b)*", U"aabb") == true);
  CHECK(matches(U"(?:(?<!b)a|b)*", U"aabba") == false);
  CHECK(matches(U"(?<=a)", U"") == false);
  CHECK(matches(U"(?<!a)", U"") == true);
}

TEST_CASE("line breaks are Python's: a dollar sees a last one, and (?m) every one") {
  CHECK(matches(U"a$\n", U"a\n") == true);
  CHECK(matches(U"a$\nb", U"a\nb") == false);
  CHECK(matches(U"(?m)a$\n^b", U"a\nb") == true);
  CHECK(matches(U"a\\Z\n", U"a\n") == false);
  CHECK(matches(U".", U"\n") == false);
  CHECK(matches(U".", U"\r") == true);
  CHECK(matches(U"(?s).", U"\n") == true);
}

TEST_CASE("what takes too long has no answer") {
  CHECK(matches(U"(?:(?=.*(?=.*b)).)*", std::u32string(4095, U'a') + U'b') == std::nullopt);
  CHECK(matches(U"(?:(?=.*(?=.*b)).)*", std::u32string(40, U'a') + U'b') == true);
}
