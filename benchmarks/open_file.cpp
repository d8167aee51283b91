// Opening an adapter of 640 MB as a mapping: the time (goal: a millisecond for the file) and the resident memory
// that it takes. The file is sparse, so it needs no disk; nothing reads its tensors.
#include "llama_sites.hpp"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include <unistd.h>

#include <benchmark/benchmark.h>
#include <graft/io.hpp>

namespace {

namespace fs = std::filesystem;

/// A PEFT directory whose tensors are holes.
class SparseAdapter {
 public:
  SparseAdapter() : folder_(fs::temp_directory_path() / ("graft_open_file_" + std::to_string(getpid()))) {
    fs::create_directories(folder_);
    LlamaSites model;
    graft::inject_adapter_in_model(LlamaSites::lora(rank), model, "default", {.low_cpu_mem_usage = true});
    std::string header;
    std::size_t end = 0;
    for (const auto& [key, view] : graft::get_peft_model_state_dict(model)) {
      const std::size_t begin = end;
      end += view.bytes();
      header += (header.empty() ? "{\"" : ",\"") + ("base_model.model." + key) + "\":{\"dtype\":\"F32\",\"shape\":[" +
                std::to_string(view.shape[0]) + "," + std::to_string(view.shape[1]) + "],\"data_offsets\":[" +
                std::to_string(begin) + "," + std::to_string(end) + "]}";
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const std::uint64_t length = header.size();
    std::ofstream(weights(), std::ios::binary).write(reinterpret_cast<const char*>(&length), 8) << header;
    bytes_ = 8 + header.size() + end;
    fs::resize_file(weights(), bytes_);
    std::ofstream(folder_ / "adapter_config.json")
        << R"({"peft_type": "LORA", "r": )" << rank
        << R"(, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]})";
  }
  ~SparseAdapter() { fs::remove_all(folder_); }
  SparseAdapter(const SparseAdapter&) = delete;
  SparseAdapter& operator=(const SparseAdapter&) = delete;

  [[nodiscard]] const fs::path& folder() const { return folder_; }
  [[nodiscard]] fs::path weights() const { return folder_ / "adapter_model.safetensors"; }
  [[nodiscard]] double megabytes() const { return double(bytes_) / 1e6; }

 private:
  static constexpr int rank = 64;
  fs::path folder_;
  std::size_t bytes_ = 0;
};

const SparseAdapter& adapter() {
  static const SparseAdapter once;
  return once;
}

double resident_kilobytes() {
  std::ifstream statm("/proc/self/statm");
  double pages = 0, resident = 0;
  statm >> pages >> resident;
  return resident * double(sysconf(_SC_PAGESIZE)) / 1e3;
}

void open_file(benchmark::State& state) {
  const fs::path path = adapter().weights();
  const double before = resident_kilobytes();
  const graft::StateDict held = graft::safetensors::load_file(path, {.mapped = true});
  state.counters["resident_kB"] = resident_kilobytes() - before;
  for (auto _ : state) benchmark::DoNotOptimize(graft::safetensors::load_file(path, {.mapped = true}));
  state.counters["file_MB"] = adapter().megabytes();
}
BENCHMARK(open_file)->Unit(benchmark::kMillisecond);

void load_adapter(benchmark::State& state) {
  const fs::path folder = adapter().folder();
  const LlamaSites bare;
  LlamaSites held = bare;
  const double before = resident_kilobytes();
  graft::load_adapter(held, folder, "default", {.mapped = true});
  state.counters["resident_kB"] = resident_kilobytes() - before;
  for (auto _ : state) {
    state.PauseTiming();
    LlamaSites model = bare;
    state.ResumeTiming();
    benchmark::DoNotOptimize(graft::load_adapter(model, folder, "default", {.mapped = true}));
  }
  state.counters["file_MB"] = adapter().megabytes();
}
BENCHMARK(load_adapter)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
