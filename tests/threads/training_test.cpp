#include <doctest/doctest.h>

#include <deque>
#include <thread>
#include <vector>

#include <graft/train.hpp>

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
