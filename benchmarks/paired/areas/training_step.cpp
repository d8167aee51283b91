// Forward and backward of one LoRA layer: dA, dB and dx, the weight frozen.
#include "layers.hpp"

namespace paired {

void training_step(Context& context) {
  context.report.area("training", "Training step of one LoRA layer: forward, dA, dB, dx; one thread");
  for (const long size : {768L, 2048L, 4096L})
    for (const long n : {64L, 512L})
      for (const int r : {8, 16, 64}) {
        Row row{.name = square(size) + " T=" + std::to_string(n) + " r=" + std::to_string(r)};
        row.reason = "training is not in this version";
        const double flops = 3.0 * r / double(size);  // three products of r (in + out) over two of in out
        row.gates = {{.goal = "10", .what = "ours / torch autograd", .target = n == 512 && size == 768 ? 0.92 : 1.0},
                     {.goal = "10", .what = "ours / (own forward + g W)", .target = 1 + 1.45 * flops + 0.06}};
        for (Gate& gate : row.gates) gate.reason = row.reason;
        const double operations = 4.0 * double(n) * double(size) * double(size) * (1 + flops);
        row.limit = operations / context.machine.peak(false);
        row.limit_of = "arithmetic";
        if (context.options.quick) {
          row.reason = not_quick;
        } else if (size < 4096 && r == 16) {  // until ours exists, one rank tells what torch takes
          Race race;
          race.add("torch autograd, peft",
                   context.worker("torch", {{"operation", "train"}, {"n", n}, {"in", size}, {"out", size}, {"r", r}}));
          race.run(context.effort());
          row.beside.push_back(race.beside("torch autograd, peft"));
        }
        context.report.row(row);
      }
}

}  // namespace paired
