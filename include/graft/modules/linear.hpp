#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

#include "../kernels/products.hpp"
#include "layer_traits.hpp"
#include "op.hpp"
#include "parameters.hpp"

namespace graft {

namespace ops {
/// y = x·Wᵀ + b over plain memory. W (out, in), b (out) or null.
template <class W>
struct Linear {
  const W* weight;
  Index out, in;
  const W* bias = nullptr;

  [[nodiscard]] Index cols(const auto& x) const {
    if (x[0].cols() != in)
      fail<ShapeError>("a linear layer for " + std::to_string(in) + " features got " + std::to_string(x[0].cols()),
                       "rows are samples, columns are features",
                       x[0].rows() == in ? "pass x.transpose(); a single token is a row vector" : "check what feeds this layer");
    return out;
  }
  template <class T>
  void forward(const BatchView& batch, Out<T> y, std::span<const In<T>> x) const {
    static_assert(std::is_same_v<T, compute_scalar<W>>,
                  "graft: this layer's activations have another scalar: double for a double weight, else float");
    const detail::Widened<T> wide_bias(bias, out, batch.workspace);
    const Index ldx = x[0].outerStride();
    const Scratch<T> scratch(batch.workspace, kernels::product_nt_scratch<T, W>(x[0].rows(), in, ldx, in));
    kernels::product_nt<T, W>(x[0].rows(), out, in, x[0].data(), ldx, weight, in, wide_bias.data(), y.data(),
                              y.outerStride(), false, scratch.data());
  }
};
}  // namespace ops

namespace detail {
/// Collapses an N-d activation, features last, to rows; the result has the same leading dimensions.
template <class Op, TensorLike X>
auto custom_features_last(const Op& op, const X& x) {
  using traits = tensor_traits<X>;
  using T = typename traits::scalar;
  const std::array<In<T>, 1> view{features_last(x)};
  const Index features = op.cols(std::span<const In<T>>(view));
  auto y = traits::make(with_features(traits::shape(x), features));
  const OneSequence one(view[0].rows());
  op.forward(one.view(), graft::out<T>(tensor_traits<decltype(y)>::data(y), view[0].rows(), features),
             std::span<const In<T>>(view));
  return y;
}
template <class Op, class X>
auto custom_linear(const Op& op, const X& x) {
  if constexpr (TensorLike<X> && !MatrixLike<X>) return custom_features_last(op, x);
  else return custom(op, x);
}
}  // namespace detail

/// x·Wᵀ for a Parameter or a matrix (out, in): a head that is tied to an embedding, for instance.
template <class T, class Storage>
auto linear(const auto& x, const Parameter<T, Storage>& weight) {
  return detail::custom_linear(ops::Linear<T>{weight.view().data(), weight.rows(), weight.cols()}, x);
}
/// x·Wᵀ + b.
template <class T, class Storage>
auto linear(const auto& x, const Parameter<T, Storage>& weight, const Parameter<T, Storage>& bias) {
  return detail::custom_linear(ops::Linear<T>{weight.view().data(), weight.rows(), weight.cols(), detail::bias_data(bias)}, x);
}
template <MatrixLike W>
auto linear(const auto& x, const W& weight) {
  using T = typename W::Scalar;
  const Eigen::Ref<const Matrix<T>> held(weight);
  const Matrix<T> copy = held.outerStride() == held.cols() ? Matrix<T>() : Matrix<T>(held);
  return detail::custom_linear(ops::Linear<T>{copy.size() ? copy.data() : held.data(), held.rows(), held.cols()}, x);
}
template <MatrixLike W, MatrixLike B>
auto linear(const auto& x, const W& weight, const B& bias) {
  using T = typename W::Scalar;
  const Matrix<T> held(weight);
  const Eigen::Matrix<T, Eigen::Dynamic, 1> held_bias(bias);
  return detail::custom_linear(ops::Linear<T>{held.data(), held.rows(), held.cols(), held_bias.data()}, x);
}

/// A linear layer y = x·Wᵀ + b: torch's nn.Linear. weight (out, in), bias (out) or empty.
/// The weight may be narrow (bf16, f16): activations are then float.
template <class T = float, class Storage = dense>
struct Linear {
  Parameter<T, Storage> weight, bias;

  Linear(Index in, Index out, bool has_bias = true) : weight(Shape{out, in}), bias(Shape{has_bias ? out : 0}) {}

  /// x (n, in), or N-d with features last → (n, out) of the same kind.
  auto operator()(const auto& x) const { return detail::custom_linear(op(), x); }
  [[nodiscard]] ops::Linear<T> op() const {
    return {weight.view().data(), weight.rows(), weight.cols(), detail::bias_data(bias)};
  }
  GRAFT_MODULE(weight, bias)
};

template <class T, class Storage>
struct layer_traits<Linear<T, Storage>> {
  using Layer = Linear<T, Storage>;
  using scalar = T;
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const Layer& layer) { return layer.weight.cols(); }
  static Index out_features(const Layer& layer) { return layer.weight.rows(); }
  static bool has_bias(const Layer& layer) { return layer.bias.size() != 0; }
  static auto weight(auto& layer) { return layer.weight.view(); }
  static std::uint64_t weight_version(const Layer& layer) { return layer.weight.version(); }
  static auto bias(auto& layer) { return layer.bias.view().row(0); }
  static auto& bias_parameter(auto& layer) { return layer.bias; }
  static void forward_into(const Layer& layer, const In<compute_scalar<T>>& x, Out<compute_scalar<T>> y, Workspace* workspace) {
    const auto op = layer.op();
    (void)op.cols(std::span(&x, 1));
    op.template forward<compute_scalar<T>>(BatchView{{}, {}, {}, workspace}, y, std::span(&x, 1));
  }
};

}  // namespace graft
