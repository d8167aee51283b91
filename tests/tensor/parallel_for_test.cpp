#include <doctest/doctest.h>

#include <graft/tensor/batch.hpp>
#include <graft/tensor/parallel_for.hpp>
#include <vector>

using graft::Index;
using graft::LoopBody;
using graft::ParallelFor;

namespace {

/// A host's executor: from the last piece to the first, and it counts.
struct Backwards {
  int calls = 0;
  Index pieces = 0;
  void operator()(Index count, const LoopBody& body) {
    ++calls;
    pieces += count;
    for (Index i = count; i-- > 0;) body(i);
  }
};
struct Pool {
  int calls = 0;
  [[nodiscard]] unsigned threads() const { return 5; }
  void operator()(Index count, LoopBody body) {
    ++calls;
    for (Index i = 0; i < count; ++i) body(i);
  }
};

std::vector<Index> order_of(const ParallelFor& parallel_for, Index count) {
  std::vector<Index> order;
  parallel_for(count, [&](Index i) { order.push_back(i); });
  return order;
}

}  // namespace

TEST_CASE("without a host the caller does all pieces, in order") {
  CHECK(ParallelFor().threads() == 1);
  CHECK(order_of({}, 3) == std::vector<Index>{0, 1, 2});
  CHECK(order_of({}, 0).empty());
}

TEST_CASE("a host's callable runs the pieces, and one piece is not worth a call") {
  Backwards run;
  const ParallelFor parallel_for(run, 3);
  CHECK(parallel_for.threads() == 3);
  CHECK(order_of(parallel_for, 4) == std::vector<Index>{3, 2, 1, 0});
  CHECK(order_of(parallel_for, 1) == std::vector<Index>{0});
  CHECK(order_of(parallel_for, 0).empty());
  CHECK(run.calls == 1);
  CHECK(run.pieces == 4);
}

TEST_CASE("lambdas serve, constant ones too, and copies refer to the same") {
  Index seen = 0;
  const auto run = [&seen](Index count, const auto& body) {
    seen += count;
    for (Index i = 0; i < count; ++i) body(i);
  };
  const ParallelFor parallel_for(run, 2), copy = parallel_for;
  CHECK(order_of(copy, 2) == std::vector<Index>{0, 1});
  CHECK(seen == 2);
}

TEST_CASE("a pool brings its number of threads") {
  Pool pool;
  ParallelFor parallel_for(pool);
  CHECK(parallel_for.threads() == 5);
  CHECK(order_of(parallel_for, 2).size() == 2);
  CHECK(pool.calls == 1);
  static_assert(!std::is_constructible_v<ParallelFor, Backwards&>);  // who does not know it must be told
  ParallelFor other(parallel_for);
  CHECK(other.threads() == 5);
}

TEST_CASE("a batch and its tails share one, through clear()") {
  Pool pool;
  graft::Batch batch;
  CHECK(batch.workspace().parallel_for().threads() == 1);
  batch.set_parallel_for(pool);
  batch.clear();
  batch.add(3);
  CHECK(batch.view().workspace->parallel_for().threads() == 5);
  CHECK(batch.tail(1).view().workspace->parallel_for().threads() == 5);
  Backwards run;
  batch.set_parallel_for({run, 4});
  CHECK(batch.workspace().parallel_for().threads() == 4);
  batch.set_parallel_for({});
  CHECK(batch.workspace().parallel_for().threads() == 1);
}
