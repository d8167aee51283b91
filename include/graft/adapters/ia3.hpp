#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../core/compile_once.hpp"
#include "../kernels/elementwise.hpp"
#include "../modules/random_fill.hpp"
#include "adapter.hpp"
#include "narrow.hpp"

namespace graft {

/// (IA)³ (Liu et al., arXiv:2205.05638): a vector l scales the output, or the input of a feed-forward layer.
struct Ia3 {
  using Config = Ia3Config;
  static constexpr PeftType type = PeftType::ia3;
  template <class T>
  class State;

  /// Linear layers of both layouts and convolutions of any rank.
  static constexpr bool supports(LayerKind kind) { return kind == LayerKind::linear || kind == LayerKind::conv; }
};

/// (IA)³ at one site: l is (1, in) where it scales the input, (out, 1) where it scales the output bias included;
/// of a convolution (1, channels, 1…). Several active adapters multiply.
template <class T>
class Ia3::State final : public AdapterState<T> {
 public:
  State(const Ia3Config& config, const LayerFacts& facts, const AdapterPlan& plan)
      : is_feedforward_(plan.is_feedforward),
        is_identity_(config.init_ia3_weights),
        channels_(plan.is_feedforward ? facts.in : facts.out),
        out_(facts.out),
        groups_(facts.kind == LayerKind::conv ? facts.conv.groups : 1) {
    Shape shape = is_feedforward_ ? Shape{1, channels_} : Shape{channels_, 1};
    if (facts.kind == LayerKind::conv) {
      shape = Shape{1, channels_};
      for (std::size_t axis = 0; axis < facts.conv.kernel.rank(); ++axis) shape.push_back(1);
    }
    l_ = ParameterData(dtype_of<T>, shape);
    l_.set_requires_grad(!config.inference_mode);
  }

  [[nodiscard]] PeftType type() const override { return PeftType::ia3; }
  [[nodiscard]] std::unique_ptr<AnyAdapterState> clone() const override { return detail::make_unique_as<AnyAdapterState, State>(*this); }
  [[nodiscard]] bool is_meta() const override { return l_.is_meta(); }
  [[nodiscard]] bool is_feedforward() const override { return is_feedforward_; }
  [[nodiscard]] std::vector<AdapterParameter> parameters() override { return {{"ia3_l", "", &l_}}; }

  void initialise(std::uint64_t seed, std::string_view path) override {
    if (is_identity_) fill_constant(l_, 1);
    else fill_normal(l_, {seed, std::string(path) + ".ia3_l"}, 1);
  }

  [[nodiscard]] bool acts_before() const override { return is_feedforward_; }
  void before(Out<T> x, double weight) const override {
    if (is_feedforward_) scale(x, T(weight));
  }
  void after(Out<T> y, double weight) const override {
    if (!is_feedforward_) scale(y, T(weight));
  }

  [[nodiscard]] bool wants_gradients() const { return l_.requires_grad(); }
  [[nodiscard]] bool after_wants_result() const { return !is_feedforward_ && l_.requires_grad(); }
  template <class = OnDemand>
  void before_vjp(const FactorGradient<T>& to) const;
  template <class = OnDemand>
  void after_vjp(const FactorGradient<T>& to) const;

  [[nodiscard]] bool is_additive() const override { return false; }
  [[nodiscard]] bool has_update() const override { return false; }
  [[nodiscard]] bool has_factors() const override { return true; }
  [[nodiscard]] bool folds_bias() const override { return !is_feedforward_; }
  void fold_factors(const WeightRows<T>& w, double weight) const override {
    Out<T> rows = w.rows;
    const Index width = rows.cols();
    if (!is_feedforward_) {
      for (Index i = 0; i < rows.rows(); ++i) {
        T* const row = rows.data() + i * rows.outerStride();
        kernels::scale<T>(1, width, factor(w.begin + i, T(weight)), row, width, row, width);
      }
      return;
    }
    // each group of a convolution sees its own channels, each with its kernel's elements together
    const Index in_group = channels_ / groups_, kernel = width / in_group, out_group = out_ / groups_;
    for (Index i = 0; i < rows.rows(); ++i) {
      const Index first = (w.begin + i) / out_group * in_group;
      for (Index c = 0; c < width; ++c) rows(i, c) *= factor(first + c / kernel, T(weight));
    }
  }
  void fold_bias(T* bias, double weight, const BaseWeight<T>&) const override {
    if (is_feedforward_) return;
    for (Index i = 0; i < out_; ++i) bias[i] *= factor(i, T(weight));
  }

 private:
  [[nodiscard]] T factor(Index channel, T weight) const {
    const T l = element_as<T>(l_.dtype(), l_.data(), std::size_t(channel));
    return weight == T(1) ? l : T(1) + weight * (l - T(1));
  }

  /// Rows are (channels · positions): every channel of a convolution has one factor.
  void scale(Out<T> rows, T weight) const {
    const Index n = rows.rows(), stride = rows.outerStride(), positions = rows.cols() / channels_;
    detail::for_each_part<T>(l_, [&](Index begin, Index count, const T* l) {
      T* part = rows.data() + begin * positions;
      if (positions == 1) kernels::scale_columns<T>(n, count, part, stride, l, weight, part, stride);
      else kernels::scale_channels<T>(n, count, positions, part, stride, l, weight, part, stride);
    });
  }

  bool is_feedforward_;
  bool is_identity_;
  Index channels_, out_, groups_;
  ParameterData l_;
};

GRAFT_SHARED_CLASS(Ia3::State<float>)

}  // namespace graft
