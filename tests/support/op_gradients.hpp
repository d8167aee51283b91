#pragma once

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <graft/tensor/gradients.hpp>
#include <graft/modules/op.hpp>
#include <span>
#include <type_traits>
#include <vector>

/// What a vjp is tested against: central differences of its forward, and the same op in another scalar.
namespace support {

using graft::Gradients;
using graft::Index;
using graft::Matrix;

/// A matrix whose rows are further apart than they are wide.
template <class T>
class Gapped {
 public:
  static constexpr Index extra = 3;
  template <class Values>
  explicit Gapped(const Values& values) : cols_(values.cols()), all_(Matrix<T>::Constant(values.rows(), values.cols() + extra, T(77))) {
    all_.leftCols(cols_) = values.template cast<T>();
  }
  [[nodiscard]] graft::In<T> in() const { return graft::in<T>(all_.data(), all_.rows(), cols_, all_.cols()); }
  [[nodiscard]] graft::Out<T> out() { return graft::out<T>(all_.data(), all_.rows(), cols_, all_.cols()); }
  [[nodiscard]] bool gaps_are_intact() const { return (all_.rightCols(extra).array() == T(77)).all(); }

 private:
  Index cols_;
  Matrix<T> all_;
};

/// A batch of one sequence with a workspace.
class OneBatch {
 public:
  explicit OneBatch(Index rows) : one_(rows) {}
  [[nodiscard]] graft::BatchView view() {
    graft::BatchView view = one_.view();
    view.workspace = &workspace;
    return view;
  }
  graft::Workspace workspace;

 private:
  graft::detail::OneSequence one_;
};

template <class T, class Op>
Matrix<T> forward_of(const Op& op, const std::vector<Matrix<T>>& x) {
  std::vector<graft::In<T>> views;
  std::vector<graft::Shape> shapes;
  for (const Matrix<T>& one : x) {
    views.push_back(graft::in(one));
    shapes.push_back(graft::Shape{one.cols()});
  }
  Index cols;
  if constexpr (requires { op.shape(std::span<const graft::Shape>(shapes)); }) cols = op.shape(std::span<const graft::Shape>(shapes)).size();
  else cols = op.cols(std::span<const graft::In<T>>(views));
  Matrix<T> y(x[0].rows(), cols);
  OneBatch batch(x[0].rows());
  op.template forward<T>(batch.view(), graft::out(y), std::span<const graft::In<T>>(views));
  return y;
}

/// Every dx of an op, of gapped views. It checks that they are added to what stands there, that what is not `wanted` (a bit
/// for each) is left alone, and that all scratch was given back.
template <class T, class Op>
std::vector<Matrix<T>> vjp_of(const Op& op, const Matrix<T>& dy, const std::vector<Matrix<T>>& x, Gradients& gradients,
                              unsigned wanted = ~0u) {
  const T before(0.5);
  const Gapped<T> y(forward_of(op, x)), g(dy);
  std::vector<Gapped<T>> inputs, results;
  for (const Matrix<T>& one : x) {
    inputs.emplace_back(one);
    results.emplace_back(Matrix<T>::Constant(one.rows(), one.cols(), before));
  }
  std::vector<graft::In<T>> views;
  std::vector<graft::Out<T>> to;
  for (std::size_t i = 0; i < x.size(); ++i) {
    views.push_back(inputs[i].in());
    to.push_back(wanted >> i & 1 ? results[i].out() : graft::out<T>(nullptr, x[i].rows(), x[i].cols()));
  }
  OneBatch batch(dy.rows());
  op.template vjp<T>(batch.view(), gradients, g.in(), y.in(), std::span<const graft::In<T>>(views), std::span<const graft::Out<T>>(to));
  CHECK(batch.workspace.in_use() == 0);
  std::vector<Matrix<T>> dx;
  for (Gapped<T>& result : results) {
    CHECK(result.gaps_are_intact());
    dx.push_back(result.out().array() - before);
  }
  return dx;
}

/// d loss() / d values, by central differences. With a step of 2^-17 a third derivative of 1 costs 1e-11, and the roundings of
/// a loss of 1 some 3e-11: both lie far below the 1e-8 that tests allow.
template <class Loss>
Matrix<double> differences(Index rows, Index cols, double* values, const Loss& loss) {
  const double step = 0x1p-17;
  Matrix<double> slopes(rows, cols);
  for (Index i = 0; i < rows * cols; ++i) {
    const double kept = values[i];
    values[i] = kept + step;
    const double above = loss();
    values[i] = kept - step;
    const double below = loss();
    values[i] = kept;
    slopes.data()[i] = (above - below) / (2 * step);
  }
  return slopes;
}
inline constexpr double difference_error = 1e-8;

/// max|a − b| ≤ tolerance · (1 + max|b|), and b is not zero.
template <class A, class B>
bool agrees(const A& a, const B& b, double tolerance) {
  if (a.rows() != b.rows() || a.cols() != b.cols()) return false;
  const Matrix<double> got = a.template cast<double>(), want = b.template cast<double>();
  const double largest = want.cwiseAbs().maxCoeff();
  return largest > 0 && got.allFinite() && (got - want).cwiseAbs().maxCoeff() <= tolerance * (1 + largest);
}

/// Whether every dx of an op, in double, is what differences say of the loss Σ dy ∘ y.
template <class Op>
void check_input_gradients(const Op& op, const Matrix<double>& dy, std::vector<Matrix<double>> x) {
  Gradients gradients;
  const std::vector<Matrix<double>> dx = vjp_of<double>(op, dy, x, gradients);
  const auto loss = [&] { return forward_of<double>(op, x).cwiseProduct(dy).sum(); };
  for (std::size_t i = 0; i < x.size(); ++i) {
    CAPTURE(i);
    CHECK(agrees(dx[i], differences(x[i].rows(), x[i].cols(), x[i].data(), loss), difference_error));
    Gradients none;
    const std::vector<Matrix<double>> alone = vjp_of<double>(op, dy, x, none, 1u << i);
    for (std::size_t k = 0; k < x.size(); ++k) CHECK((k == i ? alone[k] == dx[k] : alone[k].isZero(0)));
  }
}

/// Whether an op has the same dx in float as in double, but for float's roundings.
template <class Op>
void check_float_gradients(const Op& op, const Matrix<double>& dy, const std::vector<Matrix<double>>& x, double tolerance = 1e-5) {
  Gradients gradients;
  std::vector<Matrix<float>> narrow;
  for (const Matrix<double>& one : x) narrow.push_back(one.cast<float>());
  const Matrix<float> narrow_dy = dy.cast<float>();
  const std::vector<Matrix<double>> want = vjp_of<double>(op, narrow_dy.cast<double>(), x, gradients);
  const std::vector<Matrix<float>> dx = vjp_of<float>(op, narrow_dy, narrow, gradients);
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(agrees(dx[i], want[i], tolerance));
}

}  // namespace support
