#include <graft/training/next_token_targets.hpp>

#include <doctest/doctest.h>

#include <limits>

using Ints = std::vector<int>;

TEST_CASE("targets are shifted inside each sequence") {
  graft::Batch batch;
  batch.add(3).add(1).add(2);
  const std::vector<int> ids{5, 6, 7, 8, 9, 4};
  const Ints expected{6, 7, -100, -100, 4, -100};
  CHECK(graft::next_token_targets(batch.input(ids)) == expected);
  CHECK(graft::next_token_targets(ids, batch) == expected);
  CHECK(graft::next_token_targets(std::vector<std::int64_t>{5, 6, 7, 8, 9, 4}, batch) == expected);
  CHECK(graft::next_token_targets(ids) == Ints{6, 7, 8, 9, 4, -100});
  CHECK(graft::next_token_targets(Ints{}).empty());
  CHECK_THROWS_AS((void)graft::next_token_targets(Ints{1, 2}, batch), graft::ShapeError);
}

TEST_CASE("labels that shall not be learnt stay so, and no id becomes another") {
  CHECK(graft::next_token_targets(Ints{3, -100, 4, 2}) == Ints{-100, 4, 2, -100});
  const std::vector<std::int64_t> wide{0, std::int64_t(1) << 32, -101, std::int64_t(-100) + (std::int64_t(1) << 32)};
  CHECK(graft::next_token_targets(wide) == Ints{std::numeric_limits<int>::max(), -1, std::numeric_limits<int>::max(), -100});
}
