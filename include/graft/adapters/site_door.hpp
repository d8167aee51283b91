#pragma once

#include <algorithm>
#include <string>
#include <type_traits>
#include <vector>

#include "../modules/conv_geometry.hpp"
#include "site_forward.hpp"

namespace graft::detail {

/// Takes activations of every kind to a site's four steps and back to the same kind.
template <class L>
struct SiteDoor {
  using T = layer_scalar<L>;
  static constexpr LayerKind kind = traits_of<L>::kind;
  /// Spatial axes of a tensor that comes in, 0 where its type does not say.
  template <class X>
  static constexpr int axes_in = [] {
    if constexpr (kind == LayerKind::conv && requires { tensor_traits<X>::rank; }) return std::max(tensor_traits<X>::rank - 2, 0);
    else return 0;
  }();

  /// Whether rows of so many features go in and out.
  static constexpr bool takes_rows = kind == LayerKind::linear || kind == LayerKind::parameter || kind == LayerKind::norm;

  const L& layer;
  const SiteTable* table;
  ExpertIds experts{};  ///< of the rows, at a stack of weights

  template <class X>
  auto forward(const X& x) const {
    if constexpr (std::same_as<X, Tokens>) return forward_tokens(x);
    else if constexpr (RowsLike<X>) return forward_rows(x);
    else if constexpr (kind == LayerKind::embedding) return forward_ids(x);
    else if constexpr (kind == LayerKind::conv) return forward_conv(x);
    else return forward_linear(x);
  }

  template <class X>
  auto forward_with(const X& x, const Batch& batch) const {
    if constexpr (kind == LayerKind::conv) {
      const ConvTensor<X> tensor(layer, x);
      check_rows(batch, tensor.rows());
      auto y = tensor.make();
      const BatchView view = batch.view();
      SiteForward<L, axes_in<X>>(layer, {table, view}, view).run(tensor.input(), tensor.rows_of_result(y));
      return y;
    } else if constexpr (takes_rows && TensorLike<X> && !MatrixLike<X>) {
      auto y = tensor_traits<X>::make(with_features(tensor_traits<X>::shape(x), out_features(features_last(x).cols())));
      forward_into(x, batch, y);
      return y;
    } else {
      Index in = 0;
      if constexpr (takes_rows) in = x.cols();
      Matrix<T> y(batch.rows(), out_features(in));
      forward_into(x, batch, y);
      return y;
    }
  }

  template <class X, class Y>
  void forward_into(const X& x, const Batch& batch, Y&& y) const {
    with_input(x, batch, [&](const SiteInput<T>& input) {
      with_output(batch, width_of_result(input), y, [&](Out<T> to) {
        const BatchView view = batch.view();
        SiteForward<L, axes_in<X>>(layer, {table, view}, view).run(input, to);
      });
    });
  }

  template <class X, class Y>
  void update(const Batch& batch, const X& x, Y&& y) const {
    with_input(x, batch, [&](const SiteInput<T>& input) {
      if constexpr (kind == LayerKind::parameter) check_experts(experts, stack_of(layer).experts, batch.rows());
      with_output(batch, width_of_result(input), y, [&](Out<T> to) {
        const BatchView view = batch.view();
        SiteForward<L, axes_in<X>>(layer, {table, view}, view).update(input, to);
      });
    });
  }

  /// The shape of a result's rows, for rows of that shape. @throws ShapeError for rows that do not fit
  [[nodiscard]] Shape row_of_result(const Shape& row) const {
    if constexpr (kind == LayerKind::conv) {
      return conv_row_shape(facts_of(layer).conv, row);
    } else {
      check_features(row.size());
      return Shape{out_features(row.size())};
    }
  }

 private:
  [[nodiscard]] bool is_idle() const { return !table || table->is_idle(); }

  template <class X>
  auto forward_linear(const X& x) const {
    if constexpr (TensorLike<X> && !MatrixLike<X>) {
      return forward_features_last(x);
    } else {
      static_assert(MatrixLike<X>,
                    "graft: a linear site takes a row-major matrix, a tensor with features last, graft::Rows or graft::Var");
      static_assert(std::same_as<typename X::Scalar, T>,
                    "graft: this site's activations have another scalar: double for a double weight, else float");
      if constexpr (std::same_as<X, Matrix<T>> && CallableLayer<L, X>)
        if (is_idle()) return Matrix<T>(call_layer(layer, x));
      const MatrixRef<T> held(x);
      Matrix<T> y(held.rows(), out_features(held.cols()));
      run_plain({.rows = in<T>(held), .experts = experts}, held.rows(), out(y));
      return y;
    }
  }

