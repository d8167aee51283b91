// A thousand adapters over one model: threads serve mixed batches while adapters are replaced and removed under them,
// and memory holds a fraction of them. Every row is checked against its own run alone; figures go to stderr.
#include <graft/serve.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tales/checkpoint.hpp"
#include "tales/hf_config.hpp"
#include "tales/llama.hpp"
#include "tales/options.hpp"
#include "tales/table.hpp"

namespace {

using Clock = std::chrono::steady_clock;
using Model = tales::LlamaForCausalLM<graft::bf16>;
constexpr std::size_t sequences = 8, most_tokens = 12;

double milliseconds(Clock::duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

/// Numbers that look random, the same ones on every machine.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : state_(seed) {}
  std::size_t operator()(std::size_t sides) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return std::size_t(state_ >> 33) % sides;
  }

 private:
  std::uint64_t state_;
};

/// The folder of an adapter like a shipped one: other strengths, and noise on every value.
void write_variant(const graft::StateDict& original, const std::string& config, const std::filesystem::path& folder,
                   std::size_t number) {
  Dice dice(number + 1);
  graft::StateDict tensors;
  for (const auto& [key, view] : original) {
    const auto values = std::make_shared<std::vector<graft::bf16>>();
    for (std::size_t i = 0; i < std::size_t(view.size()); ++i) {
      const float noise = float(dice(2001)) / 1000 - 1;
      values->push_back(graft::bf16(graft::element_as<float>(view.dtype, view.data, i) * (1 + 0.2f * noise)));
    }
    tensors.insert(key, {graft::Dtype::bf16, view.shape, reinterpret_cast<const std::byte*>(values->data()), values});
  }
  std::filesystem::create_directories(folder);
  const auto bytes = graft::safetensors::serialize(tensors, {{"format", "pt"}});
  std::ofstream(folder / "adapter_model.safetensors", std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
  std::ofstream(folder / "adapter_config.json") << config;
}

struct TemporaryFolder {
  std::filesystem::path path = std::filesystem::temp_directory_path() /
                               ("graft_serve_many_" + std::to_string(Clock::now().time_since_epoch().count()));
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

/// What one thread did.
struct Log {
  std::vector<double> latencies{};  // of batches, ms, reading adapters into memory included
  std::size_t rows = 0, tokens = 0, wrong = 0, replaced = 0, removed = 0;
};

class Server {
 public:
  Server(const Model& model, graft::Registry<Model>& registry, std::vector<std::filesystem::path> folders)
      : model_(model), registry_(registry), folders_(std::move(folders)) {}

  void serve(Log& log, std::size_t thread, Clock::time_point end) {
    Dice dice(1000 + thread);
    graft::Batch batch, alone;
    std::vector<graft::AdapterSelection> selections;
    std::vector<std::vector<int>> prompts(sequences);
    while (Clock::now() < end || log.rows == 0) {
      const auto started = Clock::now();
      selections.clear();
      for (std::size_t i = 0; i < sequences; ++i) selections.push_back(choose(dice));
      const std::vector<std::size_t> order = graft::neighbours(selections);
      std::vector<int> ids;
      batch.clear();
      for (const std::size_t i : order) {
        prompts[i].resize(1 + dice(most_tokens));
        for (int& id : prompts[i]) id = int(dice(1000));
        ids.insert(ids.end(), prompts[i].begin(), prompts[i].end());
        batch.add(graft::Index(prompts[i].size()), selections[i]);
      }
      const graft::Matrix<> logits = model_.next(batch.input(ids)).value();
      log.latencies.push_back(milliseconds(Clock::now() - started));
      log.rows += sequences;
      log.tokens += ids.size();
      change(log, dice);
      for (std::size_t row = 0; row < sequences; ++row) {
        const std::size_t i = order[row];
        alone.clear();
        alone.add(graft::Index(prompts[i].size()), selections[i]);
        const graft::Matrix<> expected = model_.next(alone.input(prompts[i])).value();
        log.wrong += std::memcmp(expected.data(), logits.row(graft::Index(row)).data(), std::size_t(expected.size()) * sizeof(float)) != 0;
      }
    }
  }

 private:
  [[nodiscard]] std::string name(std::size_t number) const { return "adapter-" + std::to_string(number); }
  /// Some adapters are asked for more than others; some requests want none, some two.
  std::size_t popular(Dice& dice) const { return dice(1 + dice(1 + dice(folders_.size()))); }

  graft::AdapterSelection choose(Dice& dice) const {
    for (;;) {
      const std::size_t kind = dice(10);
      if (kind == 0) return graft::base_only();
      std::vector<graft::NamedWeight> wanted{{name(popular(dice))}};
      if (kind == 1) wanted.push_back({name(popular(dice)), 0.5});
      try {
        return registry_.select(wanted);
      } catch (const graft::ServeError& error) {
        if (error.serve_code != graft::ServeCode::unknown_adapter) throw;  // removed a moment ago: the next request
      }
    }
  }
  /// What an operator does meanwhile: another version of an adapter, one taken out and added again.
  void change(Log& log, Dice& dice) const {
    const std::size_t number = popular(dice);
    try {
      if (dice(4) == 0) {
        registry_.remove(name(number));
        registry_.add(name(number), folders_[number]);
        ++log.removed;
      } else if (const auto now = registry_.look_up(name(number))) {
        registry_.replace(name(number), now->generation, folders_[dice(folders_.size())]);
        ++log.replaced;
      }
    } catch (const graft::ServeError& error) {
      const bool lost = error.serve_code == graft::ServeCode::generation_conflict || error.serve_code == graft::ServeCode::unknown_adapter;
      if (!lost) throw;  // another thread was first
    }
  }

  const Model& model_;
  graft::Registry<Model>& registry_;
  std::vector<std::filesystem::path> folders_;
};

std::string megabytes(std::size_t bytes) { return tales::format("%.1f MB", double(bytes) / 1e6); }

void print_figures(const std::vector<Log>& logs, const graft::ServeMetrics& metrics, double seconds, double added_in, std::size_t budget) {
  Log all;
  for (const Log& log : logs) {
    all.latencies.insert(all.latencies.end(), log.latencies.begin(), log.latencies.end());
    all.rows += log.rows;
    all.tokens += log.tokens;
    all.replaced += log.replaced;
    all.removed += log.removed;
  }
  std::sort(all.latencies.begin(), all.latencies.end());
  double busy = 0;
  for (const double latency : all.latencies) busy += latency / 1000;
  const auto percentile = [&](double part) {
    return tales::format("%.2f ms", all.latencies[std::size_t(part * double(all.latencies.size() - 1))]);
  };
  tales::Table table;
  table.add({"adapters", tales::grouped(metrics.adapters)});
  table.add({"added and checked", tales::format("%.0f per s", double(metrics.adapters) / added_in)});
  table.add({"requests", tales::grouped(all.rows) + tales::format(" in %.1f s", seconds)});
  table.add({"tokens per second of a thread", tales::format("%.0f", double(all.tokens) / busy)});
  table.add({"latency of a batch of 8: p50", percentile(0.5)});
  table.add({"p95", percentile(0.95)});
  table.add({"p99", percentile(0.99)});
  table.add({"resident", megabytes(metrics.bytes_resident) + " of " + megabytes(budget)});
  table.add({"hits, misses", tales::grouped(metrics.hits) + ", " + tales::grouped(metrics.misses)});
  table.add({"read into memory, evicted", tales::grouped(metrics.materialisations) + ", " + tales::grouped(metrics.evictions)});
  table.add({"replaced, removed", tales::grouped(all.replaced) + ", " + tales::grouped(all.removed)});
  table.add({"lost races to replace", tales::grouped(metrics.conflicts)});
  std::fputs(table.text().c_str(), stderr);
}

int run(std::size_t adapters, std::size_t threads, double seconds) {
  const auto base = tales::shipped() / "base";
  const tales::LlamaConfig config = tales::read_llama_config(base);
  const tales::Checkpoint checkpoint = tales::open_checkpoint(base, config.tie_word_embeddings);
  Model model(config);
  graft::set_base_model_state_dict(model, checkpoint.tensors, {.low_cpu_mem_usage = true});

  const TemporaryFolder temporary;
  std::vector<std::filesystem::path> folders;
  const std::vector<std::string> shipped{"lora", "adalora", "ia3"};
  for (std::size_t i = 0; i < adapters; ++i) {
    const auto original = tales::shipped() / "adapters" / shipped[i % shipped.size()];
    folders.push_back(temporary.path / std::to_string(i));
    write_variant(graft::load_peft_weights(original), graft::config_text(graft::load_peft_config(original)), folders.back(), i);
  }

  constexpr std::size_t budget = 16 << 20;  // of 160 MB
  graft::Registry registry(model, {.byte_budget = budget});
  const auto started = Clock::now();
  for (std::size_t i = 0; i < adapters; ++i) registry.add("adapter-" + std::to_string(i), folders[i]);
  const double added_in = milliseconds(Clock::now() - started) / 1000;

  Server server(model, registry, folders);
  std::vector<Log> logs(threads);
  std::vector<std::thread> workers;
  const auto begin = Clock::now();
  const auto end = begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  std::atomic<bool> failed{false};
  for (std::size_t i = 0; i < threads; ++i)
    workers.emplace_back([&, i] {
      try {
        server.serve(logs[i], i, end);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        failed = true;
      }
    });
  for (std::thread& worker : workers) worker.join();
  const graft::ServeMetrics metrics = registry.metrics();
  print_figures(logs, metrics, milliseconds(Clock::now() - begin) / 1000, added_in, budget);

  std::size_t wrong = 0;
  for (const Log& log : logs) wrong += log.wrong;
  const bool in_budget = metrics.bytes_resident <= budget;
  std::printf("%zu adapters over one model, %zu threads\n", adapters, threads);
  std::printf("every row of every mixed batch has the bits of its run alone: %s\n", wrong == 0 ? "yes" : "NO");
  std::printf("the weights in memory are within the budget: %s\n", in_budget ? "yes" : "NO");
  return wrong == 0 && in_budget && !failed ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  std::size_t adapters = 1000, threads = 4;
  double seconds = 2;
  CLI::App app{"Serves many adapters over one model, and checks every row."};
  app.add_option("--adapters", adapters, "how many")->check(CLI::Range(std::size_t(1), std::size_t(20000)))->capture_default_str();
  app.add_option("--threads", threads, "how many serve")->check(CLI::Range(std::size_t(1), std::size_t(256)))->capture_default_str();
  app.add_option("--seconds", seconds, "how long")->check(CLI::Range(0.0, 3600.0))->capture_default_str();
  CLI11_PARSE(app, count, arguments);
  try {
    return run(adapters, threads, seconds);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
