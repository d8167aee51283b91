// Injecting LoRA into the 224 sites of a Llama: on the meta device (goal: less than a millisecond), and with values.
#include "llama_sites.hpp"

#include <memory>

#include <benchmark/benchmark.h>

namespace {

void inject(benchmark::State& state, bool low_cpu_mem_usage) {
  const LlamaSites bare;
  const graft::LoraConfig config = LlamaSites::lora(8);
  std::size_t sites = 0;
  for (auto _ : state) {
    state.PauseTiming();
    auto model = std::make_unique<LlamaSites>(bare);
    state.ResumeTiming();
    const graft::InjectReport report =
        graft::inject_adapter_in_model(config, *model, "default", {.low_cpu_mem_usage = low_cpu_mem_usage});
    sites = report.matched.size();
    state.PauseTiming();
    model.reset();
    state.ResumeTiming();
  }
  state.counters["sites"] = double(sites);
}
BENCHMARK_CAPTURE(inject, meta, true)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(inject, eager, false)->Unit(benchmark::kMillisecond);

/// Resolving the names of a request.
void select(benchmark::State& state) {
  LlamaSites model;
  graft::inject_adapter_in_model(LlamaSites::lora(8), model, "default", {.low_cpu_mem_usage = true});
  for (auto _ : state) benchmark::DoNotOptimize(graft::select(model, {{"default", 0.5}}));
}
BENCHMARK(select)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
