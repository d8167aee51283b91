#include "graft/io/json_text.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

using graft::detail::is_utf8;
using graft::detail::json_quoted;
using graft::detail::python_float;

TEST_CASE("floats are written as Python's repr writes them") {
  const std::vector<std::pair<double, std::string>> expected{
      {0.0, "0.0"},        {-0.0, "-0.0"},           {1.0, "1.0"},          {16.0, "16.0"},
      {0.85, "0.85"},      {1e-5, "1e-05"},          {0.0001, "0.0001"},    {0.00012345, "0.00012345"},
      {1e15, "1000000000000000.0"},                  {1e16, "1e+16"},       {1e22, "1e+22"},
      {123456.789, "123456.789"},                    {1.0 / 3, "0.3333333333333333"},
      {5e-324, "5e-324"},  {1.7976931348623157e308, "1.7976931348623157e+308"},
      {-2.5e-7, "-2.5e-07"},                         {9007199254740993.0, "9007199254740992.0"},
      {1.5e100, "1.5e+100"}};
  for (const auto& [value, text] : expected) CHECK(python_float(value) == text);
}

TEST_CASE("strings are quoted as Python and as serde do") {
  const std::string text = "a\"\\/\b\f\n\r\t\x01\x7f é 漢 😀";
  CHECK(json_quoted(text, true) ==
        R"("a\"\\/\b\f\n\r\t\u0001\u007f \u00e9 \u6f22 \ud83d\ude00")");
  CHECK(json_quoted(text, false) == "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\x7f é 漢 😀\"");
  CHECK(json_quoted("\U0010ffff", true) == R"("\udbff\udfff")");
}

TEST_CASE("text that is not UTF-8 is recognised") {
  for (const char* good : {"", "a", "\xc2\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"}) CHECK(is_utf8(good));
  for (const char* bad : {"\x80", "\xc3", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xc3", "\xe6\xbc"})
    CHECK_FALSE(is_utf8(bad));
}
