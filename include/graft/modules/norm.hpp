#pragma once

#include <span>
#include <string>
#include <type_traits>

#include "../kernels/normalise.hpp"
#include "../tensor/init.hpp"
#include "linear.hpp"

namespace graft {

namespace ops {
/// Normalises groups of `features` columns: with head_dim features, every head by itself. `bias` may be null.
template <class W, bool Centred>
struct Normalise {
  const W* weight;
  const W* bias;
  Index features;
  double eps;
  Trained trained{};

  [[nodiscard]] Index cols(const auto& x) const {
    if (features == 0 || x[0].cols() % features != 0)
      fail<ShapeError>("a norm of " + std::to_string(features) + " features got " + std::to_string(x[0].cols()),
                       "it normalises whole rows, or whole heads of them", "check what feeds this layer");
    return x[0].cols();
  }
  template <class T>
  void forward(const BatchView&, Out<T> y, std::span<const In<T>> x) const {
    static_assert(std::is_same_v<T, compute_scalar<W>>,
                  "graft: this layer's activations have another scalar: double for a double weight, else float");
    for (Index c = 0; c < y.cols(); c += features) {
      if constexpr (Centred)
        kernels::layer_norm<T, W>(y.rows(), features, x[0].data() + c, x[0].outerStride(), weight, bias, eps, y.data() + c, y.outerStride());
      else
        kernels::rms_norm<T, W>(y.rows(), features, x[0].data() + c, x[0].outerStride(), weight, eps, y.data() + c, y.outerStride());
    }
  }
  [[nodiscard]] bool trainable(const BatchView&) const { return trained.weight || trained.bias; }
  template <class T>
  void vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& y, std::span<const In<T>> x,
           std::span<const Out<T>> dx) const;
};
}  // namespace ops

/// Root-mean-square norm, x / √(mean(x²) + eps) ∘ weight: torch's nn.RMSNorm, transformers' LlamaRMSNorm. weight (n), ones.
template <class T = float, class Storage = dense>
struct RMSNorm {
  Parameter<T, Storage> weight;
  double eps;

  explicit RMSNorm(Index n, double epsilon = 1e-6) : weight(Shape{n}), eps(epsilon) {
    if constexpr (std::is_same_v<Storage, dense>) fill_constant(weight.untyped(), 1);
  }
  /// Rows of n features, or of heads of n features each.
  auto operator()(const auto& x) const { return detail::custom_linear(op(), x); }
  [[nodiscard]] auto op() const {
    return ops::Normalise<T, false>{weight.view().data(), nullptr, weight.size(), eps, {weight.requires_grad(), false}};
  }
  GRAFT_MODULE(weight)
};

/// Layer norm over the last dimension, (x − mean) / √(var + eps) ∘ weight + bias: torch's nn.LayerNorm.
template <class T = float, class Storage = dense>
struct LayerNorm {
  Parameter<T, Storage> weight, bias;
  double eps;

  explicit LayerNorm(Index n, double epsilon = 1e-5, bool has_bias = true)
      : weight(Shape{n}), bias(Shape{has_bias ? n : 0}), eps(epsilon) {
    if constexpr (std::is_same_v<Storage, dense>) fill_constant(weight.untyped(), 1);
  }
  auto operator()(const auto& x) const { return detail::custom_linear(op(), x); }
  [[nodiscard]] auto op() const {
    return ops::Normalise<T, true>{weight.view().data(), detail::bias_data(bias), weight.size(), eps,
                                   {weight.requires_grad(), detail::trains_bias(bias)}};
  }
  GRAFT_MODULE(weight, bias)
};

namespace detail {
/// What is the same of both norms: copies of them are saved whole.
template <class Norm, class T>
struct NormTraits {
  using scalar = T;
  static constexpr LayerKind kind = LayerKind::norm;
  static Index features(const Norm& norm) { return norm.weight.size(); }
  static void forward_into(const Norm& norm, const In<compute_scalar<T>>& x, Out<compute_scalar<T>> y, Workspace* workspace) {
    run_op<compute_scalar<T>>(norm.op(), x, y, workspace);
  }
};
}  // namespace detail
template <class T, class Storage>
struct layer_traits<RMSNorm<T, Storage>> : detail::NormTraits<RMSNorm<T, Storage>, T> {};
template <class T, class Storage>
struct layer_traits<LayerNorm<T, Storage>> : detail::NormTraits<LayerNorm<T, Storage>, T> {
  static bool has_bias(const LayerNorm<T, Storage>& norm) { return norm.bias.size() != 0; }
  static auto bias(auto& norm) { return norm.bias.view().row(0); }
  static auto& bias_parameter(auto& norm) { return norm.bias; }
};

}  // namespace graft
