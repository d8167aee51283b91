// Merging an adapter into its weight, taking it out again, and DoRA's norms.
#include <cmath>

#include "layers.hpp"

namespace paired {
namespace {

constexpr const char* no_merge = "merging is not in this version";

// Found by its argument, so that this compiles whether or not the verb exists.
template <class Model>
concept Mergeable = requires(Model& model) {
  merge_adapter(model);
  unmerge_adapter(model);
};

/// Named through a class of graft's, whose namespace the verbs are then looked up in.
template <class Named>
struct DenseSite {
  DenseSite(long size) : site(size, size, false) {}
  graft::Adaptable<graft::Linear<>> site;
  GRAFT_MODULE(site)
};
using Model = DenseSite<graft::Lora>;

template <class M>
void merge(M& model) {
  if constexpr (Mergeable<M>) merge_adapter(model);
}
template <class M>
void unmerge(M& model) {
  if constexpr (Mergeable<M>) unmerge_adapter(model);
}

/// Seconds of one of two calls that must alternate: the other is not counted.
Seconds one_of_two(std::function<void()> counted, std::function<void()> other, bool counted_first) {
  return [=](long calls) {
    double seconds = 0;
    for (long i = 0; i < calls; ++i) {
      if (!counted_first) other();
      const double start = now();
      counted();
      seconds += now() - start;
      if (counted_first) other();
    }
    return seconds;
  };
}

void merge_speed(Context& context, long size, int r) {
  Row row{.name = square(size) + " r=" + std::to_string(r) + " merge"};
  row.gates = {{.goal = "7", .what = "ours / (read and write W + flops at peak)", .target = 1.10},
               {.goal = "7", .what = "ours / eigen, W += (s B) A", .target = 0.70},
               {.goal = "7", .what = "ours / eigen, delta formed", .target = 0.45}};
  Row pair{.name = square(size) + " r=" + std::to_string(r) + " merge and unmerge"};
  if (r == 16 && size == 4096) pair.gates.push_back({.goal = "PEFT merge", .what = "ours / peft", .target = 0.1});
  if (context.options.quick && (size > 768 || r != 16)) {
    for (Row* each : {&row, &pair}) {
      each->reason = not_quick;
      for (Gate& gate : each->gates) gate.reason = not_quick;
      context.report.row(*each);
    }
    return;
  }

  Model model(size);
  graft::initialise(model, 1);
  inject_lora(model, r);
  Memory<float> w(std::size_t(size) * std::size_t(size));
  w.fill(2, 0.05);
  PeerJob job{.operation = peer_merge, .is_double = false, .n = 0, .in = size, .out = size, .r = r, .x = nullptr,
              .w = w.data(), .a = model.site.parameter("default", "lora_A").data(),
              .b = model.site.parameter("default", "lora_B").data(), .y = nullptr, .scale = 2, .adapters = 0,
              .adapter_a = nullptr, .adapter_b = nullptr, .adapter_of_row = nullptr};
  const double flops = 2.0 * r * double(size) * double(size);
  Race race;
  Contender ours{{}, no_merge}, cycle = ours;
  if constexpr (Mergeable<Model>) {
    ours = {one_of_two([&] { merge(model); }, [&] { unmerge(model); }, true), {}};
    cycle = {here([&] { merge(model); unmerge(model); }), {}};
  }
  race.add("ours", ours);
  race.add("ours, both", cycle);
  race.add("read and write W", [&] { read_and_write_all(w.data(), w.size()); });
  race.add("peak", Contender{context.machine.at_peak(flops, false), {}});
  race.add("eigen, W += (s B) A", context.peer("eigen", job));
  job.operation = peer_merge_formed;
  race.add("eigen, delta formed", context.peer("eigen", job));
  race.add("copy of W", [&, from = &w, to = std::make_shared<Memory<float>>(w.size())] {
    std::memcpy(to->data(), from->data(), from->bytes());
  });
  race.add("peft", context.worker("torch", {{"operation", "merge"}, {"in", size}, {"out", size}, {"r", r}}));
  race.run(context.effort(1.0));

  row.ours = race["ours"];
  row.reason = race.reason("ours");
  const Series limit = race["read and write W"] + race["peak"];
  row.limit = limit.median();
  row.limit_of = "reading and writing W, operations at peak";
  for (const char* name : {"eigen, W += (s B) A", "eigen, delta formed", "read and write W", "copy of W"})
    row.beside.push_back(race.beside(name));
  const Series under[] = {limit, race["eigen, W += (s B) A"], race["eigen, delta formed"]};
  for (std::size_t i = 0; i < row.gates.size(); ++i) {
    row.gates[i].value = row.ours / under[i];
    row.gates[i].reason = !row.reason.empty() ? row.reason : race.reason("eigen, W += (s B) A");
  }
  pair.ours = race["ours, both"];
  pair.reason = race.reason("ours, both");
  pair.limit = 2 * limit.median();
  pair.limit_of = "twice that of a merge";
  pair.beside.push_back(race.beside("peft"));
  for (Gate& gate : pair.gates) {
    gate.value = pair.ours / race["peft"];
    gate.reason = !pair.reason.empty() ? pair.reason : race.reason("peft");
  }
  context.report.row(row);
  context.report.row(pair);
}

/// What is left of a weight after cycles of merging and unmerging.
void drift(Context& context) {
  Row row{.name = "1024² r=16, left after 1, 10, 100 cycles"};
  row.gates = {{.goal = "7", .what = "rms error / rms of W", .target = 1e-7, .reason = no_merge},
               {.goal = "7", .what = "weights that change after the first cycle", .target = 0, .reason = no_merge}};
  row.reason = no_merge;
  if constexpr (Mergeable<Model>) {
    row.reason = "not a time";
    Model model(1024);
    graft::initialise(model, 1);
    inject_lora(model, 16);
    const graft::Matrix<> original = model.site->weight.view();
    graft::Matrix<> first;
    Series error, changed;
    int cycle = 0;
    for (const int until : {1, 10, 100}) {
      for (; cycle < until; ++cycle) {
        merge(model);
        unmerge(model);
      }
      const graft::Matrix<> left = model.site->weight.view();
      error.add(double((left - original).norm()) / double(original.norm()));
      if (until == 1) first = left;
      else changed.add(double((left.array() != first.array()).count()));
    }
    row.gates[0].value = error;
    row.gates[1].value = changed;
  }
  context.report.row(row);
}

}  // namespace

void merging(Context& context) {
  context.report.area("merge", "Merging, unmerging and DoRA's norms, one thread");
  for (const long size : {768L, 4096L})
    for (const int r : {8, 16, 64}) merge_speed(context, size, r);
  drift(context);
  dora_norms(context);
}

}  // namespace paired