  template <class X>
  auto forward_features_last(const X& x) const {
    static_assert(std::same_as<typename tensor_traits<X>::scalar, T>,
                  "graft: this site's activations have another scalar: double for a double weight, else float");
    const In<T> view = features_last(x);
    const Index features = out_features(view.cols());
    auto y = tensor_traits<X>::make(with_features(tensor_traits<X>::shape(x), features));
    run_plain({.rows = view, .experts = experts}, view.rows(), out<T>(tensor_traits<decltype(y)>::data(y), view.rows(), features));
    return y;
  }

  template <class X>
  auto forward_ids(const X& ids) const {
    static_assert(IdsLike<X>, "graft: an embedding takes token ids: a vector or span of integers, an integer matrix or graft::Tokens");
    return embed<T>(ids, traits_of<L>::embedding_dim(layer),
                    [&](const Ids& all, Out<T> y) { run_plain({.ids = all}, all.size(), y); });
  }

  template <class X>
  auto forward_conv(const X& x) const {
    const ConvTensor<X> tensor(layer, x);
    auto y = tensor.make();
    run_plain<axes_in<X>>(tensor.input(), tensor.rows(), tensor.rows_of_result(y));
    return y;
  }

  Rows<T> forward_tokens(const Tokens& tokens) const {
    static_assert(kind == LayerKind::embedding, "graft: token ids go to an embedding; this site takes activations");
    Rows<T> y(tokens.batch(), tokens.batch().rows(), {traits_of<L>::embedding_dim(layer)});
    const BatchView view = tokens.batch().view();
    SiteForward<L>(layer, {table, view}, view).run({.ids = tokens.ids()}, y.value());
    return y;
  }

  template <class S>
  Rows<T> forward_rows(const Rows<S>& x) const {
    static_assert(kind != LayerKind::embedding, "graft: an embedding takes token ids, not activations");
    static_assert(std::same_as<S, T>, "graft: this site's activations have another scalar: double for a double weight, else float");
    if constexpr (WritesInto<L, In<T>, T> && requires { layer.op(); })  // graft's own, empty: nothing of what a site costs
      if (!table) return custom(layer.op(), x);
    Rows<T> y(x.batch(), x.rows(), row_of_result(x.row_shape()));
    const BatchView view = x.batch().view();
    SiteForward<L>(layer, {table, view}, view).run({.rows = x.value(), .row_shape = x.row_shape(), .experts = experts}, y.value());
    return y;
  }

  template <int Axes = 0>
  void run_plain(const SiteInput<T>& x, Index rows, Out<T> y) const {
    const OneSequence one(rows);
    const BatchView view = one.view();
    if constexpr (takes_rows) check_features(x.rows.cols());
    SiteForward<L, Axes>(layer, {table, view}, view).run(x, y);
  }

  void check_features(Index features) const {
    if constexpr (kind == LayerKind::parameter) {
      if (const WeightStack stack = stack_of(layer); features != stack.in || stack.in + stack.out == 0) refuse_features(stack, features);
    } else if constexpr (kind == LayerKind::linear) {
      const Index want = traits_of<L>::in_features(layer);
      if (features != want)
        fail<ShapeError>("a linear site for " + std::to_string(want) + " features got " + std::to_string(features),
                         "rows are samples, columns are features", "check what feeds it; a single token is a row vector");
    }
  }
  [[noreturn]] static void refuse_features(const WeightStack& stack, Index features) {
    fail<ShapeError>("a weight of shape " + to_string(stack.stored) + " got rows of " + std::to_string(features) + " features",
                     stack.in + stack.out ? "it takes " + std::to_string(stack.in) : "only a matrix, or a stack of them, multiplies rows",
                     "check what feeds it; a weight that stores (in, out) is a graft::TransposedParameter");
  }
  static void check_rows(const Batch& batch, Index rows) {
    if (rows != batch.rows()) row_mismatch("site(x, batch)", rows, batch.rows());
  }

