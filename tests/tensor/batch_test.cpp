#include <doctest/doctest.h>

#include <graft/tensor/rows.hpp>
#include <vector>

#include "support/ramp.hpp"

using graft::AdapterSelection;
using graft::Batch;
using graft::BatchView;
using graft::CacheError;
using graft::Index;
using graft::KvCache;
using graft::Matrix;
using graft::ShapeError;

namespace {
AdapterSelection adapter(unsigned id, double weight = 1) { return AdapterSelection({{id, weight}}); }

void fill(KvCache<>& cache, Index rows) {
  const Matrix<> keys = Matrix<>::Zero(rows, 2);
  cache.append(0, cache.length(), graft::in(keys), graft::in(keys));
}
}  // namespace

TEST_CASE("sequences lie one after another and count from position 0") {
  Batch batch;
  batch.add(3).add(0).add(5);
  const BatchView view = batch.view();
  REQUIRE(view.sequences.size() == 3);
  CHECK(batch.rows() == 8);
  CHECK(view.sequences[1].begin == 3);
  CHECK(view.sequences[2].begin == 3);
  CHECK(view.sequences[2].rows == 5);
  CHECK(view.sequences[2].position == 0);
  CHECK(view.workspace == &batch.workspace());
}

TEST_CASE("neighbours of one selection are one segment") {
  Batch batch;
  batch.add(1).add(2).add(3, adapter(4)).add(4, adapter(4)).add(5, adapter(4, 0.5)).add(6, graft::base_only()).add(7);
  const BatchView view = batch.view();
  REQUIRE(view.segments.size() == 5);
  const std::vector<std::pair<Index, Index>> wanted{{0, 3}, {3, 7}, {10, 5}, {15, 6}, {21, 7}};
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    CHECK(view.segments[i].begin == wanted[i].first);
    CHECK(view.segments[i].rows == wanted[i].second);
  }
  CHECK(view.segments[0].active);
  CHECK_FALSE(view.segments[3].active);
  CHECK(view.segments[3].count == 0);
  CHECK(view.adapters[view.segments[2].first] == graft::WeightedAdapter{4, 0.5});
}

TEST_CASE("segments of equal selections are a chain, however many others stand between them") {
  Batch batch;
  for (int round = 0; round < 2; ++round) {  // and again in the same memory
    batch.clear();
    for (int i = 0; i < 40; ++i) {
      if (i == 7) batch.add(2);
      if (i == 9) batch.add(3, graft::base_only());
      batch.add(1 + i % 2, adapter(unsigned(i)));
      if (i == 20) batch.add(1, adapter(5, 0.5));
      if (i == 30) batch.add(4, adapter(5)).add(1);
    }
    batch.add(1, adapter(5)).add(1, adapter(5)).add(1, graft::base_only());
    const BatchView view = batch.view();
    const auto chain = [&](unsigned at) {
      std::vector<Index> rows;
      for (;; at = view.segments[at].next) {
        rows.push_back(view.segments[at].rows);
        if (!view.segments[at].next) return rows;
      }
    };
    CHECK(view.segments[5].leads);
    CHECK(chain(5) == std::vector<Index>{2, 4, 2});
    CHECK(view.segments[5].chain_rows == 8);
    CHECK(chain(7) == std::vector<Index>{2, 1});   // whatever is active
    CHECK(chain(10) == std::vector<Index>{3, 1});  // none
    int leaders = 0;
    Index rows = 0;
    for (const graft::Segment& segment : view.segments) {
      if (!segment.leads) continue;
      ++leaders;
      rows += segment.chain_rows;
    }
    CHECK(leaders == 43);
    CHECK(rows == batch.rows());
    CHECK(view.adapters.size() == 41);
  }
}

TEST_CASE("a selection of several adapters keeps their order") {
  Batch batch;
  batch.add(1, AdapterSelection({{1, 1}, {2, 1}})).add(1, AdapterSelection({{2, 1}, {1, 1}}));
  CHECK(batch.view().segments.size() == 2);
  CHECK(batch.view().segments[1].count == 2);
  CHECK(batch.view().adapters[2].id == 2);
}

