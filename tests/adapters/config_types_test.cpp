#include <graft/adapters/config_types.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

using graft::TargetModules;
using Strings = std::vector<std::string>;

TEST_CASE("target modules are unset, a list, a regex or all linear layers") {
  CHECK(TargetModules().kind() == TargetModules::Kind::unset);
  CHECK_FALSE(TargetModules().is_set());
  const std::string text = "b";
  const std::string_view view = "c";
  CHECK(TargetModules{"a", text, view}.names() == Strings{"a", "b", "c"});
  CHECK(TargetModules{"a"}.kind() == TargetModules::Kind::list);
  CHECK(TargetModules(Strings{}).is_set());
  CHECK(TargetModules(Strings{}).kind() == TargetModules::Kind::list);
  CHECK(TargetModules(graft::all_linear).kind() == TargetModules::Kind::all_linears);
  CHECK(TargetModules(graft::Regex{"a|b"}).kind() == TargetModules::Kind::regex);
  CHECK(TargetModules{"a"} == TargetModules(Strings{"a"}));
  CHECK_FALSE(TargetModules{"a"} == TargetModules(graft::Regex{"a"}));
  CHECK_FALSE(TargetModules{"a", "b"} == TargetModules{"b", "a"});
}

TEST_CASE("a regex that nobody compiled is a typed error that says what to include") {
  CHECK_THROWS_WITH_AS((void)graft::Regex{"a"}.matches("a"), doctest::Contains("graft/regex.hpp"),
                       graft::ConfigError);
}

TEST_CASE("patterns keep their order") {
  graft::PatternMap<int> map{{"q", 4}, {"a", 2}};
  map.emplace_back("k", 1);
  CHECK(map.size() == 3);
  CHECK(map[0].first == "q");
  CHECK(map[2].second == 1);
}

TEST_CASE("a literal is a scheme, never a bool") {
  CHECK(graft::InitLoraWeights(true).is_bool());
  CHECK_FALSE(graft::InitLoraWeights(false).value());
  CHECK_FALSE(graft::InitLoraWeights("gaussian").is_bool());
  CHECK(graft::InitLoraWeights("gaussian").scheme() == "gaussian");
  CHECK(graft::InitLoraWeights(std::string("pissa")) == graft::InitLoraWeights("pissa"));
}

TEST_CASE("token indices are of embed_tokens, or by name") {
  CHECK(graft::TokenIndices().empty());
  const graft::TokenIndices list{1, 2, 3};
  CHECK(list.is_list());
  CHECK(list.modules().front().first == "embed_tokens");
  CHECK(list.modules().front().second == std::vector<graft::Index>{1, 2, 3});
  const graft::TokenIndices named{{"wte", {1, 2}}, {"head", {3}}};
  CHECK_FALSE(named.is_list());
  CHECK(named.modules().size() == 2);
}

TEST_CASE("extra fields are found by name") {
  const graft::ExtraFields extra{{"revision", "null"}, {"x", "{\"a\":1}"}};
  CHECK(*extra.find("x") == "{\"a\":1}");
  CHECK(extra.find("y") == nullptr);
}

TEST_CASE("lists of pairs come from a vector that was made elsewhere") {
  const std::vector<std::pair<std::string, int>> ranks{{"q_proj", 3}, {"v_proj", 5}};
  const graft::PatternMap<int> pattern = ranks;
  CHECK(pattern[1].second == 5);
  const graft::RankPattern kept = std::vector<std::pair<std::string, std::vector<bool>>>{{"a", {true, false}}};
  CHECK(kept[0].second == std::vector<bool>{true, false});
  const graft::ExtraFields extra = std::vector<std::pair<std::string, std::string>>{{"task_type", "null"}};
  CHECK(extra.find("task_type") != nullptr);
  const std::vector<int> ids{1, 4};
  CHECK(graft::TokenIndices(ids) == graft::TokenIndices{1, 4});
  CHECK(graft::TokenIndices(std::vector<int>{}).empty());
}
