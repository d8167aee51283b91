// Putting adapters into the 224 sites of a Llama of 7 billion parameters, and their files.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <unistd.h>

#include <graft/io.hpp>

#include "../../llama_sites.hpp"
#include "../context.hpp"

namespace paired {
namespace {

constexpr int rank = 64;

/// A PEFT directory of 640 MB whose tensors are holes of a sparse file: it needs no disk, and reads as zeros.
class SparseAdapter {
 public:
  SparseAdapter() : folder_(std::filesystem::temp_directory_path() / ("graft_bench_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(folder_);
    LlamaSites model;
    graft::inject_adapter_in_model(LlamaSites::lora(rank), model, "default", {.low_cpu_mem_usage = true});
    nlohmann::ordered_json tensors;
    std::size_t end = 0;
    for (const auto& [key, view] : graft::get_peft_model_state_dict(model)) {
      const std::size_t begin = end;
      end += view.bytes();
      tensors["base_model.model." + key] = {{"dtype", "F32"}, {"shape", view.shape}, {"data_offsets", {begin, end}}};
    }
    std::string header = tensors.dump();
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const std::uint64_t length = header.size();
    const auto weights = folder_ / "adapter_model.safetensors";
    std::ofstream(weights, std::ios::binary).write(reinterpret_cast<const char*>(&length), 8) << header;
    std::filesystem::resize_file(weights, 8 + header.size() + end);
    const nlohmann::json config{{"peft_type", "LORA"},
                                {"r", rank},
                                {"target_modules", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}}};
    std::ofstream(folder_ / "adapter_config.json") << config;
  }
  ~SparseAdapter() { std::filesystem::remove_all(folder_); }
  SparseAdapter(const SparseAdapter&) = delete;
  SparseAdapter& operator=(const SparseAdapter&) = delete;
  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
};

/// Seconds of f(model) on a model that nothing was done to.
template <class F>
Seconds on_a_fresh_model(F f) {
  return [f](long calls) {
    static const LlamaSites bare;
    double seconds = 0;
    for (long i = 0; i < calls; ++i) {
      LlamaSites model = bare;
      const double start = now();
      f(model);
      seconds += now() - start;
    }
    return seconds;
  };
}

graft::InjectReport inject(LlamaSites& model, bool on_meta, const std::string& name = "default") {
  return graft::inject_adapter_in_model(LlamaSites::lora(rank), model, name, {.low_cpu_mem_usage = on_meta, .activate = false});
}

Row timed(Context& context, std::string name, Seconds ours, double goal_ms, const std::string& goal = "11") {
  Row row{.name = std::move(name)};
  Race race;
  race.add("ours", Contender{std::move(ours), {}});
  race.run(context.effort());
  row.ours = race["ours"];
  row.gates.push_back({.goal = goal, .what = "ours", .target = goal_ms, .value = 1e3 * row.ours, .unit = "ms"});
  return row;
}

nlohmann::json torch_job(bool on_meta, const std::filesystem::path& folder = {}) {
  nlohmann::json job{{"operation", "inject"}, {"low_cpu_mem_usage", on_meta}, {"r", rank}};
  if (!folder.empty()) job["folder"] = folder.string();
  return job;
}

/// A contender that takes seconds: few rounds.
Effort slow(const Context& context) { return {.seconds = context.options.quick ? 0.1 : 3, .sample = 1e-6, .least = 3, .most = 9}; }

void injecting(Context& context) {
  for (const bool on_meta : {true, false}) {
    Row row{.name = std::string("224 sites r=64, ") + (on_meta ? "on meta" : "eager")};
    Race race;
    race.add("ours", Contender{on_a_fresh_model([=](LlamaSites& model) { inject(model, on_meta); }), {}});
    race.add("peft", context.options.quick ? Contender{{}, not_quick} : context.worker("torch", torch_job(on_meta)));
    race.run(slow(context));
    row.ours = race["ours"];
    row.beside.push_back(race.beside("peft"));
    row.gates.push_back({.goal = "11", .what = "ours", .target = on_meta ? 1.0 : 200.0, .value = 1e3 * row.ours, .unit = "ms"});
    context.report.row(row);
  }
  // Between a peer's rounds, memory that was given back comes from the machine's host anew, at 2 ms a huge page.
  context.report.row(timed(context, "224 sites r=64, eager, by itself",
                           on_a_fresh_model([](LlamaSites& model) { inject(model, false); }), 200.0));
}

/// What an adapter's A starts from, against the plain loop that defines the values.
void random_values(Context& context) {
  constexpr graft::Index count = 1 << 20;
  Row row{.name = "a million uniform values"};
  graft::ParameterData values(graft::Dtype::f32, {count});
  std::vector<float> plain(std::size_t{count});
  Race race;
  race.add("ours", [&] { graft::fill_uniform(values, {7, "lora_A"}, 0.1); });
  race.add("plain loop", [&] {
    graft::detail::for_each_uniform({7, "lora_A"}, count, [&](graft::Index i, double u) { plain[std::size_t(i)] = float((2 * u - 1) * 0.1); });
  });
  race.run(context.effort());
  row.ours = race["ours"];
  row.beside = {race.beside("plain loop")};
  row.gates.push_back({.goal = "random values", .what = "ours / plain loop", .target = 0.5, .value = race["ours"] / race["plain loop"]});
  context.report.row(row);
}

void with_others_attached(Context& context) {
  for (const int attached : {1, 100, 1000}) {
    Row row{.name = "224 sites r=64, on meta, the adapter after " + std::to_string(attached)};
    if (context.options.quick && attached > 1) {
      row.reason = not_quick;
      context.report.row(row);
      continue;
    }
    LlamaSites model;
    for (int i = 0; i < attached; ++i) inject(model, true, numbered("a", i));
    Race race;
    race.add("ours", Contender{[&](long calls) {
                                 double seconds = 0;
                                 for (long i = 0; i < calls; ++i) {
                                   const double start = now();
                                   inject(model, true, "last");
                                   seconds += now() - start;
                                   graft::delete_adapter(model, "last");
                                 }
                                 return seconds;
                               },
                               {}});
    race.run(context.effort(0.3));
    row.ours = race["ours"];
    context.report.row(row);
  }
}

void files(Context& context) {
  const SparseAdapter adapter;
  const auto weights = adapter.folder() / "adapter_model.safetensors";
  context.report.row(timed(
      context, "open a file of 640 MB, mapped",
      here([&] { keep(graft::safetensors::load_file(weights, {.mapped = true})); }), 1.0));

  Row row{.name = "inject into 224 sites and load 640 MB, mapped"};
  row.gates = {{.goal = "PEFT load", .what = "ours / peft, eager", .target = 0.01},
               {.goal = "PEFT load", .what = "ours / peft, low_cpu_mem_usage", .target = 0.01}};
  Race race;
  race.add("ours", Contender{on_a_fresh_model([&](LlamaSites& model) {
                               graft::load_adapter(model, adapter.folder(), "default", {.mapped = true});
                             }),
                             {}});
  for (const bool on_meta : {false, true})
    race.add(on_meta ? "peft, low_cpu_mem_usage" : "peft, eager",
             context.options.quick ? Contender{{}, not_quick} : context.worker("torch", torch_job(on_meta, adapter.folder())));
  race.run(slow(context));
  row.ours = race["ours"];
  row.beside = {race.beside("peft, eager"), race.beside("peft, low_cpu_mem_usage")};
  for (Gate& gate : row.gates) {
    const std::string under = gate.what.substr(std::string("ours / ").size());
    gate.value = row.ours / race[under];
    gate.reason = race.reason(under);
  }
  context.report.row(row);
}

}  // namespace

void injection_and_load(Context& context) {
  context.report.area("injection", "Injection into the 224 linear layers of a 7B Llama, and an adapter file of 640 MB");
  random_values(context);
  injecting(context);
  with_others_attached(context);
  files(context);
}

}  // namespace paired
