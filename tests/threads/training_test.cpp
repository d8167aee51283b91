#include <doctest/doctest.h>

#include <deque>
#include <thread>
#include <vector>

#include <graft/thread_pool.hpp>
#include <graft/train.hpp>

#include "support/ramp.hpp"

// One const model, a batch and a tape for each of several threads: the gradients of each have the bits of the same pass on
// one thread. ThreadSanitizer watches.

using graft::Adaptable;
using graft::Gradients;
using graft::Index;

namespace {
struct Net {
  Adaptable<graft::Embedding<>> embedding{11, 12};
  Adaptable<graft::Linear<>> q{12, 12}, k{12, 6}, v{12, 6}, up{12, 20}, down{20, 12};
  graft::RMSNorm<> norm{12};
  auto operator()(const auto& ids) const {
    const auto x = embedding(ids);
    const auto n = norm(x);
    const auto h = graft::add(x, graft::attention(q(n), k(n), v(n), {.heads = 4, .kv_heads = 2}));
    return graft::linear(graft::add(h, down(graft::silu(up(h)))), embedding->weight);
  }
  GRAFT_MODULE(embedding, q, k, v, up, down, norm)
};

struct Pass {
  graft::Batch batch{};
  graft::Tape tape{};
  double loss = 0;

  void run(const Net& net, const graft::AdapterSelection& one, const graft::AdapterSelection& other, int number) {
    batch.clear();
    batch.add(5, one).add(3, other);
    std::vector<int> ids;
    for (int i = 0; i < 8; ++i) ids.push_back((i * 7 + number) % 11);
    const auto tokens = batch.input(ids);
    const graft::Loss measured = graft::cross_entropy(net(tape.input(tokens)), graft::next_token_targets(tokens));
    loss = measured.value();
    tape.backward(measured);
    tape.clear();
  }
};
}  // namespace

TEST_CASE("threads that train one model each have their own gradients") {
  Net net;
  graft::initialise(net, 7);
  (void)graft::inject_adapter_in_model(
      graft::LoraConfig{.r = 3, .lora_alpha = 5, .lora_dropout = 0.2, .target_modules = {"embedding", "q", "up", "down"}, .use_dora = true,
                        .init_lora_weights = false},
      net, "lora");
  (void)graft::inject_adapter_in_model(
      graft::Ia3Config{.target_modules = {"k", "v", "down"}, .feedforward_modules = {"down"}, .init_ia3_weights = false}, net, "ia3");
  graft::set_requires_grad(net, {"lora", "ia3"}, true);
  const auto lora = graft::select(net, {{"lora"}}), ia3 = graft::select(net, {{"ia3", 0.7}});
  const auto parameters = graft::trainable_parameters(net);

  constexpr int threads = 4, passes = 3;
  std::deque<Pass> alone(threads), together(threads);
  const auto run = [&](Pass& pass, int thread) {
    for (int i = 0; i < passes; ++i) pass.run(net, lora, ia3, thread + 4 * i);
  };
  for (int i = 0; i < threads; ++i) run(alone[std::size_t(i)], i);
  {
    std::vector<std::jthread> all;
    for (int i = 0; i < threads; ++i) all.emplace_back(run, std::ref(together[std::size_t(i)]), i);
  }
  bool same = true, any = false;
  for (int i = 0; i < threads; ++i) {
    const Gradients &expected = alone[std::size_t(i)].tape.gradients(), &got = together[std::size_t(i)].tape.gradients();
    same = same && alone[std::size_t(i)].loss == together[std::size_t(i)].loss && expected.size() == got.size();
    for (const graft::TrainableParameter& one : parameters) {
      const auto *a = expected.find_at<float>(*one.parameter), *b = got.find_at<float>(*one.parameter);
      same = same && a && b && *a == *b;
      any = any || (a && a->norm() > 0.01f);
    }
  }
  CHECK(same);
  CHECK(any);
}

namespace {
struct Wide {
  Adaptable<graft::Linear<>> p{131, 70};
  GRAFT_MODULE(p)
};
/// Of a pass whose batch has a pool, or none: the result, and the gradients by x and the adapters' parameters.
std::vector<graft::Matrix<>> gradients_on(const Wide& net, const graft::TrainableParameters& parameters, const graft::AdapterSelection& some,
                                          const graft::AdapterSelection& others, graft::ThreadPool* pool) {
  graft::Batch batch;
  if (pool) batch.set_parallel_for(*pool);
  batch.add(600, some).add(500, others);
  graft::Tape tape({.seed = 3});
  const auto x = tape.input(batch.input(graft::Matrix<>(support::ramp(1100, 131, 1) / 3)), true);
  const auto y = net.p(x);
  tape.backward(y, support::ramp(1100, 70, 2) / 7);
  std::vector<graft::Matrix<>> all{y.value(), x.grad()};
  for (const graft::TrainableParameter& one : parameters)
    if (const auto* found = tape.gradients().find_at<float>(*one.parameter)) all.push_back(*found);
  return all;
}
}  // namespace

TEST_CASE("the gradients of adapters on several threads have the bits of one") {
  Wide net;
  graft::initialise(net, 7);
  (void)graft::inject_adapter_in_model(
      graft::LoraConfig{.r = 33, .lora_alpha = 5, .target_modules = {"p"}, .lora_bias = true, .init_lora_weights = false}, net, "lora");
  (void)graft::inject_adapter_in_model(
      graft::LoraConfig{.r = 31, .lora_dropout = 0.2, .target_modules = {"p"}, .use_dora = true, .init_lora_weights = false}, net, "dora");
  (void)graft::inject_adapter_in_model(graft::AdaLoraConfig{.init_r = 32, .target_modules = {"p"}, .init_lora_weights = false}, net, "adalora");
  graft::set_requires_grad(net, {"lora", "dora", "adalora"}, true);
  const auto parameters = graft::trainable_parameters(net);
  const auto some = graft::select(net, {{"lora"}, {"dora"}}), others = graft::select(net, {{"adalora", 0.7}, {"lora"}});
  const auto alone = gradients_on(net, parameters, some, others, nullptr);
  CHECK(alone.size() == 2 + 9);
  for (const graft::Matrix<>& one : alone) CHECK_FALSE(one.isZero(0));
  graft::ThreadPool pool(3);
  bool same = true;
  for (int pass = 0; pass < 5; ++pass) same = same && gradients_on(net, parameters, some, others, &pool) == alone;
  CHECK(same);
}
