// What a site costs over its bare layer: with nothing injected, and with one adapter of each method.
// Both run in turn in one loop, so `ratio` holds on a busy machine too; times are those of the fastest round.
#include <graft/graft.hpp>

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>

#include <benchmark/benchmark.h>

namespace {

using graft::Index;

struct Model {
  explicit Model(Index size) : site(size, size) {}
  graft::Adaptable<graft::Linear<>> site;
  GRAFT_MODULE(site)
};

enum class Injected { nothing, lora, adalora, ia3 };

void inject(Model& model, Injected injected) {
  switch (injected) {
    case Injected::nothing: return;
    case Injected::lora:
      graft::inject_adapter_in_model(
          graft::LoraConfig{.r = 8, .target_modules = {"site"}, .init_lora_weights = false}, model);
      return;
    case Injected::adalora:
      graft::inject_adapter_in_model(
          graft::AdaLoraConfig{.init_r = 8, .target_modules = {"site"}, .init_lora_weights = false}, model);
      return;
    case Injected::ia3:
      graft::inject_adapter_in_model(graft::Ia3Config{.target_modules = {"site"}, .init_ia3_weights = false}, model);
      return;
  }
}

/// Seconds of the fastest of the rounds that were timed.
class Stopwatch {
 public:
  template <class F>
  double time(F f, int calls) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; ++i) f();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / calls;
    best_ = std::min(best_, seconds);
    return seconds;
  }
  [[nodiscard]] double best() const { return best_; }

 private:
  double best_ = std::numeric_limits<double>::infinity();
};

void forward(benchmark::State& state, Injected injected) {
  const Index rows = state.range(0), size = state.range(1);
  Model model(size);
  graft::initialise(model, 1);
  inject(model, injected);
  const graft::Linear<>& layer = model.site.base_layer();
  graft::Batch batch;
  batch.add(rows);
  const auto x = batch.input(graft::Matrix<>::Random(rows, size));
  const int calls = int(std::max<Index>(1, 1'000'000 / (rows * size * size)));

  Stopwatch bare, site;
  for (auto _ : state) {
    bare.time([&] { benchmark::DoNotOptimize(layer(x)); }, calls);
    state.SetIterationTime(site.time([&] { benchmark::DoNotOptimize(model.site(x)); }, calls));
  }
  state.counters["bare_ns"] = bare.best() * 1e9;
  state.counters["site_ns"] = site.best() * 1e9;
  state.counters["ratio"] = site.best() / bare.best();
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  benchmark::AddCustomContext("bytes of a site over its layer",
                              "+" + std::to_string(sizeof(graft::Adaptable<graft::Linear<>>) - sizeof(graft::Linear<>)));
  const std::pair<const char*, Injected> all[] = {{"empty site", Injected::nothing},
                                                  {"LoRA r=8", Injected::lora},
                                                  {"AdaLoRA r=8", Injected::adalora},
                                                  {"IA3", Injected::ia3}};
  for (const auto& [name, injected] : all)
    benchmark::RegisterBenchmark(name, forward, injected)
        ->ArgNames({"n", "size"})
        ->ArgsProduct({{1, 16, 64}, {64, 768}})
        ->UseManualTime();
  benchmark::RunSpecifiedBenchmarks();
}
