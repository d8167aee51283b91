#pragma once

#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "../core/compile_once.hpp"
#include "../kernels/conv.hpp"
#include "../kernels/low_rank.hpp"
#include "../kernels/merge.hpp"
#include "../modules/conv_geometry.hpp"
#include "../modules/random_fill.hpp"
#include "adapter.hpp"
#include "joined_update.hpp"
#include "narrow.hpp"
#include "packed_b.hpp"

namespace graft {

/// AdaLoRA (Zhang et al., arXiv:2303.10512): y += κ · B·(E∘A)·x with κ = alpha / (ranknum + 1e-5).
struct AdaLora {
  using Config = AdaLoraConfig;
  static constexpr PeftType type = PeftType::adalora;
  template <class T>
  class State;

  /// Linear layers of both layouts, and 2-d convolutions without groups, which the plan checks.
  static constexpr bool supports(LayerKind kind) { return kind == LayerKind::linear || kind == LayerKind::conv; }
};

/// AdaLoRA at one site. A (r, in), B (out, r), E (r, 1); of a convolution in counts in·kh·kw. r may be 0 after pruning.
///
/// ranknum stays the rank at creation when ranks are pruned, so that the scale does not jump (PEFT's rule).
template <class T>
class AdaLora::State final : public AdapterState<T> {
 public:
  State(const AdaLoraConfig& config, const LayerFacts& facts, const AdapterPlan& plan)
      : facts_(facts),
        lora_alpha_(plan.lora_alpha),
        dropout_(config.lora_dropout),
        is_identity_(config.init_lora_weights) {
    const Index width = facts.in * (facts.kind == LayerKind::conv ? facts.conv.kernel.size() : 1);
    a_ = ParameterData(dtype_of<T>, {plan.r, width});
    b_ = ParameterData(dtype_of<T>, {facts.out, plan.r});
    e_ = ParameterData(dtype_of<T>, {plan.r, 1});
    ranknum_ = ParameterData(dtype_of<T>, {1});
    fill_constant(ranknum_, plan.r == 0 ? 0 : config.init_r);
    for (ParameterData* parameter : {&a_, &b_, &e_}) parameter->set_requires_grad(!config.inference_mode);
  }

  [[nodiscard]] PeftType type() const override { return PeftType::adalora; }
  [[nodiscard]] std::unique_ptr<AnyAdapterState> clone() const override { return detail::make_unique_as<AnyAdapterState, State>(*this); }
  [[nodiscard]] bool is_meta() const override { return a_.is_meta() || b_.is_meta() || e_.is_meta(); }
  [[nodiscard]] Index rank() const override { return a_.shape().rows(); }
  [[nodiscard]] double scaling() const override {
    return lora_alpha_ > 0 ? lora_alpha_ : double(rank());  // the kept rank, as PEFT has it after loading
  }
  [[nodiscard]] double dropout() const override { return dropout_; }

  [[nodiscard]] std::vector<AdapterParameter> parameters() override {
    return {{"lora_A", "", &a_}, {"lora_B", "", &b_}, {"lora_E", "", &e_}, {"ranknum", "", &ranknum_, false}};
  }

  void initialise(std::uint64_t seed, std::string_view path) override {
    const std::string name(path);
    const double deviation = is_identity_ ? 0.02 : 1;
    if (is_identity_) fill_constant(e_, 0);
    else fill_normal(e_, {seed, name + ".lora_E"}, 1);
    fill_normal(a_, {seed, name + ".lora_A"}, deviation);
    fill_normal(b_, {seed, name + ".lora_B"}, deviation);
  }

  void update(const SiteInput<T>& x, Out<T> y, double weight, const BaseWeight<T>&, Workspace* workspace) const override {
    if (rank() == 0) return;
    const T kappa = kappa_of(weight);
    if (facts_.kind == LayerKind::linear) update_linear(x.rows, y, kappa, workspace);
    else update_conv(x, y, kappa, workspace);
  }

  [[nodiscard]] Index terms_of_update(Index n, Index out, double weight, const BaseWeight<T>&,
                                      kernels::LowRankTerm<T>* terms) const override {
    if (is_narrow()) return 0;
    *terms = term_of(n, out, kappa_of(weight));
    return 1;
  }

