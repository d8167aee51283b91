// What an adapter costs over its base layer, and against the same in Eigen, PEFT and ggml.
#include "checked.hpp"

namespace paired {
namespace {

struct Case {
  long size, n;
  int r;
  bool use_dora = false;
};

/// The part of the base product's operations, and of its bytes, that the adapter adds.
double fraction(const Case& c) { return double(c.r) * 2 / double(c.size); }

std::vector<Gate> gates(const Machine& machine, const Case& c) {
  std::vector<Gate> all;
  if (c.use_dora) {
    all.push_back({.goal = "PEFT DoRA", .what = "ours / bare", .target = 1.1});
    return all;
  }
  if (c.size >= 768) {
    const double slack = c.n >= 2 && c.n <= 16 ? 0.04 : 0.015;
    all.push_back({.goal = "4", .what = "ours / bare", .target = 1 + 1.35 * fraction(c) + slack});
  }
  if (c.r != 16) return all;
  if (c.n == 1 && c.size == 64) all.push_back({.goal = "PEFT site", .what = "ours / bare", .target = 1.6});
  if (c.n == 1 && c.size == 768) all.push_back({.goal = "PEFT site", .what = "ours / bare", .target = 1.07});
  if (c.size < 768) return all;
  if (c.n >= 16 && machine.instruction_set() == "avx512")
    all.push_back({.goal = "5", .what = "ours / eigen, three products", .target = 0.85});
  all.push_back({.goal = "5", .what = "ours / peft", .target = c.n == 1 ? 0.80 : 1.0});
  all.push_back({.goal = "5", .what = "ours / ggml f32", .target = 0.5});
  if (c.n >= 256) all.push_back({.goal = "5", .what = "ours / ggml f16", .target = 1.0});
  return all;
}

Row measure(Context& context, const Case& c, Row row) {
  Problem<float> problem(c.n, c.size, c.size);
  OneSite<> bare(c.size, c.size, problem.w.data()), adapted(c.size, c.size, problem.w.data());
  try {
    inject_lora(adapted, c.r, "default", c.use_dora);
  } catch (const graft::Error& error) {
    row.reason = error.problem;
    for (Gate& gate : row.gates) gate.reason = row.reason;
    return row;
  }
  graft::Batch batch;
  batch.add(c.n);

  PeerJob job = problem.job(peer_lora_products);
  job.r = c.r;
  job.a = adapted.site.parameter("default", "lora_A").data();
  job.b = adapted.site.parameter("default", "lora_B").data();
  nlohmann::json described = problem.worker_job("lora");
  described["r"] = c.r;
  described["dora"] = c.use_dora;

  const auto ours = [&] { adapted.site(problem.input(), batch, problem.result()); };
  const Expected<float> expected(problem, ours);
  Race race;
  race.add("bare", [&] { bare.site(problem.input(), batch, problem.result()); });
  race.add("ours", ours);
  race.add("peft, bare", context.worker("torch", problem.worker_job("product")));
  race.add("peft", context.worker("torch", described));
  std::vector<std::string> shown{"bare", "peft, bare", "peft"};
  if (!c.use_dora) {
    race.add("eigen, three products", expected.checked(context.peer("eigen", job)));
    job.operation = peer_lora_expression;
    race.add("eigen, one expression", expected.checked(context.peer("eigen", job)));
    described["type"] = "f32";
    race.add("ggml f32", context.worker("ggml", described));
    described["type"] = "f16";
    race.add("ggml f16", context.worker("ggml", described));
    race.add("onnxruntime", context.worker("onnxruntime", described));
    race.add("openvino", context.worker("openvino", described));
    for (const char* name : {"eigen, three products", "eigen, one expression", "ggml f32", "ggml f16", "onnxruntime", "openvino"})
      shown.push_back(name);
  }
  race.run(context.effort());

  row.ours = race["ours"];
  row.limit = race["bare"].median() * (1 + fraction(c));
  row.limit_of = "the bare layer and the adapter's part";
  for (const std::string& name : shown) row.beside.push_back(race.beside(name));
  const Series theirs = race["peft"] / race["peft, bare"];
  if (theirs.measured()) row.note = "peft over its own bare layer: " + std::to_string(theirs.median()).substr(0, 4);
  for (Gate& gate : row.gates) {
    const std::string under = gate.what.substr(std::string("ours / ").size());
    gate.value = race["ours"] / race[under];
    gate.reason = race.reason(under);
  }
  return row;
}

}  // namespace

void lora_overhead(Context& context) {
  context.report.area("lora", "LoRA's forward at one site, T rows, one thread");
  std::vector<Case> cases{{64, 1, 16}};
  for (const long size : {768L, 4096L})
    for (const long n : {1L, 4L, 16L, 64L, 512L})
      for (const int r : {8, 16, 64})
        if (r == 16 || n == 1 || n == 512) cases.push_back({size, n, r});
  cases.push_back({768, 1, 16, true});
  for (const Case& c : cases) {
    Row row{.name = square(c.size) + " T=" + std::to_string(c.n) + " r=" + std::to_string(c.r) + (c.use_dora ? " DoRA" : "")};
    row.gates = gates(context.machine, c);
    const bool in_quick = c.size <= 768 && c.r == 16 && c.n <= 16;
    if (context.options.quick && !in_quick) {
      row.reason = not_quick;
      for (Gate& gate : row.gates) gate.reason = not_quick;
      context.report.row(row);
    } else {
      context.report.row(measure(context, c, row));
    }
  }
}

}  // namespace paired
