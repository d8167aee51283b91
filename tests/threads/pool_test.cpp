#include <doctest/doctest.h>

#include <atomic>
#include <graft/graft.hpp>
#include <graft/quantized.hpp>
#include <graft/thread_pool.hpp>
#include <thread>
#include <vector>

#include "support/ramp.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

// graft::ThreadPool, and whole models on it: the bits are those of one thread. ThreadSanitizer watches.

using graft::Adaptable;
using graft::Batch;
using graft::Index;
using graft::Matrix;
using graft::ParallelFor;
using graft::ThreadPool;

namespace {

/// Every piece writes what no other writes; the caller reads all of it.
void check_loops(const ParallelFor& parallel_for, Index loops) {
  std::vector<int> done;
  bool right = true;
  for (Index loop = 0; loop < loops; ++loop) {
    const Index count = loop % 17;
    done.assign(std::size_t(count), 0);
    parallel_for(count, [&](Index i) { done[std::size_t(i)] += int(i + loop + 1); });
    for (Index i = 0; i < count; ++i) right = right && done[std::size_t(i)] == int(i + loop + 1);
  }
  CHECK(right);
}

/// Products that are worth cutting: linear layers of every kind of weight, a convolution, attention.
struct Model {
  Adaptable<graft::Linear<>> q{67, 4103}, down{4103, 131, false};
  Adaptable<graft::Linear<graft::bf16>> narrow{131, 5003};
  Adaptable<graft::QuantizedLinear> four{5003, 144, true, graft::QuantFormat::nf4}, eight{144, 3600, true, graft::QuantFormat::int8};
  Adaptable<graft::Conv2d<>> conv{4, 6, graft::Conv2dOptions{.kernel = 5, .padding = 2}};
  graft::Linear<> head{5400, 48};

  Model() {
    graft::initialise(*this, 5);
    const auto numbers = [](Index rows, Index cols, Index salt) {
      return Matrix<>(Matrix<>::NullaryExpr(rows, cols, [=](Index i, Index j) {
        return float(((i + salt) * 7919 + j * 104729) % 1009) / 4000 - 0.12f;
      }));
    };
    (void)four->requantize(numbers(144, 5003, 1));
    (void)eight->requantize(numbers(3600, 144, 2));
  }
  auto operator()(const auto& x) const {
    const auto wide = eight(four(narrow(down(q(x)))));
    const auto folded = wide.with(as_pictures(wide.value()));
    const auto y = head(graft::flatten(conv(folded)));
    return graft::attention(y, y, y, {.heads = 6, .kv_heads = 6});
  }
  static Eigen::Tensor<float, 4, Eigen::RowMajor> as_pictures(const graft::In<float>& x) {
    Eigen::Tensor<float, 4, Eigen::RowMajor> pictures(x.rows(), 4, 30, 30);
    std::copy_n(x.data(), x.size(), pictures.data());
    return pictures;
  }
  GRAFT_MODULE(q, down, narrow, four, eight, conv, head)
};

/// Ranks that make updates worth cutting.
struct Ranks {
  Adaptable<graft::Linear<>> p{131, 140};
  Ranks() {
    graft::initialise(*this, 5);
    trained::inject(graft::LoraConfig{.r = 90, .lora_alpha = 7, .target_modules = {"p"}}, *this, "lora", 1);
    trained::inject(graft::LoraConfig{.r = 90, .lora_alpha = 7, .target_modules = {"p"}, .use_dora = true}, *this, "dora", 2);
  }
  GRAFT_MODULE(p)
};

std::vector<float> run(const Model& model, const std::vector<graft::AdapterSelection>& selections, Index rows, const ParallelFor& parallel_for) {
  Batch batch;
  batch.set_parallel_for(parallel_for);
  std::vector<float> all;
  for (int pass = 0; pass < 2; ++pass) {
    batch.clear();
    for (const auto& selection : selections) batch.add(rows, selection);
    const auto y = results::values_of(model(batch.input(support::ramp(batch.rows(), 67, pass))));
    all.insert(all.end(), y.begin(), y.end());
  }
  return all;
}

Model adapted() {
  Model model;
  trained::inject(graft::LoraConfig{.r = 3, .lora_alpha = 1, .target_modules = {"q", "narrow", "eight", "conv"}}, model, "lora", 1);
  trained::inject(graft::Ia3Config{.target_modules = {"down", "four"}, .feedforward_modules = {"four"}}, model, "ia3", 4);
  return model;
}

}  // namespace

