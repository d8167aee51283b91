#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "../kernels/elementwise.hpp"
#include "layer_traits.hpp"
#include "linear_product.hpp"
#include "op.hpp"
#include "parallel_product.hpp"
#include "parameters.hpp"

namespace graft {

namespace ops {
/// y = x·Wᵀ + b over plain memory. W (out, in), b (out) or null.
template <class W>
struct Linear {
  const W* weight;
  Index out, in;
  const W* bias = nullptr;
  Trained trained{};
  Index first_row = 0, whole_rows = 0;  // where these are rows of a larger weight, which has the gradient; 0: they are all

  [[nodiscard]] Index cols(const auto& x) const {
    if (x[0].cols() != in)
      fail<ShapeError>("a linear layer for " + std::to_string(in) + " features got " + std::to_string(x[0].cols()),
                       "rows are samples, columns are features",
                       x[0].rows() == in ? "pass x.transpose(); a single token is a row vector" : "check what feeds this layer");
    return out;
  }
  /// From now on those outputs alone.
  void keep_rows(Index begin, Index count) {
    if (whole_rows == 0) whole_rows = out;
    first_row += begin;
    weight += begin * in;
    out = count;
    if (bias) bias += begin;
  }
  template <class T>
  void forward(const BatchView& batch, Out<T> y, std::span<const In<T>> x) const {
    static_assert(std::is_same_v<T, compute_scalar<W>>,
                  "graft: this layer's activations have another scalar: double for a double weight, else float");
    const detail::Widened<T> wide_bias(bias, out, batch.workspace);
    detail::parallel_product<T>(weight, in, x[0], wide_bias.data(), y, batch.workspace);
  }
  [[nodiscard]] bool trainable(const BatchView&) const { return trained.weight || trained.bias; }
  template <class T>
  void vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& y, std::span<const In<T>> x,
           std::span<const Out<T>> dx) const;
};

/// The same by another product than graft's: see linear_product.hpp. Gradients are by graft's.
template <class W, class Product>
struct LinearBy : Linear<W> {
  const Product* product;

