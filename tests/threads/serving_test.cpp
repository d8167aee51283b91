#include <doctest/doctest.h>

#include <atomic>
#include <graft/serve.hpp>
#include <string>
#include <thread>
#include <vector>

#include "io/temporary_directory.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

// Weights that are exchanged, dropped, read again and removed while eight threads are in forward. ThreadSanitizer
// watches (tools/test --sanitize-threads threads).

using graft::LoraConfig;
using graft::Matrix;
using results::same_bits;

namespace {

constexpr int threads = 8, rounds = 12;

struct Net {
  graft::Adaptable<graft::Embedding<>> embed{11, 7};
  graft::Adaptable<graft::Linear<>> p{7, 13}, q{13, 5}, head{5, 3};
  auto operator()(const auto& ids) const { return head(q(p(embed(ids)))); }
  GRAFT_MODULE(embed, p, q, head)
};
Net base() {
  Net net;
  graft::initialise(net, 3);
  return net;
}
const std::vector<int> ids{1, 4, 10, 0};
const std::vector<LoraConfig> configs{
    {.r = 3, .lora_alpha = 7, .target_modules = {"embed", "p", "q"}, .modules_to_save = {"head"}},
    {.r = 5, .bias = graft::Bias::lora_only, .target_modules = {"embed", "p", "q"}, .use_dora = true, .modules_to_save = {"head"}}};

Matrix<float> run(const Net& net, graft::Batch& batch, const graft::AdapterSelection& selection) {
  batch.clear();
  batch.add(graft::Index(ids.size()), selection);
  return net(batch.input(ids)).value();
}

template <class F>
void on_threads(F f) {
  std::vector<std::thread> all;
  for (int thread = 0; thread < threads; ++thread) all.emplace_back([&f, thread] { f(thread); });
  for (std::thread& thread : all) thread.join();
}

}  // namespace

TEST_CASE("threads: an adapter is swapped under threads in forward, each of which sees one generation") {
  Net net = base();
  std::vector<graft::StateDict> values;
  std::vector<Matrix<float>> alone;
  for (const LoraConfig& config : configs) {
    Net other = base();
    trained::inject(config, other, "default", 10 + config.r);
    values.push_back(graft::get_peft_model_state_dict(other).clone());
    alone.push_back(other(ids));
  }
  REQUIRE_FALSE(results::same_values(alone[0], alone[1]));
  (void)graft::inject_adapter_in_model(configs[0], net);
  (void)graft::set_peft_model_state_dict(net, values[0]);

  std::atomic<int> wrong{0}, running{threads};
  std::thread swapper([&] {
    for (int round = 1; round <= rounds || running > 0; ++round) {
      (void)graft::hotswap_adapter(net, values[std::size_t(round % 2)], configs[std::size_t(round % 2)]);
      std::this_thread::yield();
    }
  });
  on_threads([&](int thread) {
    graft::Batch batch;
    for (int round = 0; round < rounds; ++round) {
      const auto selection = graft::select(net, {{"default"}});
      const Matrix<float> y = run(net, batch, selection);
      const bool is_first = same_bits(y, alone[0]);
      if (!is_first && !same_bits(y, alone[1])) ++wrong;
      if (!same_bits(run(net, batch, selection), alone[is_first ? 0 : 1])) ++wrong;
      if (thread % 2 && !net(ids).allFinite()) ++wrong;  // without a selection: at each site the one or the other
    }
    --running;
  });
  swapper.join();
  CHECK(wrong == 0);
}

TEST_CASE("threads: a registry under requests, replacements, removals and a small budget") {
  const TemporaryDirectory folder;
  std::vector<Matrix<float>> alone;
  for (const LoraConfig& config : configs) {
    Net other = base();
    trained::inject(config, other, "default", 20 + config.r);
    graft::save_pretrained(other, folder / std::to_string(config.r));
    alone.push_back(other(ids));
  }
  Net net = base();
  graft::Registry registry(net);
  std::size_t bytes = 0;
  for (int i = 0; i < 6; ++i) bytes = registry.add("a" + std::to_string(i), folder / (i % 2 ? "5" : "3")).bytes;
  registry.set_byte_budget(2 * bytes);  // of six adapters two have room

  std::atomic<int> wrong{0};
  on_threads([&](int thread) {
    graft::Batch batch;
    for (int round = 0; round < rounds; ++round) {
      if (thread == 0) {  // a1 is one and then the other, a5 comes and goes
        const auto now = registry.look_up("a1");
        (void)registry.replace("a1", now->generation, folder / (now->rank == 3 ? "5" : "3"));
        registry.remove("a5");
        (void)registry.add("a5", folder / "5");
        continue;
      }
      const int which = (thread + round) % 6;
      graft::AdapterSelection selection;
      try {
        selection = registry.select("a" + std::to_string(which));
      } catch (const graft::ServeError& error) {
        if (which != 5 || error.serve_code != graft::ServeCode::unknown_adapter) ++wrong;
        continue;
      }
      const Matrix<float> y = run(net, batch, selection);
      const bool is_first = same_bits(y, alone[0]), is_second = same_bits(y, alone[1]);
      if (which == 1 ? !is_first && !is_second : which % 2 ? !is_second : !is_first) ++wrong;
      if (!same_bits(run(net, batch, selection), y)) ++wrong;
    }
  });
  CHECK(wrong == 0);
  const graft::ServeMetrics metrics = registry.metrics();
  CHECK(metrics.bytes_resident <= 2 * bytes);
  CHECK(metrics.bytes_alive == metrics.bytes_resident);
  CHECK(metrics.evictions > 0);
  CHECK(metrics.replacements == rounds);
}
