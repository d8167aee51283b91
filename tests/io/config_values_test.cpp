#include "graft/io/config_values.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace graft;
using namespace graft::detail;

namespace {
Json json(const std::string& text) { return parse_json(text, "test"); }
std::string text(const Json& value) { return python_json(value, {.indent = 0}); }
/// What a text is read as and written again, or "!" and what was expected instead.
template <class V>
std::string rewritten(const std::string& from) {
  V value{};
  if (const Expected expected = read_value(json(from), value)) return "!" + *expected;
  return text(written_value(value));
}
/// The same for a field that is wrapped.
template <class Wrapper, class V>
std::string rewritten_as(const std::string& from, V value = {}) {
  if (const Expected expected = read_value(json(from), Wrapper{value})) return "!" + *expected;
  return text(written_value(Wrapper{value}));
}
}  // namespace

TEST_CASE("scalars take their own JSON type alone") {
  CHECK(rewritten<int>("-3") == "-3");
  CHECK(rewritten<int>("3.0") == "!an integer");
  CHECK(rewritten<int>("true") == "!an integer");
  CHECK(rewritten<int>("null") == "!an integer");
  CHECK(rewritten<int>("2147483648") == "!an integer that fits 32 bits");
  CHECK(rewritten<int>("18446744073709551615") == "!a smaller integer");
  CHECK(rewritten<double>("3") == "3.0");
  CHECK(rewritten<double>("1e-5") == "1e-05");
  CHECK(rewritten<double>("\"3\"") == "!a number");
  CHECK(rewritten<double>("false") == "!a number");
  CHECK(rewritten<bool>("true") == "true");
  CHECK(rewritten<bool>("1") == "!true or false");
  CHECK(rewritten<Bias>("\"lora_only\"") == "\"lora_only\"");
  CHECK(rewritten<Bias>("\"all\"") == "\"all\"");
  CHECK(rewritten<Bias>("\"none\"") == "\"none\"");
  CHECK(rewritten<Bias>("\"None\"").starts_with("!"));
  CHECK(rewritten<Bias>("null").starts_with("!"));
}

TEST_CASE("lora_alpha has a fraction only where it needs one") {
  CHECK(rewritten_as<Plain<double>, double>("16.0") == "16");
  CHECK(rewritten_as<Plain<double>, double>("-0.5") == "-0.5");
  CHECK(rewritten_as<Plain<double>, double>("1e20") == "1e+20");
  CHECK(rewritten_as<Plain<PatternMap<double>>, PatternMap<double>>("{\"b\": 16.0, \"a\": 0.5}") ==
        "{\"a\": 0.5, \"b\": 16}");
}

TEST_CASE("initialisations") {
  CHECK(InitLoraWeights(false) == [] {
    InitLoraWeights v = true;
    (void)read_value(json("false"), v);
    return v;
  }());
  InitLoraWeights init = true;
  CHECK_FALSE(read_value(json("\"pissa\""), init));
  CHECK(init == InitLoraWeights("pissa"));
  CHECK(text(written_value(init)) == "\"pissa\"");
  for (const char* falsy : {"\"\"", "null"}) {
    CHECK_FALSE(read_value(json(falsy), init));
    CHECK(init == InitLoraWeights(false));
    init = true;
  }
  CHECK(read_value(json("1"), init));
  CHECK(rewritten_as<Truthy, bool>("\"gaussian\"") == "true");
  CHECK(rewritten_as<Truthy, bool>("\"\"", true) == "false");
  CHECK(rewritten_as<Truthy, bool>("null", true) == "false");
  CHECK(rewritten_as<Truthy, bool>("1").starts_with("!"));
}

TEST_CASE("lists") {
  CHECK(rewritten<std::vector<int>>("[3, 1]") == "[3, 1]");
  CHECK(rewritten<std::vector<int>>("[]") == "null");
  CHECK(rewritten<std::vector<int>>("null") == "null");
  CHECK(rewritten<std::vector<int>>("[3, \"1\"]") == "!a list, each item an integer");
  CHECK(rewritten<std::vector<std::string>>("\"a\"") == "!a list or null");
  CHECK(rewritten_as<OneOrMore<int>, std::vector<int>>("3") == "[3]");
  CHECK(rewritten_as<OneOrMore<int>, std::vector<int>>("[3, 0]") == "[3, 0]");
  CHECK(rewritten_as<OneOrMore<int>, std::vector<int>>("\"3\"") == "!a list, null or an integer");
  CHECK(rewritten_as<OneOrMore<std::string>, std::vector<std::string>>("\"h\"") == "[\"h\"]");
  CHECK(rewritten_as<OneOrMore<std::string>, std::vector<std::string>>("\"\"", {"old"}) == "null");
}

