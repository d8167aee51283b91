// A batch of rows that name different adapters.
#include <numeric>
#include <random>

#include "layers.hpp"

namespace paired {
namespace {

struct Case {
  long size;
  bool each_its_own;  ///< row i has adapter i; otherwise each row draws one
};

constexpr long rows = 64, adapters = 64;
constexpr int r = 16;

std::vector<int> adapter_of_row(const Case& c) {
  std::vector<int> of(rows);
  std::iota(of.begin(), of.end(), 0);
  std::mt19937 random(7);
  if (!c.each_its_own)
    for (int& adapter : of) adapter = int(random() % adapters);
  return of;
}

std::vector<Gate> gates(const Case& c) {
  std::vector<Gate> all{{.goal = "6", .what = "extra / extra of the Eigen loop", .target = 0.80},
                        {.goal = "6", .what = "extra / (1.3 (flops + reading) + 1 %)", .target = 1.0},
                        {.goal = "6", .what = "update alone / the Eigen loop", .target = 0.80},
                        {.goal = "6", .what = "update alone / (1.3 (flops + reading) + 1 %)", .target = 1.0}};
  if (c.each_its_own && c.size == 768) all.push_back({.goal = "PEFT mixed", .what = "ours / bare", .target = 1.3});
  return all;
}

Row measure(Context& context, const Case& c, Row row) {
  Problem<float> problem(rows, c.size, c.size);
  OneSite<> bare(c.size, c.size, problem.w.data()), model(c.size, c.size, problem.w.data());
  std::vector<const void*> a, b;  // everybody reads the same
  const std::vector<int> of = adapter_of_row(c);
  std::vector<graft::AdapterSelection> selections;
  for (long k = 0; k < adapters; ++k) {
    const std::string name = numbered("a", int(k));
    inject_lora(model, r, name);
    selections.push_back(graft::select(model, {{name}}));
    a.push_back(model.site.parameter(name, "lora_A").data());
    b.push_back(model.site.parameter(name, "lora_B").data());
  }
  graft::Batch one, mixed;
  one.add(rows);
  for (const int k : of) mixed.add(1, selections[std::size_t(k)]);
  std::vector<bool> is_used(adapters);
  for (const int k : of) is_used[std::size_t(k)] = true;

  PeerJob job = problem.job(peer_mixed_loop);
  job.r = r;
  job.adapters = adapters;
  job.adapter_a = a.data();
  job.adapter_b = b.data();
  job.adapter_of_row = of.data();
  nlohmann::json described = problem.worker_job("mixed");
  described["r"] = r;
  described["adapters"] = adapters;
  described["adapter_of_row"] = of;

  Race race;
  race.add("bare", [&] { bare.site(problem.input(), one, problem.result()); });
  race.add("ours", [&] { model.site(problem.input(), mixed, problem.result()); });
  race.add("ours, update", [&] { model.site.update(mixed, problem.input(), problem.result()); });
  race.add("eigen, gather per adapter", context.peer("eigen", job));
  race.add("reading the used A and B", [&] {
    const std::size_t bytes = std::size_t(r * c.size) * 4;
    for (std::size_t k = 0; k < std::size_t(adapters); ++k) {
      if (!is_used[k]) continue;
      read_all(a[k], bytes);
      read_all(b[k], bytes);
    }
  });
  race.add("peft, bare", context.worker("torch", problem.worker_job("product")));
  race.add("peft", context.worker("torch", described));
  race.run(context.effort(1.0));

  const double flops = 2.0 * r / double(c.size);
  const Series& base = race["bare"];
  const Series extra = race["ours"] - base, update = race["ours, update"], loop = race["eigen, gather per adapter"];
  const Series reading = race["reading the used A and B"];
  row.ours = race["ours"];
  row.limit = base.median() * (1 + flops) + reading.median();
  row.limit_of = "the bare layer, the adapters' operations, reading A and B";
  for (const char* name : {"bare", "reading the used A and B", "peft, bare", "peft"}) row.beside.push_back(race.beside(name));
  // Both by themselves: they add to whatever the base product left in y.
  row.beside.push_back({"update alone", update, {}});
  row.beside.push_back({"eigen's loop alone", loop, race.reason("eigen, gather per adapter")});
  const double own_share = 0.01 + 1.3 * flops;
  std::size_t gate = 0;
  for (const Series& ours : {extra, update}) {
    row.gates[gate].value = ours / loop;
    row.gates[gate++].reason = race.reason("eigen, gather per adapter");
    row.gates[gate++].value = (ours / base) / (own_share + 1.3 * (reading / base));
  }
  if (gate < row.gates.size()) row.gates[gate].value = row.ours / base;
  const Series theirs = race["peft"] / race["peft, bare"];
  if (theirs.measured()) row.note = "peft over its own bare layer: " + std::to_string(theirs.median()).substr(0, 4);
  return row;
}

}  // namespace

void many_adapters(Context& context) {
  context.report.area("many", "One batch of 64 rows over 64 adapters of r=16, one thread");
  for (const long size : {768L, 4096L})
    for (const bool each_its_own : {true, false}) {
      const Case c{size, each_its_own};
      Row row{.name = square(size) + (each_its_own ? ", one row each" : ", drawn at random")};
      row.gates = gates(c);
      if (context.options.quick && size != 768) {
        row.reason = not_quick;
        for (Gate& gate : row.gates) gate.reason = not_quick;
        context.report.row(row);
      } else {
        context.report.row(measure(context, c, row));
      }
    }
}

}  // namespace paired