TEST_CASE("threads: a pool does every piece once, whether its threads spin or sleep") {
  for (const Index threads : {1, 2, 3, 5})
    for (const Index spins : {0, 50, 2000}) {
      ThreadPool pool(threads, spins);
      CHECK(pool.threads() == threads);
      check_loops(pool, 300);
    }
  ThreadPool machine;
  CHECK(machine.threads() >= 1);
  check_loops(machine, 20);
}

TEST_CASE("threads: pieces run on several threads at once") {
  ThreadPool pool(3, 100);
  std::atomic<int> arrived{0};
  const ParallelFor parallel_for(pool);
  parallel_for(3, [&](Index) {  // ends only if all three are inside together
    arrived.fetch_add(1);
    while (arrived.load() < 3) std::this_thread::yield();
  });
  CHECK(arrived.load() == 3);
}

TEST_CASE("threads: a pool that is not used, or was just used, can go") {
  for (int i = 0; i < 20; ++i) {
    ThreadPool pool(3, i % 2 ? 0 : 100);
    if (i % 3) check_loops(pool, 3);
  }
}

TEST_CASE("threads: many threads share a pool, and loops may be nested") {
  ThreadPool pool(3, 100);
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) callers.emplace_back([&] { check_loops(pool, 200); });
  for (std::thread& caller : callers) caller.join();
  std::vector<int> done(35, 0);
  const ParallelFor parallel_for(pool);
  parallel_for(5, [&](Index i) { parallel_for(7, [&](Index j) { done[std::size_t(7 * i + j)] += int(7 * i + j); }); });
  for (int i = 0; i < 35; ++i) CHECK(done[std::size_t(i)] == i);
}

TEST_CASE("threads: a model's results have the same bits on any number of threads") {
  const Model model = adapted();
  const std::vector<graft::AdapterSelection> selections{graft::select(model, {{"lora"}}), graft::base_only(),
                                                        graft::select(model, {{"ia3"}, {"lora", 0.5}})};
  for (const Index rows : {1, 5}) {
    const auto alone = run(model, selections, rows, {});
    for (const Index threads : {2, 3, 5}) {
      ThreadPool pool(threads, 100);
      CHECK(run(model, selections, rows, pool) == alone);
    }
    const auto base = run(model, {graft::base_only(), graft::base_only(), graft::base_only()}, rows, {});
    CHECK(base != alone);
  }
}

TEST_CASE("threads: batches of several threads on one pool") {
  const Model model = adapted();
  const std::vector<graft::AdapterSelection> selections{graft::select(model, {{"lora"}}), graft::base_only()};
  const auto alone = run(model, selections, 2, {});
  ThreadPool pool(2, 100);
  std::vector<std::vector<float>> together(3);
  std::vector<std::thread> callers;
  for (std::size_t i = 0; i < together.size(); ++i) callers.emplace_back([&, i] { together[i] = run(model, selections, 2, pool); });
  for (std::thread& caller : callers) caller.join();
  for (const auto& result : together) CHECK(result == alone);
}

TEST_CASE("threads: adapters' updates in pieces, on a pool that several threads share") {
  const Ranks model;
  const auto passes = [&](const ParallelFor& parallel_for) {
    Batch batch;
    batch.set_parallel_for(parallel_for);
    std::vector<float> all;
    for (int pass = 0; pass < 3; ++pass) {
      batch.clear();
      batch.add(120, graft::select(model, {{pass == 1 ? "dora" : "lora"}})).add(70, graft::select(model, {{"dora", 0.5}, {"lora"}}));
      const auto y = results::values_of(model.p(batch.input(support::ramp(190, 131, pass))));
      all.insert(all.end(), y.begin(), y.end());
    }
    return all;
  };
  ThreadPool pool(3, 100);
  std::vector<std::vector<float>> together(3);
  std::vector<std::thread> callers;
  for (std::size_t i = 0; i < together.size(); ++i) callers.emplace_back([&, i] { together[i] = passes(pool); });
  for (std::thread& caller : callers) caller.join();
  const auto alone = passes({});  // only now: what the first forward makes and keeps was made by all of them
  for (const auto& result : together) CHECK(result == alone);
}
