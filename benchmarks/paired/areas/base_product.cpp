// y = x W^T, the product under everything else.
#include <graft/thread_pool.hpp>
#include <thread>

#include "checked.hpp"

namespace paired {
namespace {

const char* const libraries[] = {"eigen", "eigen_plain", "openblas", "blis", "onednn"};
const char* const python[] = {"torch", "onnxruntime", "openvino", "ggml"};

/// Goal 2 by the rate of arithmetic that the processor has.
double eigen_goal(const Machine& machine, long n) {
  const bool avx512 = machine.instruction_set() == "avx512";
  if (n <= 4) return avx512 ? 0.45 : 0.60;
  if (n <= 16) return avx512 ? 0.75 : 0.80;
  return avx512 && !machine.avx512_at_half_rate() ? 0.80 : 1.05;
}

std::string arithmetic_of(const Machine& machine) {
  return machine.instruction_set() + (machine.avx512_at_half_rate() ? " at AVX2's rate" : "");
}

template <class T>
Row measure(Context& context, Row row, long n, long size) {
  Problem<T> problem(n, size, size);
  OneSite<T> model(size, size, problem.w.data());
  graft::Batch batch;
  batch.add(n);
  const auto ours = [&] { model.site(problem.input(), batch, problem.result()); };
  const Expected<T> expected(problem, ours);
  Race race;
  race.add("ours", ours);
  race.add("peak", Contender{context.machine.at_peak(problem.operations(), sizeof(T) == 8), {}});
  race.add("read W", [&] { read_all(problem.w.data(), problem.w.bytes()); });
  const PeerJob job = problem.job(peer_product);
  for (const char* name : libraries) {
    // A large product at a quarter of the speed takes the time of all the others.
    const bool left_out = std::string(name) == "eigen_plain" && size > 2048 && n > 64;
    race.add(name, left_out ? Contender{{}, "left out: minutes"} : expected.checked(context.peer(name, job)));
  }
  for (const char* name : python) race.add(name, context.worker(name, problem.worker_job("product")));
  race.run(context.effort());

  row.ours = race["ours"];
  row.limit = context.machine.limit(problem.operations(), problem.bytes(), sizeof(T) == 8);
  row.limit_of = row.limit == problem.operations() / context.machine.peak(sizeof(T) == 8) ? "arithmetic" : "reading W";
  for (const char* name : libraries) row.beside.push_back(race.beside(name));
  for (const char* name : python) row.beside.push_back(race.beside(name));
  for (Gate& gate : row.gates) {
    if (gate.what == "peak / ours") gate.value = race["peak"] / race["ours"];
    else if (gate.what == "read of W / ours") gate.value = race["read W"] / race["ours"];
    else {
      const std::string under = gate.what == "ours / openblas" ? "openblas" : "eigen";
      gate.value = race["ours"] / race[under];
      gate.reason = race.reason(under);
    }
  }
  return row;
}

std::vector<Gate> gates(const Machine& machine, long n, long size, bool is_double) {
  std::vector<Gate> all;
  if (is_double) return all;
  const std::string suffix = " (" + arithmetic_of(machine) + ")";
  if (n == 1) {
    all.push_back({.goal = "3", .what = "ours / eigen", .target = 1.10});
    all.push_back({.goal = "3", .what = "read of W / ours", .bound = Bound::at_least, .target = 0.80});
  } else {
    all.push_back({.goal = "2" + suffix, .what = "ours / eigen", .target = eigen_goal(machine, n)});
  }
  if (n == 512 && size >= 768) {
    all.push_back({.goal = "1" + suffix, .what = "peak / ours", .bound = Bound::at_least, .target = 0.78});
    all.push_back({.goal = "1" + suffix, .what = "ours / openblas", .target = 1.10});
  }
  return all;
}

/// Goal 12: a program compiled with plain -O2 against one compiled for the processor at hand. It is no gain if the latter is
/// the slower one.
void plain_against_native(Context& context) {
  for (const long n : {1L, 4L, 16L, 64L, 512L}) {
    Row row{.name = "768² T=" + std::to_string(n) + " f32, -O2"};
    for (const char* what : {"-march=native / -O2", "-O2 / -march=native"})
      row.gates.push_back({.goal = "12", .what = what, .bound = Bound::at_least, .target = 0.95});
    if (context.options.quick && n != 16) {
      row.reason = row.gates[0].reason = row.gates[1].reason = not_quick;
    } else {
      Problem<float> problem(n, 768, 768);
      const PeerJob job = problem.job(peer_product);
      Race race;
      race.add("-O2", context.peer("graft_plain", job)).add("-march=native", context.peer("graft_native", job));
      race.run(context.effort());
      row.ours = race["-O2"];
      row.reason = race.reason("-O2");
      row.limit = context.machine.limit(problem.operations(), problem.bytes(), false);
      row.limit_of = "arithmetic and reading";
      row.beside.push_back(race.beside("-march=native"));
      row.gates[0].value = race["-march=native"] / race["-O2"];
      row.gates[1].value = race["-O2"] / race["-march=native"];
      row.gates[0].reason = row.gates[1].reason = race.reason("-march=native");
    }
    context.report.row(row);
  }
}

/// Wall time, as several threads need it.
Contender on_the_wall(std::function<void()> call) {
  return {[call = std::move(call)](long calls) {
            const double start = wall();
            for (long i = 0; i < calls; ++i) call();
            clobber();
            return wall() - start;
          },
          {}};
}

void two_threads(Context& context) {
  for (const auto& [n, goal] : {std::pair{1L, 1.7}, {512L, 1.6}}) {
    Row row{.name = "2048² T=" + std::to_string(n) + " f32, two threads"};
    row.gates.push_back({.goal = "13", .what = "one thread / two", .bound = Bound::at_least, .target = goal});
    if (context.options.quick || std::thread::hardware_concurrency() < 2) {
      row.reason = row.gates[0].reason = context.options.quick ? not_quick : "the machine runs one thread at a time";
    } else {
      Problem<float> problem(n, 2048, 2048);
      OneSite<float> model(2048, 2048, problem.w.data());
      graft::ThreadPool pool(2);
      graft::Batch alone, shared;
      alone.add(n);
      shared.add(n);
      shared.set_parallel_for(pool);
      Race race;
      race.add("one", on_the_wall([&] { model.site(problem.input(), alone, problem.result()); }));
      race.add("two", on_the_wall([&] { model.site(problem.input(), shared, problem.result()); }));
      race.run(context.effort());
      row.ours = race["two"];
      row.limit = context.machine.limit(problem.operations(), problem.bytes(), false) / 2;
      row.limit_of = "half of one thread's";
      row.beside.push_back(race.beside("one"));
      row.gates[0].value = race["one"] / race["two"];
    }
    context.report.row(row);
  }
}

}  // namespace

void base_product(Context& context) {
  context.report.area("base", "Base product y = x W^T, T rows of x, one thread");
  for (const bool is_double : {false, true})
    for (const long size : {768L, 2048L, 4096L})
      for (const long n : {1L, 2L, 4L, 16L, 64L, 512L}) {
        Row row{.name = square(size) + " T=" + std::to_string(n) + (is_double ? " f64" : " f32")};
        row.gates = gates(context.machine, n, size, is_double);
        const bool in_quick = size == 768 && !is_double && (n == 1 || n == 4 || n == 16 || n == 512);
        if (context.options.quick && !in_quick) {
          row.reason = not_quick;
          for (Gate& gate : row.gates) gate.reason = not_quick;
          context.report.row(row);
        } else {
          context.report.row(is_double ? measure<double>(context, row, n, size) : measure<float>(context, row, n, size));
        }
      }
  plain_against_native(context);
  two_threads(context);
}

}  // namespace paired
