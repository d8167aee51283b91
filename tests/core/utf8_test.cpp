#include <graft/core/utf8.hpp>

#include <doctest/doctest.h>

using graft::detail::is_utf8;

TEST_CASE("text that is not UTF-8 is recognised") {
  for (const char* good : {"", "a", "\xc2\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"})
    CHECK(is_utf8(good));
  for (const char* bad :
       {"\x80", "\xc3", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xc3", "\xe6\xbc"})
    CHECK_FALSE(is_utf8(bad));
}

TEST_CASE("code points are read one by one") {
  const char* const text = "a\u00e9\u6f22\U0001f600";
  std::size_t at = 0;
  for (const char32_t point : {U'a', U'\u00e9', U'\u6f22', U'\U0001f600'}) CHECK(graft::detail::next_code_point(text, at) == point);
  CHECK(at == 10);
}
