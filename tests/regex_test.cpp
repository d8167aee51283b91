#include "graft/regex.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

using namespace graft;

namespace {
std::string refusal(const std::string& pattern) {
  try {
    (void)regex(pattern);
  } catch (const ConfigError& error) {
    CHECK_FALSE(error.fix.empty());
    return error.why;
  }
  return "";
}
}  // namespace

TEST_CASE("a regex matches what Python's re.fullmatch matches") {
  const std::vector<std::string> subjects{"q_proj",
                                          "model.layers.0.self_attn.q_proj",
                                          "model.layers.12.self_attn.v_proj",
                                          "lm_head",
                                          "lm_head.proj",
                                          "abcd",
                                          "layers.12.x",
                                          "layers.2.x",
                                          "",
                                          "a",
                                          "x-y",
                                          "xxx",
                                          "xb",
                                          "q.a"};
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"(.*q_proj)", "11000000000000"},
      {R"(.*\.(q|v)_proj)", "01100000000000"},
      {R"(model\.layers\.\d+\.self_attn\.[qkv]_proj)", "01100000000000"},
      {R"(^(?!.*lm_head).*proj$)", "11100000000000"},
      {R"((?:a|ab)(?:c|bcd))", "00000100000000"},
      {R"(layers\.(0|1[0-9])\..*)", "00000010000000"},
      {R"()", "00000000100000"},
      {R"(a|b|)", "00000000110000"},
      {R"([\w-]+)", "10010100011110"},
      {R"(x{2,3}?)", "00000000000100"},
      {R"(.*(?=b)b)", "00000000000010"},
      {R"(\bq\b.*)", "00000000000001"},
  };
  for (const auto& [pattern, matches] : cases) {
    const Regex compiled = regex(pattern);
    CHECK(compiled.pattern == pattern);
    for (std::size_t i = 0; i < subjects.size(); ++i) {
      CAPTURE(pattern);
      CAPTURE(subjects[i]);
      CHECK(compiled.matches(subjects[i]) == (matches[i] == '1'));
    }
  }
}

TEST_CASE("what std::regex would read differently from Python is refused, with a reason") {
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"(\Aa)", "leave it out"},
      {R"(a\Z)", "leave it out"},
      {R"(a++)", "possessive"},
      {R"(a{2,3}+)", "possessive"},
      {R"((?<=a)b)", "'(?<'"},
      {R"((?<!a)b)", "'(?<'"},
      {R"((?P<n>a))", "'(?P'"},
      {R"((?i)a)", "'(?i'"},
      {R"((?>a))", "'(?>'"},
      {R"((?#a))", "'(?#'"},
      {R"((a)\1)", R"(escape '\1')"},
      {R"([\b])", R"(escape '\b')"},
      {R"(\B)", R"(escape '\B')"},
      {R"(\x41)", R"(escape '\x')"},
      {R"([]a])", "empty character class"},
      {R"([^]a])", "empty character class"},
      {R"([[:alpha:]])", "'['"},
      {R"([a-c-e])", "'-'"},
      {R"([\d-z])", "'-'"},
      {R"([a-\d])", "range"},
      {R"(a**)", "repetition"},
      {R"(*a)", "repetition"},
      {R"((?=a)*)", "repetition"},
      {R"(a{,2})", "'{'"},
      {R"(a{})", "'{'"},
      {R"(})", "'}'"},
      {R"(])", "']'"},
      {R"([a)", "not closed"},
      {R"(a))", "')'"},
      {"a\\", "backslash"},
      {R"((?!^)a)", "lookahead"},
      {R"((?=\b)a)", "lookahead"},
      {"\u00e9", "ASCII"},
      {std::string("a\0b", 3), "ASCII"},
      {std::string(1025, 'a'), "1,024"},
      {"(a{100}){100}{100}", "repetition"},
      {"(a{100}){1000}", "too large"},
      {std::string(65, '(') + std::string(65, ')'), "64 deep"}};
  for (const auto& [pattern, part] : cases) {
    CAPTURE(pattern);
    const std::string why = refusal(pattern);
    CHECK_MESSAGE(why.find(part) != std::string::npos, why);
  }
  for (const char* pattern : {"(a", "a{3,2}", "[b-a]"}) CHECK(refusal(pattern) != "");
}

