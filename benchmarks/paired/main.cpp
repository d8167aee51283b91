// Runs the paired benchmarks and writes one JSON object a line. tools/bench builds and calls it, and makes the tables.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include <graft/core/version.hpp>

#include "context.hpp"

namespace {

struct Area {
  const char* name;
  void (*run)(paired::Context&);
};
const Area areas[] = {{"base", paired::base_product},
                      {"lora", paired::lora_overhead},
                      {"many", paired::many_adapters},
                      {"merge", paired::merging},
                      {"narrow", paired::narrow_weights},
                      {"training", paired::training_step},
                      {"injection", paired::injection_and_load},
                      {"sites", paired::sites},
                      {"tales", paired::tales_tokens}};

// The instruction set that this program itself was compiled for: kernels without dispatch use no other.
const char* compiled_for() {
#if defined(__AVX512F__)
  return "avx512";
#elif defined(__AVX2__)
  return "avx2";
#else
  return "baseline";
#endif
}

// Before any peer is loaded: each reads its own when it starts. Neither OpenBLAS 0.3.21 nor BLIS 0.9 knows the later
// processors with AVX-512: they would use SSE, and are told to take the first of them (0 is BLIS's name for it).
void set_environment(const std::string& threads) {
  for (const char* name : {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}) unsetenv(name);
  for (const char* name : {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "BLIS_NUM_THREADS"}) setenv(name, threads.c_str(), 1);
  setenv("PYTHONNOUSERSITE", "1", 1);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512vl")) {
    setenv("OPENBLAS_CORETYPE", "SkylakeX", 1);
    setenv("BLIS_ARCH_TYPE", "0", 0);
  }
#endif
}

void report_machine(paired::Machine& machine, paired::Context& context) {
  nlohmann::json bandwidth;
  for (const std::size_t bytes : {std::size_t(16) << 10, std::size_t(512) << 10, std::size_t(2) << 20, std::size_t(16) << 20,
                                  std::size_t(64) << 20, std::size_t(256) << 20})
    if (!context.options.quick || bytes <= (std::size_t(64) << 20))
      bandwidth.push_back({{"bytes", bytes}, {"bytes_per_second", machine.read_bandwidth(bytes)}});
  context.report.machine({{"processor", machine.processor()},
                          {"instruction_set", machine.instruction_set()},
                          {"avx512_at_half_rate", machine.avx512_at_half_rate()},
                          {"peak_f32", machine.peak(false)},
                          {"peak_f64", machine.peak(true)},
                          {"peak_f32_avx2", machine.peak_avx2()},
                          {"read_bandwidth", bandwidth},
                          {"compiler", __VERSION__},
                          {"compiled_for", compiled_for()},
                          {"graft", GRAFT_VERSION},
                          {"clock", paired::use_wall_clock ? "wall" : "processor time"},
                          {"peers", context.peer_facts()}});
}

int run(const std::vector<std::string>& arguments) {
  paired::Options options;
  std::vector<std::string> chosen;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const auto value = [&]() -> const std::string& {
      if (i + 1 == arguments.size()) throw std::invalid_argument(arguments[i] + " needs a value");
      return arguments[++i];
    };
    const std::string& argument = arguments[i];
    if (argument == "--quick") options.quick = true;
    else if (argument == "--threads") options.threads = std::stoi(value());
    else if (argument == "--torch") options.torch_python = value();
    else if (argument == "--extras") options.extras_python = value();
    else if (argument == "--peers") options.peers = value();
    else if (argument == "--smollm") options.smollm = value();
    else if (argument == "--random-smollm") options.smollm = value(), options.smollm_is_random = true;
    else chosen.push_back(argument);
  }
  paired::use_wall_clock = options.threads > 1;
  set_environment(std::to_string(options.threads));
  paired::Machine machine(options.quick);
  paired::Report report;
  paired::Context context(options, machine, report);
  report_machine(machine, context);
  for (const Area& area : areas) {
    bool wanted = chosen.empty();
    for (const std::string& name : chosen) wanted |= name == area.name;
    if (!wanted) continue;
    std::fprintf(stderr, "measuring: %s\n", area.name);
    area.run(context);
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run({arguments + 1, arguments + count});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