  /// Calls f(input) with a view of whatever the engine passed.
  template <class X, class F>
  void with_input(const X& x, const Batch& batch, F f) const {
    if constexpr (kind == LayerKind::embedding) {
      std::vector<std::int64_t> storage;
      const Ids ids = ids_of(x, storage);
      check_rows(batch, ids.size());
      f(SiteInput<T>{.ids = ids});
    } else if constexpr (kind == LayerKind::conv) {
      const ConvTensor<X> tensor(layer, x);
      check_rows(batch, tensor.rows());
      f(tensor.input());
    } else if constexpr (TensorLike<X> && !MatrixLike<X>) {
      const In<T> rows = features_last(x);
      check_rows(batch, rows.rows());
      check_features(rows.cols());
      f(SiteInput<T>{.rows = rows, .experts = experts});
    } else {
      const MatrixRef<T> held(x);
      check_rows(batch, held.rows());
      check_features(held.cols());
      f(SiteInput<T>{.rows = in<T>(held), .experts = experts});
    }
  }

  /// Of rows with `in` features; a norm takes one head or several.
  [[nodiscard]] Index out_features([[maybe_unused]] Index in) const {
    if constexpr (kind == LayerKind::norm) return in;
    else if constexpr (kind == LayerKind::linear) return traits_of<L>::out_features(layer);
    else if constexpr (kind == LayerKind::parameter) return stack_of(layer).out;
    else return facts_of(layer).out;
  }
  [[nodiscard]] Index width_of_result(const SiteInput<T>& x) const {
    if constexpr (kind == LayerKind::conv) return conv_row_shape(facts_of(layer).conv, x.row_shape).size();
    else return out_features(x.rows.cols());
  }
  static void check_result(const Shape& y, const Shape& want) {
    if (y != want)
      fail<ShapeError>("a result of " + to_string(y) + " for " + to_string(want),
                       "the site writes one row for every row of the batch", "resize y before the call");
  }

  /// Calls f(view of y); a column-major y is filled through a copy.
  template <class Y, class F>
  void with_output(const Batch& batch, Index width, Y&& y, F f) const {
    using Plain = std::remove_cvref_t<Y>;
    const Shape want{batch.rows(), width};
    if constexpr (TensorLike<Plain> && !MatrixLike<Plain>) {
      const Shape shape = tensor_traits<Plain>::shape(y);
      const Index cols = kind == LayerKind::conv || shape.rank() == 0 ? shape.tail().size() : shape.back();
      check_result({cols ? shape.size() / cols : batch.rows(), cols}, want);
      f(out<T>(const_cast<T*>(tensor_traits<Plain>::data(y)), want[0], width));
    } else {
      check_result({y.rows(), y.cols()}, want);
      if constexpr (Plain::IsRowMajor || Plain::IsVectorAtCompileTime) {
        f(out<T>(y.data(), y.rows(), y.cols(), y.outerStride()));
      } else {
        Matrix<T> rows = y;
        f(out(rows));
        y = rows;
      }
    }
  }

  /// A convolution's input (n, channels, spatial…) and result, seen as rows.
  template <class X>
  class ConvTensor {
   public:
    static_assert(TensorLike<X> && !MatrixLike<X>,
                  "graft: a convolution takes an Eigen::Tensor<T, N, Eigen::RowMajor> of (n, channels, spatial…) or graft::Rows");
    using traits = tensor_traits<X>;
    ConvTensor(const L& layer, const X& x) : x_(x), shape_(traits::shape(x)) {
      row_ = conv_row_shape(facts_of(layer).conv, shape_.tail());
    }
    [[nodiscard]] Index rows() const { return shape_[0]; }
    [[nodiscard]] SiteInput<T> input() const {
      return {.rows = in<T>(traits::data(x_), shape_[0], shape_.tail().size()), .row_shape = shape_.tail()};
    }
    [[nodiscard]] auto make() const {
      Shape whole{shape_[0]};
      for (const Index dimension : row_) whole.push_back(dimension);
      return traits::make(whole);
    }
    [[nodiscard]] Out<T> rows_of_result(auto& y) const {
      return out<T>(tensor_traits<std::remove_cvref_t<decltype(y)>>::data(y), shape_[0], row_.size());
    }

   private:
    const X& x_;
    Shape shape_, row_;
  };
};

}  // namespace graft::detail