  template <class T>
  void forward(const BatchView& batch, Out<T> y, std::span<const In<T>> x) const {
    static_assert(std::is_same_v<T, compute_scalar<W>>,
                  "graft: this layer's activations have another scalar: double for a double weight, else float");
    static_assert(LinearProduct<Product, T, W>,
                  "graft: this product cannot be called with this layer's views, as product(In<T> x, In<W> weight, Out<T> y): "
                  "Eigen's and a BLAS take weights of the activations' scalar only");
    if (y.size() == 0) return;
    if (this->in > 0) (*product)(x[0], graft::in(this->weight, this->out, this->in), y);
    else y.setZero();
    const detail::Widened<T> wide_bias(this->bias, this->out, batch.workspace);
    if (this->bias) kernels::add_scaled<T>(y.rows(), y.cols(), T(1), wide_bias.data(), 0, y.data(), y.outerStride());
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

namespace detail {
/// The numbers of a Parameter or an Eigen matrix or vector, row after row: copied only where they do not lie so.
template <class W>
class InOnePiece {
 public:
  using scalar = typename W::Scalar;
  explicit InOnePiece(const W& values) : ref_(values) {
    if (ref_.rows() > 1 && ref_.outerStride() != ref_.cols()) copy_ = ref_;
  }
  [[nodiscard]] const scalar* data() const { return copy_.size() ? copy_.data() : ref_.data(); }
  [[nodiscard]] Index rows() const { return ref_.rows(); }
  [[nodiscard]] Index cols() const { return ref_.cols(); }
  [[nodiscard]] static bool requires_grad() { return false; }

 private:
  MatrixRef<scalar> ref_;
  Matrix<scalar> copy_;
};
template <class T, class Storage>
class InOnePiece<Parameter<T, Storage>> {
 public:
  using scalar = T;
  explicit InOnePiece(const Parameter<T, Storage>& parameter)
      : view_(parameter.view()), requires_grad_(view_.size() && parameter.requires_grad()) {}
  [[nodiscard]] const T* data() const { return view_.size() ? view_.data() : nullptr; }
  [[nodiscard]] Index rows() const { return view_.rows(); }
  [[nodiscard]] Index cols() const { return view_.cols(); }
  [[nodiscard]] bool requires_grad() const { return requires_grad_; }

 private:
  typename Parameter<T, Storage>::ConstView view_;
  bool requires_grad_;
};

/// What is the product of a linear layer over such a weight, a matrix or a Parameter.
template <class Product, class W>
inline constexpr bool is_product_over = false;
template <class Product, MatrixLike W>
inline constexpr bool is_product_over<Product, W> = LinearProduct<Product, compute_scalar<typename W::Scalar>, typename W::Scalar>;
template <class Product, class T, class Storage>
inline constexpr bool is_product_over<Product, Parameter<T, Storage>> = LinearProduct<Product, compute_scalar<T>, T>;
template <class Product, class W>
concept ProductOver = is_product_over<Product, W>;

/// The op of a linear layer by a product, which it refers to.
template <class W, class Product>
auto linear_op(const ops::Linear<W>& op, const Product& product) {
  if constexpr (std::is_same_v<Product, KernelProduct>) return op;
  else return ops::LinearBy<W, Product>{op, &product};
}
}  // namespace detail

namespace detail {
/// What a recorded product reads again when its caller's operands are gone: matrices are copied, Parameters outlive the tape.
template <class W>
struct KeptOperand {
  using scalar = typename W::Scalar;
  Matrix<scalar> values;
  explicit KeptOperand(const W& original) : values(original) {}
  [[nodiscard]] const scalar* data() const { return values.data(); }
  [[nodiscard]] Index rows() const { return values.rows(); }
  [[nodiscard]] Index cols() const { return values.cols(); }
  [[nodiscard]] static bool requires_grad() { return false; }
};
template <class T, class Storage>
struct KeptOperand<Parameter<T, Storage>> : InOnePiece<Parameter<T, Storage>> {
  using InOnePiece<Parameter<T, Storage>>::InOnePiece;
};
template <class W, class B, class Product>
struct KeptOperands {
  KeptOperand<W> weight;
  KeptOperand<B> bias;
  Product product;
};
/// An op with what it refers to.
template <class Op, class Kept>
struct Keeping : Op {
  std::shared_ptr<const Kept> kept;
};

inline void check_bias(Index count, Index out) {
  if (count != out)
    fail<ShapeError>("a bias of " + std::to_string(count) + " numbers for " + std::to_string(out) + " outputs",
                     "it is added to every row of the result", "pass one number per row of the weight");
}
/// `linear` of a value that is recorded. An empty bias is none.
template <class W, class B, class Product>
auto record_linear(const auto& x, const W& weight, const B& bias, const Product& product) {
  const auto op_of = [](const auto& w, const auto& b, const Product& by) {
    const Index count = b.rows() * b.cols();
    if (count) check_bias(count, w.rows());
    return linear_op(ops::Linear<typename InOnePiece<W>::scalar>{w.data(), w.rows(), w.cols(), count ? b.data() : nullptr,
                                                                 {w.requires_grad(), b.requires_grad()}}, by);
  };
  if constexpr (is_parameter<W> && is_parameter<B> && std::is_same_v<Product, KernelProduct>) {
    return custom_linear(op_of(InOnePiece<W>(weight), InOnePiece<B>(bias), product), x);
  } else {
    using Kept = KeptOperands<W, B, Product>;
    const auto kept = std::make_shared<const Kept>(Kept{KeptOperand<W>(weight), KeptOperand<B>(bias), product});
    const auto op = op_of(kept->weight, kept->bias, kept->product);
    return custom_linear(Keeping<std::remove_const_t<decltype(op)>, Kept>{op, kept}, x);
  }
}
}  // namespace detail

/// x·Wᵀ for a Parameter or a matrix (out, in): a head that is tied to an embedding, for instance. In training a Parameter that
/// requires a gradient gets one; a matrix is a constant.
template <class W>
  requires MatrixLike<W> || detail::is_parameter<W>
auto linear(const auto& x, const W& weight) {
  return linear(x, weight, KernelProduct());
}
/// The same by another product than graft's: EigenProduct(), or a callable of the host's (linear_product.hpp).
template <class W, detail::ProductOver<W> Product>
auto linear(const auto& x, const W& weight, const Product& product) {
  using T = typename detail::InOnePiece<W>::scalar;
  if constexpr (Recorded<decltype(x)>) {
    return detail::record_linear(x, weight, Parameter<T>(), product);
  } else {
    const detail::InOnePiece<W> w(weight);
    return detail::custom_linear(detail::linear_op(ops::Linear<T>{w.data(), w.rows(), w.cols()}, product), x);
  }
}
/// x·Wᵀ + b. @throws ShapeError unless b has `out` numbers, or is an empty Parameter.
template <class W, class B, class Product = KernelProduct>
  requires(MatrixLike<W> || detail::is_parameter<W>) && (MatrixLike<B> || detail::is_parameter<B>)
auto linear(const auto& x, const W& weight, const B& bias, const Product& product = {}) {
  using T = typename detail::InOnePiece<W>::scalar;
  static_assert(std::is_same_v<T, typename detail::InOnePiece<B>::scalar>, "graft: weight and bias have one scalar");
  if constexpr (MatrixLike<B>) static_assert(B::IsVectorAtCompileTime, "graft: a bias is a vector");
  if constexpr (Recorded<decltype(x)>) {
    return detail::record_linear(x, weight, bias, product);
  } else {
    const detail::InOnePiece<W> w(weight);
    const auto with_bias = [&](const T* numbers, Index count) {
      if (numbers) detail::check_bias(count, w.rows());
      return detail::custom_linear(detail::linear_op(ops::Linear<T>{w.data(), w.rows(), w.cols(), numbers}, product), x);
    };
    if constexpr (!MatrixLike<B>) {
      const detail::InOnePiece<B> b(bias);
      return with_bias(b.data(), b.rows() * b.cols());
    } else if constexpr (B::ColsAtCompileTime == 1 && B::RowsAtCompileTime != 1) {
      // a column seen as a row: both lie alike, and only a row binds without a copy
      const Eigen::Ref<const Eigen::Matrix<T, Eigen::Dynamic, 1>> held(bias);
      return with_bias(held.data(), held.size());
    } else {
      const Eigen::Ref<const Eigen::Matrix<T, 1, Eigen::Dynamic>> held(bias);
      return with_bias(held.data(), held.size());
    }
  }
}

/// A linear layer y = x·Wᵀ + b: torch's nn.Linear. weight (out, in), bias (out) or empty.
/// The weight may be narrow (bf16, f16): activations are then float.
///
/// `Product` computes x·Wᵀ: graft's kernels, or `EigenProduct`, `BlasProduct` (graft/blas.hpp), or the host's own callable
/// (linear_product.hpp). Adapters stand over each of them alike.
template <class T = float, class Storage = dense, class Product = KernelProduct>
struct Linear {
  Parameter<T, Storage> weight, bias;
  [[no_unique_address]] Product product;

  Linear(Index in, Index out, bool has_bias = true, Product by = Product())
      : weight(Shape{out, in}), bias(Shape{has_bias ? out : 0}), product(std::move(by)) {}

  /// x (n, in), or N-d with features last → (n, out) of the same kind.
  auto operator()(const auto& x) const { return detail::custom_linear(op(), x); }
  [[nodiscard]] auto op() const {
    return detail::linear_op(ops::Linear<T>{weight.view().data(), weight.rows(), weight.cols(), detail::bias_data(bias),
                                            {weight.requires_grad(), detail::trains_bias(bias)}},
                             product);
  }
  GRAFT_MODULE(weight, bias)
};

template <class T, class Storage, class Product>
struct layer_traits<Linear<T, Storage, Product>> {
  using Layer = Linear<T, Storage, Product>;
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
    detail::run_op<compute_scalar<T>>(layer.op(), x, y, workspace);
  }
  /// y (n, count) from the rows [begin, begin + count) of the weight.
  static void forward_rows_into(const Layer& layer, Index begin, const In<compute_scalar<T>>& x, Out<compute_scalar<T>> y,
                                Workspace* workspace) {
    auto op = layer.op();
    op.keep_rows(begin, y.cols());
    detail::run_op<compute_scalar<T>>(op, x, y, workspace);
  }
};

}  // namespace graft
