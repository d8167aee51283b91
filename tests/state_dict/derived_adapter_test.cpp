#include <doctest/doctest.h>

#include <graft/regex.hpp>
#include <graft/state_dict/derived_adapter.hpp>
#include <string>
#include <vector>

#include "support/awkward_layers.hpp"
#include "support/results.hpp"

using graft::TargetModules;
using graft::detail::patterns_of;
using graft::detail::united;
using Strings = std::vector<std::string>;

TEST_CASE("patterns: longer paths first, the usual value only where another pattern would catch the path") {
  const auto patterns = patterns_of<int>({{"lin", 3}, {"sub.lin", 4}, {"sub.deep.lin", 2}, {"head", 4}}, 4);
  CHECK(patterns == graft::PatternMap<int>{{"sub.deep.lin", 2}, {"sub.lin", 4}, {"lin", 3}});
  CHECK(patterns_of<int>({{"a", 4}, {"b", 4}}, 4).empty());
}

TEST_CASE("targets are united: lists in order, patterns by |, not both") {
  const TargetModules first{"q", "k"}, second{"v", "q"}, pattern = graft::regex("a.*"),
                                                         other = graft::regex("b");
  CHECK(united({&first, &second}, "target_modules").names() == Strings{"q", "k", "v"});
  CHECK(united({&pattern, &other}, "target_modules").regex().pattern == "(a.*)|(b)");
  CHECK(united({&pattern, &other}, "target_modules").regex().matches("abc"));
  CHECK_THROWS_AS((void)united({&first, &pattern}, "target_modules"), graft::AdapterError);
}
