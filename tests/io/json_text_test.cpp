#include "graft/io/json_text.hpp"

#include <doctest/doctest.h>

#include <string>

using graft::detail::is_utf8;
using graft::detail::json_quoted;

TEST_CASE("strings are quoted as Python and as serde do") {
  const std::string text = "a\"\\/\b\f\n\r\t\x01\x7f é 漢 😀";
  CHECK(json_quoted(text, true) == R"("a\"\\/\b\f\n\r\t\u0001\u007f \u00e9 \u6f22 \ud83d\ude00")");
  CHECK(json_quoted(text, false) == "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\x7f é 漢 😀\"");
  CHECK(json_quoted("\U0010ffff", true) == R"("\udbff\udfff")");
}

TEST_CASE("text that is not UTF-8 is recognised") {
  for (const char* good : {"", "a", "\xc2\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"})
    CHECK(is_utf8(good));
  for (const char* bad :
       {"\x80", "\xc3", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xc3", "\xe6\xbc"})
    CHECK_FALSE(is_utf8(bad));
}
