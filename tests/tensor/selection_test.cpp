#include <doctest/doctest.h>

#include <graft/tensor/selection.hpp>

using graft::AdapterSelection;

TEST_CASE("a default selection follows what is active") {
  CHECK(AdapterSelection().follows_active());
  CHECK(AdapterSelection().list().empty());
}

TEST_CASE("base_only is a selection of none, not of what is active") {
  CHECK_FALSE(graft::base_only().follows_active());
  CHECK(graft::base_only().list().empty());
}

TEST_CASE("a selection keeps its order and weights") {
  const AdapterSelection selection({{3, 0.5}, {1, 2}});
  CHECK_FALSE(selection.follows_active());
  REQUIRE(selection.list().size() == 2);
  CHECK(selection.list()[0] == graft::WeightedAdapter{3, 0.5});
  CHECK(selection.list()[1] != graft::WeightedAdapter{1, 1});
  CHECK(graft::NamedWeight{"a"}.weight == 1);
}
