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
                                          "q.a",
                                          "Q_PROJ",
                                          "a\n"};
  const std::vector<std::pair<std::string, std::string>> cases{
      // what Python 3.11 answers
      {R"(.*q_proj)", "1100000000000000"},
      {R"(.*\.(q|v)_proj)", "0110000000000000"},
      {R"(model\.layers\.\d+\.self_attn\.[qkv]_proj)", "0110000000000000"},
      {R"(^(?!.*lm_head).*proj$)", "1110000000000000"},
      {R"((?:a|ab)(?:c|bcd))", "0000010000000000"},
      {R"(layers\.(0|1[0-9])\..*)", "0000001000000000"},
      {R"()", "0000000010000000"},
      {R"(a|b|)", "0000000011000000"},
      {R"([\w-]+)", "1001010001111010"},
      {R"(x{2,3}?)", "0000000000010000"},
      {R"(.*(?=b)b)", "0000000000001000"},
      {R"(\bq\b.*)", "0000000000000100"},
      {R"(.*\.(?P<which>q|v)_proj)", "0110000000000000"},
      {R"((?i)Q_Proj)", "1000000000000010"},
      {R"((?i:q)_proj)", "1000000000000000"},
      {R"((?x) .* \. [qv] _proj  # those)", "0110000000000000"},
      {R"((?#all of them).*proj)", "1110100000000000"},
      {R"((?#not \) yet)q_proj)", "1000000000000000"},
      {"(?x)q_pro # not \\\n yet\nj", "1000000000000000"},
      {R"(\A.*proj\Z)", "1110100000000000"},
      {R"(.*(?<=\.)(q|v)_proj)", "0110000000000000"},
      {R"(.*(?<!self_attn\.)q_proj)", "1000000000000000"},
      {R"((?<!x)q_proj)", "1000000000000000"},
      {R"((?=.*\.)(?!.*12).*_proj)", "0100000000000000"},
      {R"((?!^)a)", "0000000000000000"},
      {R"((?=\bq)q_proj)", "1000000000000000"},
      {R"(x{3})", "0000000000010000"},
      {R"(x{,3})", "0000000010010000"},
      {R"(x{2,})", "0000000000010000"},
      {R"(x{,})", "0000000010010000"},
      {R"(.*[.]1{1}2[.].*)", "0010001000000000"},
      {R"((?:x|xb)*)", "0000000010011000"},
      {R"((x*)*b)", "0000000000001000"},
      {R"((?=x)*xxx)", "0000000000010000"},
      {R"(.*?proj)", "1110100000000000"},
      {R"([^.]+)", "1001010001111011"},
      {R"([]q]_proj)", "1000000000000000"},
      {R"([a-c-]+d)", "0000010000000000"},
      {R"([[q]_proj)", "1000000000000000"},
      {R"(q\_proj)", "1000000000000000"},
      {R"(\x71_proj)", "1000000000000000"},
      {R"((?s).*)", "1111111111111111"},
      {R"(.*)", "1111111111111110"},
      {R"(a$\n)", "0000000000000001"},
      {R"(a\Z\n)", "0000000000000000"},
      {R"((?m)a$\s)", "0000000000000001"},
      {R"((?a)[\w]+)", "1001010001011010"},
      {R"(\B)", "0000000000000000"},
      {R"(\Bq.*)", "0000000000000000"},
      {R"(q\B_proj)", "1000000000000000"},
      {R"((?s-m:a.))", "0000000000000001"},
      {R"(layers\.(?:1|2)\d?\.x)", "0000001100000000"},
      {R"((lm_head|(?<=lm_head\.)proj|lm_head\.(?<=\.)proj))", "0001100000000000"},
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

TEST_CASE("what does not only ask what can match is refused, with a reason, and so is what Python refuses") {
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"(a++)", "possessive"},
      {R"(a{2,3}+)", "possessive"},
      {R"((?>a))", "'(?>'"},
      {R"((a)\1)", R"(escape '\1')"},
      {R"((?P<n>a)(?P=n))", "what a group matched"},
      {R"((a)?(?(1)b|c))", "'(?('"},
      {"(?i)\u00e9", "not ASCII"},
      {"\xff", "UTF-8"},
      {std::string(1025, 'a'), "1,024"},
      {"a{20000}", "too large"},
      {std::string(65, '(') + std::string(65, ')'), "64 deep"}};
  for (const auto& [pattern, part] : cases) {
    CAPTURE(pattern);
    const std::string why = refusal(pattern);
    CHECK_MESSAGE(why.find(part) != std::string::npos, why);
  }
  CHECK_NOTHROW((void)regex(std::string(64, '(') + std::string(64, ')')));
  // re.error in Python 3.11
  for (const char* pattern :
       {R"(a**)", R"(*a)", R"(^*)", R"(\b+)", R"(a{2}{3})", R"(a{3,2})", R"(a|*)", R"(a))", R"((a)", R"([a)", R"([])", R"([b-a])", R"([\d-z])",
        R"([a-\d])", "a\\", R"(\q)", R"([\A])", R"(\x4)", R"((?<n>a))", R"((?P<n>a)(?P<n>b))", R"((?P<1>a))", R"((?P<>a))", R"((?P<n a))",
        R"((?<=a*)b)", R"((?<!a|bc)d)", R"(a(?i)b)", R"((?:(?i)a))", R"(b|(?i)a)", R"((?-i)a)", R"((?i-)a)", R"((?i-i:a))", R"((?au)a)",
        R"((?L)a)", R"((?q)a)", R"((?)", R"((?P)", R"((?#a)", R"((?#\))", R"((?P=n))", R"((?P>n))"}) {
    CAPTURE(pattern);
    CHECK(refusal(pattern) != "");
  }
}