  [[nodiscard]] bool wants_gradients() const { return a_.requires_grad() || b_.requires_grad() || e_.requires_grad(); }
  [[nodiscard]] static bool update_wants_result() { return false; }
  template <class = OnDemand>
  void update_vjp(const UpdateGradient<T>& to) const;

  [[nodiscard]] std::optional<MergeRefusal> merge_refusal() const override {
    if (facts_.kind != LayerKind::conv || facts_.conv.padding_mode == PaddingMode::zeros) return {};
    return MergeRefusal{"AdaLoRA pads with zeros, whatever the layer does, and its weight would be padded as the layer's",
                        "leave it unmerged"};
  }
  [[nodiscard]] double delta_bound(double weight) const override {
    return std::abs(double(kappa_of(weight))) * double(rank()) * largest(a_) * largest(b_) * largest(e_);
  }
  void add_delta(Index begin, Out<T> rows, double weight, Workspace* workspace) const override {
    const Index width = rows.cols(), r = rank();
    const detail::Values<T> a(a_, workspace), b(b_, workspace), e(e_, workspace);
    const Scratch<T> scratch(workspace, kernels::low_rank_delta_scratch(width, r));
    kernels::add_low_rank_delta<T>(rows.rows(), width, r, b.data() + begin * r, r, e.data(), kappa_of(weight), a.data(), width,
                                   rows.data(), rows.outerStride(), scratch.data());
  }

 private:
  [[nodiscard]] T kappa_of(double weight) const { return T(weight * scaling() / (double(data(ranknum_)[0]) + 1e-5)); }

  void update_linear(const In<T>& x, Out<T> y, T kappa, Workspace* workspace) const {
    if (is_narrow()) return detail::add_narrow_update<T>(x, a_, b_, packed_b_, &e_, kappa, nullptr, y, workspace);
    const kernels::LowRankTerm<T> term = term_of(x.rows(), y.cols(), kappa);
    detail::add_terms<T>(std::span(&term, 1), x, nullptr, y, workspace);
  }
  [[nodiscard]] kernels::LowRankTerm<T> term_of(Index n, Index out, T kappa) const {
    const Index r = rank();
    if (r == 0) return {};
    return {r, data(a_), packed_b_.get(b_, n, out, r), data(e_), kappa, nullptr, data(b_)};
  }
  [[nodiscard]] bool is_narrow() const {
    return detail::is_narrow<T>(a_) || detail::is_narrow<T>(b_) || detail::is_narrow<T>(e_);
  }

  void update_conv(const SiteInput<T>& x, Out<T> y, T kappa, Workspace* workspace) const {
    kernels::ConvGeometry geometry = detail::conv_geometry(facts_.conv, x.row_shape);
    geometry.padding_mode = PaddingMode::zeros;  // as PEFT, whatever the base's is
    const detail::Values<T> a(a_, workspace), b(b_, workspace), e(e_, workspace);
    const Scratch<T> scratch(workspace, kernels::low_rank_conv_scratch(geometry, rank()));
    for (Index i = 0; i < x.rows.rows(); ++i)
      kernels::low_rank_conv_update<T>(geometry, rank(), x.rows.data() + i * x.rows.outerStride(), a.data(), b.data(), e.data(), kappa,
                                       nullptr, y.data() + i * y.outerStride(), scratch.data());
  }

  [[nodiscard]] static double largest(const ParameterData& parameter) {
    return double(kernels::largest_magnitude<T>(parameter.shape().size(), detail::Values<T>(parameter).data()));
  }
  [[nodiscard]] static const T* data(const ParameterData& parameter) { return reinterpret_cast<const T*>(parameter.data()); }

  LayerFacts facts_;
  double lora_alpha_;
  double dropout_;
  bool is_identity_;
  ParameterData a_, b_, e_, ranknum_;
  detail::PackedB<T> packed_b_;
};

GRAFT_SHARED_CLASS(AdaLora::State<float>)

}  // namespace graft
