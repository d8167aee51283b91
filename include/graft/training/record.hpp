#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <span>
#include <utility>

#include "var.hpp"

namespace graft {

namespace detail {
/// Calls f with the view of a batch; without one of a single sequence with the active adapters.
template <class F>
decltype(auto) with_view(const Batch* batch, Index rows, Tape& tape, F f) {
  if (batch) {
    if (batch->rows() != rows)
      fail<TrainingError>("a batch of " + std::to_string(batch->rows()) + " rows, which had " + std::to_string(rows) + " when they were recorded",
                          "a tape goes back through the batches that it went forward with",
                          "clear or fill a batch after backward(), or use another one");
    return f(batch->view());
  }
  const OneSequence one(rows);
  BatchView view = one.view();
  view.workspace = &tape.workspace();
  return f(view);
}

template <class Op, class T>
concept OpWithVjp = requires(const Op& op, const BatchView& batch, Gradients& gradients, const In<T>& seen, std::span<const In<T>> x,
                          std::span<const Out<T>> dx) { op.template vjp<T>(batch, gradients, seen, seen, x, dx); } ||
                 requires(const Op& op, const BatchView& batch, Gradients& gradients, const In<T>& seen, std::span<const In<T>> x,
                          std::span<const Out<T>> dx) { op.vjp(batch, gradients, seen, seen, x, dx); };

template <class Op, class T>
inline constexpr bool has_vjp = OpWithVjp<Op, T>;  // as a bool: an error then does not list what the concept asks for

/// One op of the protocol, and the values that it was called with.
template <class T, class Op, std::size_t Count>
class OpStep final : public RecordedStep {
 public:
  OpStep(const Op& op, const std::array<RecordedValue<T>*, Count>& x, RecordedValue<T>& y) : op_(op), x_(x), y_(&y) {}

  void backward(Tape& tape) override {
    if (!y_->grad) return;
    with_view(x_[0]->batch, x_[0]->rows, tape, [&](const BatchView& view) {
      [&]<std::size_t... I>(std::index_sequence<I...>) {
        const std::array<In<T>, Count> x{std::as_const(*x_[I]).in()...};
        const std::array<Out<T>, Count> dx{tape.grad_of(*x_[I])...};
        op_.vjp(view, tape.gradients(), y_->grad_in(), std::as_const(*y_).in(), std::span<const In<T>>(x), std::span<const Out<T>>(dx));
      }(std::make_index_sequence<Count>{});
    });
    tape.release(*y_);
  }

 private:
  Op op_;
  std::array<RecordedValue<T>*, Count> x_;
  RecordedValue<T>* y_;
};

/// An op of one input that is told the shape of its rows.
template <class T, class Op>
class ShapedStep final : public RecordedStep {
 public:
  ShapedStep(const Op& op, RecordedValue<T>& x, RecordedValue<T>& y) : op_(op), x_(&x), y_(&y) {}

  void backward(Tape& tape) override {
    if (!y_->grad) return;
    with_view(x_->batch, x_->rows, tape, [&](const BatchView& view) {
      op_.template vjp<T>(view, tape.gradients(), y_->grad_in(), std::as_const(*x_).in(), x_->row_shape, tape.grad_of(*x_));
    });
    tape.release(*y_);
  }

 private:
  Op op_;
  RecordedValue<T>*x_, *y_;
};

template <class Op>
[[nodiscard]] bool is_trainable(const Op& op, const BatchView& view) {
  if constexpr (requires { op.trainable(view); }) return op.trainable(view);
  else return false;
}
}  // namespace detail

/// Lifts an op to recorded values: as to Rows, and backwards by its vjp.
template <class Op, class T, std::same_as<Var<T>>... X>
Var<T> custom(const Op& op, const Var<T>& x0, const X&... x) {
  static_assert(detail::has_vjp<Op, T>,
                "graft: this op has no vjp(batch, gradients, dy, y, x, dx): it can infer, but nothing is trained through it");
  constexpr std::size_t count = sizeof...(X) + 1;
  if constexpr (detail::has_vjp<Op, T>) {
    const std::array<detail::RecordedValue<T>*, count> nodes{&x0.node(), &x.node()...};
    Tape& tape = x0.tape();
    bool needs_grad = false;
    for (const detail::RecordedValue<T>* node : nodes) {
      if (node->batch != x0.batch() || node->tape != &tape) detail::batch_mismatch();
      if (node->rows != x0.rows()) detail::row_mismatch("a graft op", node->rows, x0.rows());
      needs_grad |= node->needs_grad;
    }
    const std::array<In<T>, count> views{x0.value(), x.value()...};
    const std::array<Shape, count> shapes{x0.row_shape(), x.row_shape()...};
    const Batch* const to = detail::tail_of<Op> && x0.batch() ? &x0.batch()->tail(detail::tail_of<Op>) : x0.batch();
    const Index rows = to ? to->rows() : detail::tail_of<Op> ? std::min(detail::tail_of<Op>, x0.rows()) : x0.rows();
    return detail::with_view(x0.batch(), x0.rows(), tape, [&](const BatchView& view) {
      if constexpr (requires { op.check_recorded(view); }) op.check_recorded(view);
      const Shape shape = detail::result_shape<T>(op, views, shapes);
      auto& y = tape.make_value<T>(to, rows, shape, needs_grad || detail::is_trainable(op, view));
      op.forward(view, y.out(), std::span<const In<T>>(views));
      if (y.needs_grad) tape.record<detail::OpStep<T, Op, count>>(op, nodes, y);
      return Var<T>(y);
    });
  } else {
    return x0;
  }
}

/// The same for an op of one input that is told the shape of its rows: a convolution, a pooling.
template <class Op, class T>
Var<T> record_shaped(const Op& op, const Var<T>& x) {
  return detail::with_view(x.batch(), x.rows(), x.tape(), [&](const BatchView& view) {
    const Shape row = op.shape(std::span<const Shape>(&x.row_shape(), 1));
    auto& y = x.tape().template make_value<T>(x.batch(), x.rows(), row, x.needs_grad() || detail::is_trainable(op, view));
    op.template run<T>(x.value(), x.row_shape(), y.out(), view.workspace);
    if (y.needs_grad) x.tape().template record<detail::ShapedStep<T, Op>>(op, x.node(), y);
    return Var<T>(y);
  });
}

}  // namespace graft