TEST_CASE("neither a long subject nor a nasty pattern brings the process down") {
  CHECK(regex(".*x").matches(std::string(4095, 'a') + "x"));
  CHECK_THROWS_AS((void)regex(".*x").matches(std::string(4096, 'a') + "x"), ConfigError);
  CHECK_FALSE(regex("(a*)*b").matches(std::string(200, 'a')));
  CHECK_FALSE(regex("(a|a?)+b").matches(std::string(200, 'a')));
  CHECK(regex("(?:(?:a?){30}){30}").matches(std::string(900, 'a')));
  CHECK(regex("(?:a{19999}){19999}").matches("") == false);
  CHECK(regex("((((a*)*)*)*)*").matches(std::string(4096, 'a')));
  CHECK_THROWS_WITH_AS((void)regex("(?:(?=.*(?=.*b)).)*").matches(std::string(4095, 'a') + "b"), doctest::Contains("too long"), ConfigError);
}

TEST_CASE("characters are code points, and kinds and cases of others than ASCII are refused") {
  CHECK(regex("m.d").matches("m\u00e9d"));
  CHECK(regex("m[^x]d").matches("m\u6f22d"));
  CHECK_FALSE(regex("m..d").matches("m\u00e9d"));
  CHECK(regex("m\u00e9d").matches("m\u00e9d"));
  CHECK(regex("m[\u00e0-\u00ef]d").matches("m\u00e9d"));
  CHECK(regex(R"(m\u00e9d)").matches("m\u00e9d"));
  CHECK(regex(R"(m\wd)").matches("mad"));
  for (const char* pattern : {R"(m\wd)", R"(m\b.d)", R"((?i)m.d)"}) {
    CAPTURE(pattern);
    CHECK_THROWS_AS((void)regex(pattern).matches("m\u00e9d"), ConfigError);
  }
  CHECK_FALSE(regex(R"((?a)m\wd)").matches("m\u00e9d"));
  CHECK(regex(R"((?a)m\Wd)").matches("m\u00e9d"));
  CHECK_THROWS_WITH_AS((void)regex(".*").matches("m\xe9"), doctest::Contains("UTF-8"), ConfigError);
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

TEST_CASE("a pattern must be one by itself, and flags for all of it are none in PEFT's anchors") {
  for (const char* pattern : {"q)|(k", "(?i)q_proj"}) {
    CAPTURE(pattern);
    CHECK_THROWS_AS((void)matches_pattern(pattern, "a.q_proj"), ConfigError);  // the second is re.error in PEFT
  }
  CHECK(matches_pattern("(?i:q_proj)", "a.Q_proj"));
  CHECK(matches_pattern("(?P<which>q|v)_proj", "a.v_proj"));
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
