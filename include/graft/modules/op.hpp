#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <span>
#include <tuple>
#include <type_traits>

#include "../tensor/rows.hpp"

namespace graft {

class Gradients;

/// Whether a value is recorded for a backward pass: `Var` and `RecordedTokens` of graft/train.hpp. What takes values of other
/// kinds apart lets them pass to a function that is found by its arguments.
template <class X>
inline constexpr bool is_recorded = false;
template <class X>
concept Recorded = is_recorded<std::remove_cvref_t<X>>;

/// Which parameters of a layer want gradients.
struct Trained {
  bool weight = false, bias = false;
};

// The op protocol. An op is a struct that computes on views; `custom` lifts it to matrices, tensors and Rows:
//
//   void forward(const BatchView&, Out<T> y, std::span<const In<T>> x) const;   // for every T it supports
//   Index cols(std::span<const In<T>> x) const;            // width of the result …
//   Shape shape(std::span<const Shape> x) const;           // … or the shape of its rows, (channels, spatial…)
//   static constexpr Index tail = 1;                       // optional: one result row per sequence
//   void vjp(const BatchView&, Gradients&, In<T> dy, In<T> y, std::span<const In<T>> x, std::span<const Out<T>> dx) const;
//   bool trainable(const BatchView&) const;                // optional: owns parameters that want gradients
//
// forward may read positions and caches from the batch, and take scratch from its workspace. Row i of the
// result belongs to row i of the input unless `tail` says otherwise.
//
// vjp is what training needs and nothing else: it adds to dx[i] the gradient by x[i], given that by the result, dy; where
// dx[i].data() is null, nobody wants it. What it needs may be defined in a header of its own: a program that does not train
// never calls it. y may be read where forward wrote it.

namespace detail {
/// Rows that a result keeps of every sequence; 0: all.
template <class Op>
inline constexpr Index tail_of = [] {
  if constexpr (requires { Op::tail; }) return Index(Op::tail);
  else return Index(0);
}();

template <class T, class Op, std::size_t Count>
Shape result_shape(const Op& op, const std::array<In<T>, Count>& x, const std::array<Shape, Count>& shapes) {
  if constexpr (requires { op.shape(std::span<const Shape>(shapes)); }) return op.shape(std::span<const Shape>(shapes));
  else return Shape{op.cols(std::span<const In<T>>(x))};
}

template <class X>
struct scalar_of_activation;
template <class X>
  requires(MatrixLike<X>)
struct scalar_of_activation<X> {
  using type = typename X::Scalar;
};
template <class X>
  requires(TensorLike<X> && !MatrixLike<X>)
struct scalar_of_activation<X> {
  using type = typename tensor_traits<X>::scalar;
};
template <class T>
struct scalar_of_activation<Rows<T>> {
  using type = T;
};

[[noreturn]] inline void batch_mismatch() {
  fail<ShapeError>("the operands of an op come from different batches",
                   "rows are routed by their place in one batch",
                   "let both descend from one input, through the same last() or mean_pool()");
}
}  // namespace detail

/// The scalar of a matrix, tensor or Rows.
template <class X>
using activation_scalar = typename detail::scalar_of_activation<std::remove_cvref_t<X>>::type;

/// Lifts an op to matrices: one sequence from position 0 with the active adapters.
template <class Op, MatrixLike X0, MatrixLike... X>
  requires(std::same_as<typename X0::Scalar, typename X::Scalar> && ...)
Matrix<typename X0::Scalar> custom(const Op& op, const X0& x0, const X&... x) {
  using T = typename X0::Scalar;
  const std::tuple<MatrixRef<T>, std::conditional_t<true, MatrixRef<T>, X>...> held(x0, x...);
  return std::apply(
      [&](const auto&... ref) {
        const std::array<In<T>, sizeof...(X) + 1> views{graft::in<T>(ref.data(), ref.rows(), ref.cols(), ref.outerStride())...};
        const std::array<Shape, sizeof...(X) + 1> shapes{Shape{ref.cols()}...};
        for (const In<T>& view : views)
          if (view.rows() != views[0].rows()) detail::row_mismatch("a graft op", view.rows(), views[0].rows());
        const detail::OneSequence one(views[0].rows());
        const Index rows = detail::tail_of<Op> ? std::min(detail::tail_of<Op>, views[0].rows()) : views[0].rows();
        Matrix<T> y(rows, detail::result_shape<T>(op, views, shapes).size());
        op.forward(one.view(), graft::out(y), std::span<const In<T>>(views));
        return y;
      },
      held);
}

namespace detail {
/// A tensor as rows: its first dimension, times the rest.
template <TensorLike X>
[[nodiscard]] auto tensor_rows(const X& tensor) {
  const Shape shape = tensor_traits<X>::shape(tensor);
  return graft::in<typename tensor_traits<X>::scalar>(tensor_traits<X>::data(tensor), shape[0], shape.tail().size());
}
}  // namespace detail

namespace detail {
/// An op of one input from views into views, outside of any batch: what a layer's traits write. @throws what `op.cols` does.
template <class T, class Op>
void run_op(const Op& op, const In<T>& x, Out<T> y, Workspace* workspace) {
  (void)op.cols(std::span(&x, 1));
  op.template forward<T>(BatchView{{}, {}, {}, workspace}, y, std::span(&x, 1));
}
}  // namespace detail

/// Lifts an op to tensors whose first dimension is rows: elementwise ops, pooling, flatten. The result is of the first
/// operand's kind; the others may be other tensors of the same scalar, a TensorMap beside a Tensor.
template <class Op, TensorLike X0, TensorLike... X>
  requires(std::same_as<activation_scalar<X0>, activation_scalar<X>> && ...)
auto custom(const Op& op, const X0& x0, const X&... x) {
  using traits = tensor_traits<X0>;
  using T = typename traits::scalar;
  static_assert(detail::tail_of<Op> == 0, "graft: this op works on sequences: give it a matrix or graft::Rows");
  const std::array<In<T>, sizeof...(X) + 1> views{detail::tensor_rows(x0), detail::tensor_rows(x)...};
  const std::array<Shape, sizeof...(X) + 1> shapes{traits::shape(x0).tail(), tensor_traits<X>::shape(x).tail()...};
  for (const In<T>& other : views)
    if (other.rows() != views[0].rows()) detail::row_mismatch("a graft op", other.rows(), views[0].rows());
  const Shape row = detail::result_shape<T>(op, views, shapes);
  Shape whole{views[0].rows()};
  for (Index dimension : row) whole.push_back(dimension);
  auto y = [&] {
    if constexpr (requires { Op::flattens; }) return traits::template make_other<2, T>(whole);
    else return traits::make(whole);
  }();
  const detail::OneSequence one(views[0].rows());
  op.forward(one.view(), graft::out<T>(tensor_traits<decltype(y)>::data(y), whole[0], row.size()), std::span<const In<T>>(views));
  return y;
}

/// Lifts an op to Rows: the result lives in the workspace of their batch.
template <class Op, class T, std::same_as<Rows<T>>... X>
Rows<T> custom(const Op& op, const Rows<T>& x0, const X&... x) {
  const std::array<In<T>, sizeof...(X) + 1> views{x0.value(), x.value()...};
  const std::array<Shape, sizeof...(X) + 1> shapes{x0.row_shape(), x.row_shape()...};
  const Batch& batch = x0.batch();
  for (const Batch* other : {&batch, &x.batch()...})
    if (other != &batch) detail::batch_mismatch();
  const Batch& to = detail::tail_of<Op> ? batch.tail(detail::tail_of<Op>) : batch;
  Rows<T> y(to, to.rows(), detail::result_shape<T>(op, views, shapes));
  op.forward(batch.view(), y.value(), std::span<const In<T>>(views));
  return y;
}

/// Chosen only when nothing else fits, so that the remedy is the first error.
template <class Op, class... X>
auto custom(const Op&, const X&...) {
  static_assert(sizeof...(X) == 0,
                "graft: the operands of an op must be of one kind and scalar: all matrices, all tensors, all graft::Rows or "
                "all graft::Var. A constant matrix joins Rows with x.with(matrix); ids go to an embedding only");
  return 0;
}

}  // namespace graft
