// LoRA on the stacked weights of a mixture of experts, as PEFT's target_parameters does it.
#include <graft/graft.hpp>

#include <iostream>
#include <vector>

constexpr graft::Index hidden = 6, inner = 4;
constexpr int expert_count = 3;

struct Experts {
  graft::Adaptable<graft::Parameter<>> gate_up_proj{graft::Shape{expert_count, 2 * inner, hidden}};  // (experts, out, in)
  graft::Adaptable<graft::Parameter<>> down_proj{graft::Shape{expert_count, hidden, inner}};

  auto operator()(const auto& x, const graft::ExpertIds& experts) const {
    const auto both = gate_up_proj(x, experts);
    return down_proj(graft::mul(graft::silu(graft::slice(both, 0, inner)), graft::slice(both, inner, inner)), experts);
  }
  GRAFT_MODULE(gate_up_proj, down_proj)
};

struct Mixture {
  graft::Adaptable<graft::Linear<>> router{hidden, expert_count, false};
  Experts experts;

  auto operator()(const auto& x) const {
    const auto logits = router(x);
    return graft::add(x, experts(x, best_of(logits)));  // every row by its best expert
  }
  GRAFT_MODULE(router, experts)

 private:
  static std::vector<int> best_of(const graft::Matrix<>& logits) {
    std::vector<int> best(std::size_t(logits.rows()));
    for (graft::Index i = 0; i < logits.rows(); ++i) logits.row(i).maxCoeff(&best[std::size_t(i)]);
    return best;
  }
  static std::vector<int> best_of(const graft::Rows<>& logits) { return best_of(graft::Matrix<>(logits.value())); }
};

int main() {
  Mixture model;
  graft::initialise(model, 1);
  // a real model loads its weights; a parameter has no default to start from
  float next = 0;
  for (auto* stack : {&model.experts.gate_up_proj, &model.experts.down_proj})
    for (float& weight : (*stack)->view().reshaped()) weight = 0.25F * float(int(next += 7) % 9 - 4);

  graft::LoraConfig config{.r = 2, .lora_alpha = 4, .target_modules = {"router"}, .init_lora_weights = false};
  config.target_parameters = {"experts.gate_up_proj", "experts.down_proj"};
  const graft::InjectReport report = graft::inject_adapter_in_model(config, model);
  for (const graft::MatchedModule& one : report.matched) std::cout << one.path << ": " << one.in << " -> " << one.out << '\n';
  std::cout << "\n" << graft::repr(model) << "\n\nin a file:\n";
  for (const auto& [key, view] : graft::get_peft_model_state_dict(model)) std::cout << key << ' ' << graft::to_string(view.shape) << '\n';

  // two sequences, the first without the adapter
  graft::Matrix<> x(4, hidden);
  for (graft::Index i = 0; i < x.size(); ++i) x.data()[i] = float(i * 5 % 11) / 11 - 0.4F;
  graft::Batch batch;
  batch.add(2, graft::base_only()).add(2);
  const graft::Matrix<> mixed = model(batch.input(x)).value(), adapted = model(x);
  graft::Matrix<> base;
  {
    const auto off = graft::disable_adapter(model);
    base = model(x);
  }
  std::cout << "\nthe first two rows are the base's: " << std::boolalpha << (mixed.topRows(2) == base.topRows(2))
            << ", the others the adapter's: " << (mixed.bottomRows(2) == adapted.bottomRows(2)) << ", which differ: "
            << (adapted != base) << '\n';

  graft::merge_adapter(model);
  std::cout << "merged, the same to rounding: " << (model(x) - adapted).isZero(1e-5F) << '\n';
}
