// What a site costs when nothing is injected, what switching costs, and what attached adapters cost that nobody uses.
#include "../../llama_sites.hpp"
#include "layers.hpp"

namespace paired {
namespace {

void empty_site(Context& context) {
  for (const auto& [size, n] : {std::pair{64L, 1L}, {64L, 16L}, {768L, 1L}}) {
    Problem<float> problem(n, size, size);
    OneSite<> model(size, size, problem.w.data());
    graft::Batch batch;
    batch.add(n);
    const auto x = batch.input(graft::Matrix<>(problem.input()));
    Race race;
    race.add("bare layer", [&] { keep(model.site.base_layer()(x)); });
    race.add("ours", [&] { keep(model.site(x)); });
    race.run(context.effort());
    Row row{.name = "empty site " + square(size) + " T=" + std::to_string(n)};
    row.ours = race["ours"];
    row.limit = race["bare layer"].median();
    row.limit_of = "the bare layer";
    row.beside.push_back(race.beside("bare layer"));
    // within noise: paired medians of the same code differ by so much
    row.gates.push_back(ratio_gate("empty site", race, "ours", "bare layer", 1.05));
    context.report.row(row);
  }
  Row bytes{.name = "bytes of a site over its layer", .reason = "not a time"};
  const double more = double(sizeof(graft::Adaptable<graft::Linear<>>)) - double(sizeof(graft::Linear<>));
  bytes.gates.push_back({.goal = "empty site", .what = "sizeof", .target = 8, .value = Series({more}), .unit = "bytes"});
  context.report.row(bytes);
}

constexpr double sites_of_llama = 224;

/// Attaches `count` adapters of rank r without memory.
void attach(LlamaSites& model, int count, int r) {
  for (int i = 0; i < count; ++i)
    graft::inject_adapter_in_model(LlamaSites::lora(r), model, numbered("a", i), {.low_cpu_mem_usage = true, .activate = false});
}

void switching(Context& context) {
  LlamaSites small, large, crowded;
  attach(small, 2, 8);
  attach(large, 2, 64);
  const int many = context.options.quick ? 100 : 1000;
  attach(crowded, many, 8);
  const auto alternate = [](LlamaSites& model) {
    return [&model, turn = false]() mutable {
      graft::set_adapter(model, turn ? "a0" : "a1");
      turn = !turn;
    };
  };
  Race race;
  race.add("2 of r=8", alternate(small)).add("2 of r=64", alternate(large)).add("many of r=8", alternate(crowded));
  race.run(context.effort());
  Row row{.name = "set_adapter over 224 sites, 2 attached of r=8"};
  row.ours = race["2 of r=8"];
  row.beside = {race.beside("2 of r=64"), race.beside("many of r=8")};
  row.gates.push_back({.goal = "switching", .what = "a site", .target = 1.0,
                       .value = (1e6 / sites_of_llama) * race["2 of r=8"], .unit = "us"});
  row.gates.push_back({.goal = "switching", .what = "r=64 / r=8", .target = 1.1, .value = race["2 of r=64"] / race["2 of r=8"]});
  row.gates.push_back({.goal = "switching", .what = std::to_string(many) + " attached / 2 attached", .target = 1.1,
                       .value = race["many of r=8"] / race["2 of r=8"]});
  context.report.row(row);
}

void idle_adapters(Context& context) {
  Problem<float> problem(1, 64, 64);
  OneSite<> one(64, 64, problem.w.data()), crowded(64, 64, problem.w.data());
  const int many = context.options.quick ? 100 : 1000;
  inject_lora(one, 8, "a0");
  for (int i = 0; i < many; ++i) inject_lora(crowded, 8, numbered("a", i));
  graft::set_adapter(crowded, numbered("a", many / 2));
  graft::Batch batch;
  batch.add(1);
  Race race;
  race.add("1 attached", [&] { one.site(problem.input(), batch, problem.result()); });
  race.add("ours", [&] { crowded.site(problem.input(), batch, problem.result()); });
  race.run(context.effort());
  Row row{.name = numbered("LoRA r=8 64² T=1, of ", many) + " attached one active"};
  row.ours = race["ours"];
  row.limit = race["1 attached"].median();
  row.limit_of = "the same with one attached";
  row.beside.push_back(race.beside("1 attached"));
  row.gates.push_back(ratio_gate("switching", race, "ours", "1 attached", 1.05));
  context.report.row(row);
}

}  // namespace

void sites(Context& context) {
  context.report.area("sites", "Sites at rest, switching, adapters that are attached and idle");
  empty_site(context);
  switching(context);
  idle_adapters(context);
}

}  // namespace paired
