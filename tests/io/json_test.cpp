#include "graft/io/json.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

using namespace graft;

TEST_CASE("broken JSON is a FileError that says what and where") {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", " input"},  // "unexpected end of input", or from 3.11.3 of nlohmann's on "attempting to parse an empty input"
      {"{\"a\": 1,\n \"b\": }", "line 2, column 7"},
      {"{} {}", "column 4"},
      {"{\"a\": 1, \"a\": 1}", "'a' stands twice"},
      {"{\"a\": {\"b\": 1, \"b\": 2}}", "'b' stands twice"},
      {"[NaN]", "invalid literal"},
      {"[1e999]", "overflow"},
      {"[123456789012345678901234567890]", "over 64 bits"},
      {"[\"\\ud800\"]", "surrogate"},
      {"[\"\xff\"]", "UTF-8"},
      {std::string("[]\0garbage", 10), "zero byte"},
      {std::string(100'000, '['), "more than 64 deep"},
      {"// comment\n{}", "invalid literal"}};
  for (const auto& [text, part] : cases) {
    CAPTURE(text.substr(0, 40));
    try {
      (void)parse_json(text, "some.json");
      FAIL("was read");
    } catch (const FileError& error) {
      CHECK(error.problem.find("some.json") != std::string::npos);
      CHECK_MESSAGE(error.why.find(part) != std::string::npos, error.why);
    }
  }
}

TEST_CASE("keys of different objects may be equal, and 64 levels are not too deep") {
  CHECK(parse_json(R"([{"a": 1}, {"a": 2}])", "x").size() == 2);
  CHECK(parse_json(std::string(64, '[') + std::string(64, ']'), "x").size() == 1);
}

TEST_CASE("values are written as Python's json.dumps writes them") {
  const Json value =
      parse_json(R"({"b": [1, 2.0, {"é": null}], "a": {}, "B": [], "c": {"y": -0.0, "x": true}})", "x");
  CHECK(python_json(value) == R"({
  "B": [],
  "a": {},
  "b": [
    1,
    2.0,
    {
      "\u00e9": null
    }
  ],
  "c": {
    "x": true,
    "y": -0.0
  }
})");
  CHECK(python_json(value, {.indent = 0}) ==
        R"({"B": [], "a": {}, "b": [1, 2.0, {"\u00e9": null}], "c": {"x": true, "y": -0.0}})");
  CHECK(python_json(value, {.indent = 0, .sort_keys = false}) ==
        R"({"b": [1, 2.0, {"\u00e9": null}], "a": {}, "B": [], "c": {"y": -0.0, "x": true}})");
  CHECK(python_json(parse_json("[1]", "x"), {.depth = 1}) == "[\n    1\n  ]");
}
