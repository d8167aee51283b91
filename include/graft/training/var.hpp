#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "../modules/op.hpp"
#include "tape.hpp"

namespace graft {

/// A recorded value: rows of features, or of (channels, spatial…), as in `Rows`, and the way back to what it was made of.
///
/// It is a handle, valid until its tape is cleared. Ops and sites take it as they take `Rows`.
template <class T = float>
class Var {
 public:
  using scalar = T;

  explicit Var(detail::RecordedValue<T>& node) : node_(&node) {}

  [[nodiscard]] Index rows() const { return node_->rows; }
  [[nodiscard]] Index cols() const { return node_->row_shape.size(); }
  /// (features), or (channels, spatial…) where a tensor entered.
  [[nodiscard]] const Shape& row_shape() const { return node_->row_shape; }
  [[nodiscard]] In<T> value() const { return static_cast<const detail::RecordedValue<T>*>(node_)->in(); }
  /// Whether anything that it depends on wants gradients: else nothing was recorded.
  [[nodiscard]] bool needs_grad() const { return node_->needs_grad; }
  /// Lets `grad()` answer after a backward, as an input with `requires_grad` does.
  void retain_grad() const { node_->keeps_grad = node_->needs_grad; }
  /// The gradient by this value, (n, features). @throws TrainingError unless it was kept and there is one.
  [[nodiscard]] In<T> grad() const {
    const std::byte* grad = node_->kept ? node_->kept : node_->grad;
    if (!grad)
      fail<TrainingError>("a recorded value has no gradient",
                          node_->keeps_grad ? "no backward() has reached it" : "gradients of values are given up on the way back",
                          "call retain_grad() before backward(); for an input say input(x, true)");
    return in<T>(reinterpret_cast<const T*>(grad), rows(), cols());
  }
  /// Null: one sequence, the active adapters.
  [[nodiscard]] const Batch* batch() const { return node_->batch; }
  [[nodiscard]] Tape& tape() const { return *node_->tape; }
  [[nodiscard]] detail::RecordedValue<T>& node() const { return *node_; }

 private:
  detail::RecordedValue<T>* node_;
};
template <class T>
inline constexpr bool is_recorded<Var<T>> = true;
template <class T>
[[nodiscard]] inline Var<T> eval(const Var<T>& x) {
  return x;
}

/// Whether a model, called with recorded values of that kind, answers recorded ones. An op without a vjp on the way is an error
/// of the compiler and no answer.
template <class M, class X = Var<>>
concept Trainable = requires(const M& model, const X& x) {
  { model(x) } -> Recorded;
};

/// Token ids on a tape: the input of an embedding.
class RecordedTokens {
 public:
  RecordedTokens(const Ids& ids, const Batch* batch, Tape& tape) : ids_(ids), batch_(batch), tape_(&tape) {}

  [[nodiscard]] Ids ids() const { return ids_; }
  /// Null: one sequence, the active adapters.
  [[nodiscard]] const Batch* batch() const { return batch_; }
  [[nodiscard]] Tape& tape() const { return *tape_; }

 private:
  Ids ids_;
  const Batch* batch_;
  Tape* tape_;
};
template <>
inline constexpr bool is_recorded<RecordedTokens> = true;

namespace detail {
template <class = OnDemand>
RecordedTokens record_ids(const Ids& ids, const Batch* batch, Tape& tape) {
  std::int64_t* copy = tape.take<std::int64_t>(ids.size());
  for (Index i = 0; i < ids.size(); ++i) copy[i] = ids[i];
  return {Ids(std::span<const std::int64_t>(copy, std::size_t(ids.size()))), batch, tape};
}
}  // namespace detail

inline RecordedTokens Tape::input(const Tokens& tokens) { return detail::record_ids(tokens.ids(), &tokens.batch(), *this); }
inline RecordedTokens Tape::input(const IdsLike auto& ids) {
  std::vector<std::int64_t> storage;
  return detail::record_ids(ids_of(ids, storage), nullptr, *this);
}

template <class X>
  requires(RowsLike<X> || ((MatrixLike<X> || TensorLike<X>) && !IdsLike<X>))
inline auto Tape::input(const X& x, bool requires_grad) {
  const auto copy = [&]<class T>(const In<T>& rows, const Batch* batch, const Shape& row_shape) {
    detail::RecordedValue<T>& node = make_value<T>(batch, rows.rows(), row_shape, requires_grad);
    node.keeps_grad = requires_grad;
    copy_rows(rows, node.out());
    return Var<T>(node);
  };
  if constexpr (RowsLike<X>) {
    return copy(x.value(), &x.batch(), x.row_shape());
  } else if constexpr (MatrixLike<X>) {
    const MatrixRef<typename X::Scalar> held(x);
    return copy(in<typename X::Scalar>(held), nullptr, Shape{held.cols()});
  } else {
    return copy(detail::tensor_rows(x), nullptr, tensor_traits<X>::shape(x).tail());
  }
}

template <class T>
inline void Tape::backward(const Var<T>& y, const std::type_identity_t<MatrixRef<T>>& dy) {
  if (dy.rows() != y.rows() || dy.cols() != y.cols())
    fail<ShapeError>("a gradient of " + to_string(Shape{dy.rows(), dy.cols()}) + " for a value of " + to_string(Shape{y.rows(), y.cols()}),
                     "every element has one", "pass the loss's gradient by this very value");
  if (!y.needs_grad())
    fail<TrainingError>("backward() from a value that depends on nothing that wants gradients",
                        "no adapter of its rows is trainable, nor any other parameter on the way",
                        "inject or activate an adapter, load with is_trainable, or set_requires_grad(model, name, true)");
  grad_of(y.node()) += dy;
  go_back();
}

}  // namespace graft