TEST_CASE("patterns keep the order of the file; the first of equal ones is written") {
  PatternMap<int> map;
  CHECK_FALSE(read_value(json("{\"q\": 1, \"a\": 2}"), map));
  CHECK(map == PatternMap<int>{{"q", 1}, {"a", 2}});
  CHECK(text(written_value(PatternMap<int>{{"q", 1}, {"q", 2}})) == "{\"q\": 1}");
  CHECK(rewritten<PatternMap<int>>("null") == "{}");
  CHECK(rewritten<PatternMap<int>>("{\"q\": 1.5}") == "!for 'q' an integer");
  CHECK(rewritten<PatternMap<int>>("[1]") == "!an object or null");
}

TEST_CASE("AdaLoRA's rank pattern: paths here, parameter names in the file, with or without the adapter's") {
  RankPattern pattern;
  CHECK_FALSE(read_value(json(R"({"m.q.lora_E": [true, false], "v.lora_E.default": [], "lora_E": [true]})"),
                         pattern));
  CHECK(pattern == RankPattern{{"m.q", {true, false}}, {"v", {}}, {"", {true}}});
  CHECK(text(written_value(pattern)) == R"({"lora_E": [true], "m.q.lora_E": [true, false], "v.lora_E": []})");
  CHECK(text(written_value(RankPattern{{"q.lora_E", {true}}})) == R"({"q.lora_E": [true]})");
  CHECK(text(written_value(RankPattern{})) == "null");
  CHECK(rewritten<RankPattern>("{\"q\": [true]}") == "!keys that end with '.lora_E', not 'q'");
  CHECK(rewritten<RankPattern>("{\"q.lora_E\": [1]}").starts_with("!"));
  CHECK(rewritten<RankPattern>("{\"q.lora_E\": 1}").starts_with("!"));
}

TEST_CASE("token indices are a list, of embed_tokens, or lists by module") {
  TokenIndices tokens;
  CHECK_FALSE(read_value(json("[3, 1]"), tokens));
  CHECK(tokens == TokenIndices{3, 1});
  CHECK(rewritten<TokenIndices>("[3, 1]") == "[3, 1]");
  CHECK(rewritten<TokenIndices>("{\"b\": [1], \"a\": []}") == "{\"a\": [], \"b\": [1]}");
  CHECK(rewritten<TokenIndices>("null") == "null");
  CHECK(rewritten<TokenIndices>("[]") == "[]");
  for (const char* wrong : {"1", "[true]", "{\"a\": 1}", "\"a\""})
    CHECK(rewritten<TokenIndices>(wrong).starts_with("!"));
}

TEST_CASE("targets: a list in any order, a regex, all-linear in any case") {
  CHECK(rewritten<TargetModules>("[\"v\", \"q\", \"v\"]") == "[\"q\", \"v\"]");
  TargetModules targets;
  CHECK_FALSE(read_value(json("[\"v\", \"q\"]"), targets));
  CHECK(targets.names() == std::vector<std::string>{"v", "q"});
  CHECK_FALSE(read_value(json("\".*q\""), targets));
  REQUIRE(targets.kind() == TargetModules::Kind::regex);
  CHECK(targets.regex().matches("a.q"));
  CHECK_FALSE(targets.regex().matches("a.v"));
  CHECK_FALSE(read_value(json("\"(?i)a[.]q\""), targets));
  CHECK(targets.regex().matches("A.q"));
  CHECK(rewritten<TargetModules>("[]") == "[]");
  CHECK(rewritten<TargetModules>("null") == "null");
  CHECK(rewritten<TargetModules>("[1]").starts_with("!"));
  CHECK(rewritten<TargetModules>("{}").starts_with("!"));
  CHECK_THROWS_AS(rewritten<TargetModules>("\"(?>q)\""), ConfigError);
  CHECK(rewritten_as<Targets, TargetModules>("\"ALL-linear\"") == "\"all-linear\"");
  CHECK_FALSE(read_value(json("\"all-linear\""), targets));
  CHECK(targets.kind() == TargetModules::Kind::regex);
  CHECK(rewritten_as<Required, TargetModules>("[]") == "[]");
  CHECK(rewritten_as<Required, TargetModules>("null").starts_with("!"));
  TargetModules unset;
  CHECK(text(written_value(Required{unset})) == "[]");
  CHECK(rewritten_as<NullIfZero, int>("null", 5) == "null");
  CHECK(rewritten_as<NullIfZero, int>("7") == "7");
}
