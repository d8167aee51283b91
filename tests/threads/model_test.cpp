#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <graft/graft.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/ramp.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

// One const model, eight threads, each with its own batch, caches and selections: what every thread computes has the
// bits of the same passes on one thread. ThreadSanitizer watches (tools/test --sanitize-threads threads).

using graft::Adaptable;
using graft::AdapterSelection;
using graft::Index;
using graft::Matrix;

namespace {

constexpr Index width = 12, inner = 20, vocabulary = 11;
constexpr int threads = 8, passes = 3;

struct Layer {
  int number;
  graft::RMSNorm<> input_norm{width}, post_norm{width};
  Adaptable<graft::Linear<>> q{width, width, false}, k{width, 6}, v{width, 6}, o{width, width};
  Adaptable<graft::Linear<>> gate{width, inner}, up{width, inner}, down{inner, width};

  auto operator()(const auto& x) const {
    const auto h = input_norm(x);
    const auto attended = graft::attention(graft::rotary(q(h), {.head_dim = 2}), graft::rotary(k(h), {.head_dim = 2}), v(h),
                                           {.heads = 6, .kv_heads = 3, .layer = number});
    const auto y = graft::add(x, o(attended));
    const auto g = post_norm(y);
    return graft::add(y, down(graft::mul(graft::silu(gate(g)), up(g))));
  }
  GRAFT_MODULE(input_norm, q, k, v, o, post_norm, gate, up, down)
};

struct Llama {
  Adaptable<graft::Embedding<>> embedding{vocabulary, width};
  std::deque<Layer> layers;
  graft::RMSNorm<> norm{width};

  Llama() {
    for (int i = 0; i < 2; ++i) layers.push_back({i});
    graft::initialise(*this, 5);
  }
  auto operator()(const auto& ids) const {
    auto x = embedding(ids);
    for (const Layer& layer : layers) x = layer(x);
    return graft::linear(norm(graft::last(x)), embedding->weight);
  }
  GRAFT_MODULE(embedding, layers, norm)
};

/// A model with trained adapters of every method, "lora" and "ia3" of them active.
Llama adapted() {
  Llama model;
  trained::inject(graft::LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = {"q", "v", "embedding"}, .modules_to_save = {"gate"}},
                  model, "lora", 1);
  trained::inject(graft::LoraConfig{.r = 2, .lora_alpha = 5, .target_modules = {"q", "down", "gate", "embedding"}, .use_dora = true},
                  model, "other", 2);
  trained::inject(graft::AdaLoraConfig{.init_r = 3, .target_r = 2, .target_modules = {"q", "o"}}, model, "adalora", 3);
  trained::inject(graft::Ia3Config{.target_modules = {"k", "down"}, .feedforward_modules = {"down"}}, model, "ia3", 4);
  graft::set_adapter(model, {"lora", "ia3"});
  return model;
}

/// What one thread runs: a prompt and some steps over caches, three sequences of other selections in each batch.
std::vector<float> run(const Llama& model, const std::vector<AdapterSelection>& selections, int thread) {
  std::vector<float> all;
  graft::Batch batch;
  for (int pass = 0; pass < passes; ++pass) {
    std::deque<graft::KvCache<>> caches;
    for (int i = 0; i < 3; ++i) caches.emplace_back(2, 6, 16);
    for (int step = 0; step < 4; ++step) {
      const Index rows = step == 0 ? 3 : 1;
      batch.clear();
      std::vector<int> ids;
      for (int i = 0; i < 3; ++i) {
        batch.add(rows, selections[std::size_t(thread + pass + i) % selections.size()], &caches[std::size_t(i)]);
        for (Index row = 0; row < rows; ++row) ids.push_back(int(thread + 3 * i + step + row) % int(vocabulary));
      }
      const auto logits = results::values_of(model(batch.input(ids)));
      all.insert(all.end(), logits.begin(), logits.end());
    }
  }
  const auto plain = results::values_of(model(std::vector<int>{thread, 1, 2}));
  all.insert(all.end(), plain.begin(), plain.end());
  return all;
}

}  // namespace

TEST_CASE("threads: a const model gives every thread what it gives one") {
  const Llama model = adapted();
  const std::vector<AdapterSelection> selections{graft::select(model, {{"lora"}}),
                                                 graft::base_only(),
                                                 graft::select(model, {{"other", 0.5}, {"adalora"}}),
                                                 {},
                                                 graft::select(model, {{"lora"}, {"other"}}),  // its gate over the copy
                                                 graft::select(model, {{"ia3"}, {"other", -2}})};
  std::vector<std::vector<float>> alone, together(threads);
  std::vector<std::thread> others;
  for (int thread = 0; thread < threads; ++thread)
    others.emplace_back([&, thread] { together[std::size_t(thread)] = run(model, selections, thread); });
  for (std::thread& other : others) other.join();
  // only now: what the first forward makes and keeps, eight threads have made together
  for (int thread = 0; thread < threads; ++thread) alone.push_back(run(model, selections, thread));
  for (int thread = 1; thread < threads; ++thread) REQUIRE(alone[0] != alone[std::size_t(thread)]);
  for (int thread = 0; thread < threads; ++thread) CHECK(alone[std::size_t(thread)] == together[std::size_t(thread)]);
}

TEST_CASE("a mixed batch of sequences of other lengths, each with its cache, is every sequence alone") {
  const Llama model = adapted();
  const std::vector<AdapterSelection> selections{graft::select(model, {{"lora"}}), graft::base_only(),
                                                 graft::select(model, {{"other", 0.5}, {"adalora"}}), graft::select(model, {{"lora"}}),
                                                 graft::select(model, {{"other"}}), {}};
  const std::size_t count = selections.size();
  std::deque<graft::KvCache<>> together, alone;
  for (std::size_t i = 0; i < count; ++i) {
    together.emplace_back(2, 6, 16);
    alone.emplace_back(2, 6, 16);
  }
  graft::Batch batch, single;
  for (int step = 0; step < 4; ++step) {
    batch.clear();
    std::vector<int> ids;
    std::vector<std::vector<int>> each(count);
    for (std::size_t i = 0; i < count; ++i) {
      for (int row = 0; row < (step == 0 ? 1 + int(i) % 4 : 1); ++row) each[i].push_back((3 * int(i) + step + row) % int(vocabulary));
      ids.insert(ids.end(), each[i].begin(), each[i].end());
      batch.add(Index(each[i].size()), selections[i], &together[i]);
    }
    const Matrix<> y = model(batch.input(ids)).value();
    for (std::size_t i = 0; i < count; ++i) {
      single.clear();
      single.add(Index(each[i].size()), selections[i], &alone[i]);
      CHECK(results::same_bits(Matrix<>(model(single.input(each[i])).value()), Matrix<>(y.row(Index(i)))));
    }
  }
}

TEST_CASE("threads: names are resolved by any number of threads") {
  const Llama model = adapted();
  std::vector<std::thread> others;
  std::vector<int> right(threads);
  for (int thread = 0; thread < threads; ++thread)
    others.emplace_back([&, thread] {
      for (int i = 0; i < 50; ++i) {
        const AdapterSelection selection = graft::select(model, {{i % 2 ? "lora" : "other", 2}});
        right[std::size_t(thread)] += selection.list().size() == 1 && graft::active_adapters(model).size() == 2;
      }
    });
  for (std::thread& other : others) other.join();
  for (const int count : right) CHECK(count == 50);
}
