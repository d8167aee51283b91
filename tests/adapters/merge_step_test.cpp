#include <graft/adapters/merge_step.hpp>

#include <doctest/doctest.h>

TEST_CASE("a copy of a step owns what it keeps") {
  graft::MergeStep step{.ids = {3}, .changes_weight = true};
  step.weight = graft::ParameterData(graft::Dtype::f32, graft::Shape{2});
  step.weight->allocate();
  const graft::MergeStep copy = step;
  REQUIRE(copy.weight.has_value());
  CHECK(copy.weight->data() != step.weight->data());
  CHECK(copy.ids == step.ids);
  CHECK_FALSE(copy.bias.has_value());
}
