// Forward and backward of one LoRA layer: dA, dB and dx, the weight frozen.
#include <algorithm>
#include <cstring>

#include <graft/kernels/backward.hpp>

#include "layers.hpp"

namespace paired {
namespace {

namespace kernels = graft::kernels;

/// One step of a linear layer with LoRA, of kernels alone: B is packed anew, as it has changed since the last one.
class Step {
 public:
  Step(Problem<float>& problem, int rank) : p_(problem), r_(rank), scratch_(std::size_t(scratch())) {
    for (Memory<float>* memory : {&a_, &b_, &g_}) memory->fill(3, 0.1);
  }
  void base() {
    kernels::product_nt(p_.n, p_.out, p_.in, p_.x.data(), p_.in, p_.w.data(), p_.in, none, p_.y.data(), p_.out, false,
                        scratch_.data());
  }
  void base_backward() {
    kernels::product_nt_backward(p_.n, p_.out, p_.in, g_.data(), p_.out, p_.w.data(), p_.in, dx_.data(), p_.in, false,
                                 scratch_.data());
  }
  void run() {
    base();
    kernels::product_nt(p_.n, r_, p_.in, p_.x.data(), p_.in, a_.data(), p_.in, none, u_.data(), r_, false);
    kernels::scale(p_.n, r_, scale, u_.data(), r_, scaled_u_.data(), r_);
    kernels::low_rank_expand(p_.n, p_.out, r_, scaled_u_.data(), b_.data(), p_.y.data(), p_.out, scratch_.data());
    base_backward();
    std::memset(da_.data(), 0, da_.bytes());
    std::memset(db_.data(), 0, db_.bytes());
    kernels::low_rank_backward<float>(p_.n, p_.in, p_.out, r_, p_.x.data(), p_.in, a_.data(), b_.data(), nullptr, scale,
                                      g_.data(), p_.out, u_.data(), {da_.data(), db_.data(), nullptr, dx_.data(), p_.in},
                                      scratch_.data());
  }

 private:
  static Memory<float> of(long count) { return Memory<float>(std::size_t(count)); }
  static constexpr float scale = 2;
  static constexpr const float* none = nullptr;
  [[nodiscard]] long scratch() const {
    return std::max({long(kernels::product_nt_scratch<float, float>(p_.n, p_.in, p_.in, p_.in)),
                     long(kernels::panel_scratch<float>(p_.out, p_.in)),
                     long(kernels::low_rank_backward_scratch<float>(p_.n, p_.in, p_.out, r_)), 128L * r_});
  }

  Problem<float>& p_;
  long r_;
  Memory<float> a_ = of(r_ * p_.in), b_ = of(p_.out * r_), g_ = of(p_.n * p_.out), u_ = of(p_.n * r_), scaled_u_ = of(p_.n * r_),
                dx_ = of(p_.n * p_.in), da_ = of(r_ * p_.in), db_ = of(p_.out * r_), scratch_;
};

void measure(Context& context, long size, long n, int r, Row& row) {
  Problem<float> problem(n, size, size);
  Step step(problem, r);
  Race race;
  race.add("own forward + g W", [&] {
    step.base();
    step.base_backward();
  });
  race.add("ours", [&] { step.run(); });
  race.add("torch autograd, peft",
           context.worker("torch", {{"operation", "train"}, {"n", n}, {"in", size}, {"out", size}, {"r", r}}));
  race.run(context.effort());
  row.ours = race["ours"];
  for (const char* name : {"own forward + g W", "torch autograd, peft"}) row.beside.push_back(race.beside(name));
  row.gates[0].value = race["ours"] / race["torch autograd, peft"];
  row.gates[0].reason = race.reason("torch autograd, peft");
  row.gates[1].value = race["ours"] / race["own forward + g W"];
}

}  // namespace

void training_step(Context& context) {
  context.report.area("training", "Training step of one LoRA layer: forward, dA, dB, dx; kernels alone, one thread");
  for (const long size : {768L, 2048L, 4096L})
    for (const long n : {64L, 512L})
      for (const int r : {8, 16, 64}) {
        Row row{.name = square(size) + " T=" + std::to_string(n) + " r=" + std::to_string(r)};
        const double flops = 3.0 * r / double(size);  // three products of r (in + out) over two of in out
        row.gates = {{.goal = "10", .what = "ours / torch autograd", .target = n == 512 && size == 768 ? 0.92 : 1.0},
                     {.goal = "10", .what = "ours / (own forward + g W)", .target = 1 + 1.45 * flops + 0.06}};
        const double operations = 4.0 * double(n) * double(size) * double(size) * (1 + flops);
        row.limit = operations / context.machine.peak(false);
        row.limit_of = "arithmetic";
        if (context.options.quick && (size > 768 || n > 64)) {
          row.reason = not_quick;
          for (Gate& gate : row.gates) gate.reason = not_quick;
        } else {
          measure(context, size, n, r, row);
        }
        context.report.row(row);
      }
}

}  // namespace paired
