#include "graft/io/json_text.hpp"

#include <doctest/doctest.h>

#include <string>

using graft::detail::json_quoted;

TEST_CASE("strings are quoted as Python and as serde do") {
  const std::string text = "a\"\\/\b\f\n\r\t\x01\x7f é 漢 😀";
  CHECK(json_quoted(text, true) == R"("a\"\\/\b\f\n\r\t\u0001\u007f \u00e9 \u6f22 \ud83d\ude00")");
  CHECK(json_quoted(text, false) == "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\x7f é 漢 😀\"");
  CHECK(json_quoted("\U0010ffff", true) == R"("\udbff\udfff")");
}
