#pragma once

#include <span>

#include "loss_values.hpp"
#include "var.hpp"

namespace graft {

namespace detail {
/// The gradient of a loss by the value that it was made of.
struct AnyLossGradient {
  virtual void add(Tape&, double factor) const = 0;

 protected:
  ~AnyLossGradient() = default;  // lives in a tape's memory
};
template <class T>
struct LossGradient final : AnyLossGradient {
  LossGradient(RecordedValue<T>& value, const T* elements) : at(&value), gradient(elements) {}
  void add(Tape& tape, double factor) const override {
    Out<T> to = tape.grad_of(*at);
    to += T(factor) * in<T>(gradient, to.rows(), to.cols());
  }
  RecordedValue<T>* at;
  const T* gradient;
};
}  // namespace detail

/// A number to be made small: where a pass ends, since it mixes sequences. No site and no op takes one. Valid until its
/// tape is cleared.
class Loss {
 public:
  [[nodiscard]] double value() const { return value_; }
  /// Whether it depends on anything that wants gradients.
  [[nodiscard]] bool needs_grad() const { return gradient_ != nullptr; }

  // for functions that make losses

  Loss(double value, Tape& tape, const detail::AnyLossGradient* gradient) : value_(value), tape_(&tape), gradient_(gradient) {}
  [[nodiscard]] const detail::AnyLossGradient* gradient() const { return gradient_; }
  [[nodiscard]] const Tape& tape() const { return *tape_; }

 private:
  double value_;
  Tape* tape_;
  const detail::AnyLossGradient* gradient_;  // null: of nothing
};

/// A loss of one's own: measure(value of y (n, features), gradient (n, features)) answers it, and writes its gradient by
/// every element, which is zeroed before.
template <class T, class Measure>
[[nodiscard]] Loss loss_of(const Var<T>& y, const Measure& measure) {
  Tape& tape = y.tape();
  T* const gradient = tape.take<T>(y.rows() * y.cols());
  Out<T> to = out<T>(gradient, y.rows(), y.cols());
  to.setZero();
  const double value = measure(y.value(), to);
  if (!y.needs_grad()) return {value, tape, nullptr};
  using Gradient = detail::LossGradient<T>;
  return {value, tape, new (tape.take<std::byte>(Index(sizeof(Gradient)))) Gradient(y.node(), gradient)};
}

/// The mean over rows of −log softmax(logits)[target], as torch's cross_entropy. logits (n, classes); one target for each
/// row, -100 for a row that does not count. @throws ShapeError for another number of targets, or one that is no class.
template <class T>
[[nodiscard]] Loss cross_entropy(const Var<T>& logits, std::span<const int> targets, const CrossEntropyOptions& options = {}) {
  return loss_of(logits, [&](const In<T>& values, Out<T> gradient) { return cross_entropy_values<T>(values, targets, gradient, options); });
}

/// The mean of (y − target)² over all elements, as torch's mse_loss. @throws ShapeError for another shape.
template <class T>
[[nodiscard]] Loss mse_loss(const Var<T>& y, const std::type_identity_t<MatrixRef<T>>& target) {
  return loss_of(y, [&](const In<T>& values, Out<T> gradient) { return mse_values<T>(values, in<T>(target), gradient); });
}

inline void Tape::backward(const Loss& loss, double factor) {
  if (&loss.tape() != this)
    fail<TrainingError>("backward() of a loss that another tape recorded", "each tape knows its own pass", "call the other's backward()");
  if (!loss.needs_grad())
    fail<TrainingError>("backward() of a loss that depends on nothing that wants gradients",
                        "no adapter of its rows is trainable, nor any other parameter on the way",
                        "inject or activate an adapter, load with is_trainable, or set_requires_grad(model, name, true)");
  loss.gradient()->add(*this, factor);
  go_back();
}

}  // namespace graft
