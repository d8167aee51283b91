// What a thousand adapters in a registry cost over one: a forward without adapters, one of a selection, and
// switching to another adapter (select). Both run in turn in one loop, so `ratio` holds on a busy machine too.
#include <graft/serve.hpp>

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

namespace {

using graft::Index;
constexpr Index width = 256, rows = 8;

struct Model {
  std::vector<graft::Adaptable<graft::Linear<>>> layers;
  Model() {
    for (int i = 0; i < 16; ++i) layers.emplace_back(width, width);
    graft::initialise(*this, 1);
  }
  auto operator()(const auto& x) const {
    auto h = layers[0](x);
    for (std::size_t i = 1; i < layers.size(); ++i) h = layers[i](h);
    return h;
  }
  GRAFT_MODULE(layers)
};

/// The config and the weights of an adapter, as in a file.
struct File {
  std::string config;
  std::shared_ptr<std::vector<std::byte>> weights;
  File() {
    const graft::LoraConfig lora{.r = 8, .target_modules = {graft::all_linear}, .init_lora_weights = false};
    Model model;
    graft::inject_adapter_in_model(lora, model);
    weights = std::make_shared<std::vector<std::byte>>(graft::safetensors::serialize(graft::get_peft_model_state_dict(model)));
    config = graft::config_text(graft::detail::need_record(graft::sites_of(model), "default")->config());
  }
};

/// A model with so many adapters, all in memory.
struct Served {
  Model model;
  graft::Registry<Model> registry{model};
  explicit Served(int adapters) {
    const File file;
    for (int i = 0; i < adapters; ++i) {
      registry.add(std::to_string(i), {.weights = *file.weights, .config = file.config, .owner = file.weights});
      (void)registry.select(std::to_string(i));
    }
  }
};
Served& of(int adapters) {
  static Served one(1), many(1000);
  return adapters == 1 ? one : many;
}

template <class F>
double seconds(F f, int calls) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) f(i);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / calls;
}

/// `make(served)` makes what is timed: a function of the number of the call.
template <class Make>
void compare(benchmark::State& state, int calls, Make make) {
  auto one = make(of(1)), many = make(of(1000));
  double best_one = std::numeric_limits<double>::infinity(), best_many = best_one;
  for (auto _ : state) {
    best_one = std::min(best_one, seconds(one, calls));
    const double now = seconds(many, calls);
    best_many = std::min(best_many, now);
    state.SetIterationTime(now * calls);
  }
  state.counters["one_us"] = best_one * 1e6;
  state.counters["thousand_us"] = best_many * 1e6;
  state.counters["ratio"] = best_many / best_one;
}

void forward(benchmark::State& state, bool selected) {
  compare(state, 4, [&](Served& served) {
    auto batch = std::make_shared<graft::Batch>();
    batch->add(rows, selected ? served.registry.select("0") : graft::base_only());
    const auto x = batch->input(graft::Matrix<>::Ones(rows, width));
    return [&served, batch, x](int) { benchmark::DoNotOptimize(served.model(x)); };
  });
}

void switching(benchmark::State& state) {
  compare(state, 1000, [](Served& served) {
    const std::size_t adapters = served.registry.metrics().adapters;
    return [&served, adapters](int i) { benchmark::DoNotOptimize(served.registry.select(std::to_string(std::size_t(i * 7) % adapters))); };
  });
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  benchmark::RegisterBenchmark("forward, base rows", forward, false)->UseManualTime();
  benchmark::RegisterBenchmark("forward, one adapter", forward, true)->UseManualTime();
  benchmark::RegisterBenchmark("select", switching)->UseManualTime();
  benchmark::RunSpecifiedBenchmarks();
}