TEST_CASE("neither a long subject nor a nasty pattern brings the process down") {
  CHECK(regex(".*x").matches(std::string(4095, 'a') + "x"));
  CHECK_THROWS_AS((void)regex(".*x").matches(std::string(4096, 'a') + "x"), ConfigError);
  CHECK_FALSE(regex("(a*)*b").matches(std::string(200, 'a')));
  CHECK_FALSE(regex("(a|a?)+b").matches(std::string(200, 'a')));
  CHECK(regex("(?:(?:a?){30}){30}").matches(std::string(900, 'a')));
}

TEST_CASE("a dot is one character of a path that is not ASCII, and kinds of characters are refused there") {
  CHECK(regex("m.d").matches("m\u00e9d"));
  CHECK(regex("m[^x]d").matches("m\u6f22d"));
  CHECK_FALSE(regex("m..d").matches("m\u00e9d"));
  CHECK(regex(R"(m\wd)").matches("mad"));
  CHECK_THROWS_AS((void)regex(R"(m\wd)").matches("m\u00e9d"), ConfigError);
}

TEST_CASE("a Regex that nobody compiled is an error, not a match") {
  CHECK_THROWS_AS((void)Regex{"a"}.matches("a"), ConfigError);
}

TEST_CASE("patterns may be regular expressions where this header is included") {
  const std::vector<std::string> paths{
      "q_proj",   "model.layers.0.q_proj", "model.layers.10.q_proj", "xq_proj", "a.xq_proj",
      "q_proj.x", "layers.0.q_proj"};
  const std::vector<std::pair<std::string, std::string>> cases{
      // by PEFT 0.21.2's get_pattern_key
      {R"(^q_proj)", "1000000"},        {R"(^model\.layers\.0\.q_proj)", "0100000"},
      {R"(.*q_proj)", "1111101"},       {R"([qx]+_proj)", "1111101"},
      {R"(layers\.\d\..*)", "0100001"}, {R"(q_proj|v_proj)", "1110001"},
      {R"(layers.*)", "0110001"},       {R"((^layers|b)\.0\.q_proj)", "0000001"},
  };
  for (const auto& [pattern, matches] : cases)
    for (std::size_t i = 0; i < paths.size(); ++i) {
      CAPTURE(pattern);
      CAPTURE(paths[i]);
      CHECK(matches_pattern(pattern, paths[i]) == (matches[i] == '1'));
    }
}

TEST_CASE("where this header is not included such a pattern is a ConfigError that names it") {
  const auto make_regex = std::exchange(detail::make_regex, nullptr);
  CHECK(matches_pattern("q_proj", "a.q_proj"));
  try {
    (void)matches_pattern("q.*", "a.q_proj");
    FAIL("was matched");
  } catch (const ConfigError& error) {
    CHECK(error.fix.find("graft/regex.hpp") != std::string::npos);
  }
  detail::make_regex = make_regex;
}

TEST_CASE("layers_pattern may be a regular expression, which takes as much of the path as it can") {
  struct Case {
    const char* path;
    std::vector<const char*> layers_patterns;
    int index;  // by PEFT 0.21.2
  };
  const std::vector<Case> cases{
      {"a.layers.3.q", {"l.*s"}, 3},
      {"layers.3.q", {"l.*s"}, 3},
      {"a.b.c.12.x.7.q", {"[hx]+"}, 7},
      {"model.layers.1.experts.0.q", {"l.*s"}, 0},
      {"layers.1.experts.0.q", {"l.*s"}, 0},
      {"h.5.q", {"[hx]+"}, 5},
      {"model.h.5.q", {"[hx]+"}, 5},
      {"model.h.5.layers.2.q", {"l.*s"}, 2},
      {"model.h.5.layers.2.q", {"[hx]+"}, 5},
      {"layers.2.layers.3.q", {"l.*s"}, 3},
      {"model.layers.4.h.5.q", {"l.*s"}, 4},
      {"model.layers.4.h.5.q", {"[hx]+"}, 5},
      {"xh.5.q", {"[hx]+"}, 5},
      {"a.layers.3.q", {"[hx]+"}, -1},
      {"layers.3.q", {"[hx]+"}, -1},
  };
  for (const Case& one : cases) {
    CAPTURE(one.path);
    CAPTURE(one.layers_patterns[0]);
    const auto layer = layer_index(one.path, {one.layers_patterns.begin(), one.layers_patterns.end()});
    CHECK((layer ? layer->index : -1) == one.index);
  }
}