TEST_CASE("a sequence stands at its cache's length, or where it is told to") {
  KvCache<> cache(1, 2, 9);
  fill(cache, 4);
  Batch batch;
  batch.add(2, {}, &cache).add(3, {}, nullptr, 6).add(1);
  CHECK(batch.view().sequences[0].position == 4);
  CHECK(batch.view().sequences[0].cache.is(&cache));
  CHECK(batch.view().sequences[1].position == 6);
  CHECK(batch.view().sequences[2].position == 0);
  Batch same;
  CHECK_NOTHROW(same.add(1, {}, &cache, 4));
}

TEST_CASE("a cache that does not fit is refused, and the batch is as it was") {
  KvCache<> cache(1, 2, 5);
  fill(cache, 3);
  Batch batch;
  batch.add(2, {}, &cache);
  CHECK_THROWS_WITH_AS(batch.add(1, {}, &cache), doctest::Contains("two sequences"), CacheError);
  batch.clear();
  CHECK_THROWS_WITH_AS(batch.add(1, {}, &cache, 2), doctest::Contains("position 2"), CacheError);
  CHECK_THROWS_WITH_AS(batch.add(3, {}, &cache), doctest::Contains("6 are needed"), CacheError);
  CHECK_THROWS_AS(batch.add(-1), ShapeError);
  CHECK(batch.rows() == 0);
  CHECK(batch.view().sequences.empty());
  CHECK(batch.view().segments.empty());
}

TEST_CASE("clear forgets the rows") {
  Batch batch;
  batch.add(3, adapter(1)).add(2);
  batch.clear();
  CHECK(batch.rows() == 0);
  CHECK(batch.view().segments.empty());
  CHECK(batch.view().adapters.empty());
  batch.add(4);
  CHECK(batch.view().sequences[0].begin == 0);
}

TEST_CASE("input takes one row for every row of the batch") {
  Batch batch;
  batch.add(2).add(3);
  CHECK(batch.input(support::ramp(5, 7)).value() == support::ramp(5, 7));
  CHECK_THROWS_WITH_AS((void)batch.input(support::ramp(4, 7)), doctest::Contains("4 rows, but the batch describes 5"), ShapeError);
  CHECK(batch.input(std::vector<int>{1, 2, 3, 4, 5}).ids()[4] == 5);
  CHECK_THROWS_AS((void)batch.input(std::vector<int>{1, 2, 3, 4}), ShapeError);
  const Eigen::Tensor<float, 3, Eigen::RowMajor> tensor(4, 2, 2);
  CHECK_THROWS_AS((void)batch.input(tensor), ShapeError);
}

TEST_CASE("a tail has the last rows of every sequence with its adapters and positions, and no cache") {
  KvCache<> cache(1, 2, 9);
  fill(cache, 4);
  Batch batch;
  batch.add(3, adapter(1), &cache).add(0, adapter(2)).add(1, adapter(2)).add(5, {}, nullptr, 2);
  const BatchView tail = batch.tail(2).view();
  CHECK(batch.tail(2).rows() == 5);
  REQUIRE(tail.sequences.size() == 4);
  const std::vector<Index> rows{2, 0, 1, 2}, positions{5, 0, 0, 5};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    CHECK(tail.sequences[i].rows == rows[i]);
    CHECK(tail.sequences[i].position == positions[i]);
    CHECK_FALSE(tail.sequences[i].cache);
  }
  REQUIRE(tail.segments.size() == 3);
  CHECK(tail.segments[0].rows == 2);
  CHECK(tail.adapters[tail.segments[0].first].id == 1);
  CHECK(tail.segments[1].rows == 1);
  CHECK(tail.adapters[tail.segments[1].first].id == 2);
  CHECK(tail.segments[2].active);
  CHECK(tail.workspace == &batch.workspace());
}

TEST_CASE("a tail is one batch per count, and follows its batch") {
  Batch batch;
  batch.add(4).add(4);
  const Batch* tail = &batch.tail(1);
  CHECK(&batch.tail(1) == tail);
  CHECK(&batch.tail(2) != tail);
  CHECK(tail->rows() == 2);
  batch.add(3);
  CHECK(batch.tail(1).rows() == 3);
  batch.clear();
  batch.add(2, adapter(5));
  CHECK(&batch.tail(1) == tail);
  CHECK(batch.tail(1).rows() == 1);
  CHECK(batch.tail(1).view().adapters.front().id == 5);
}
