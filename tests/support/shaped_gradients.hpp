#pragma once

#include <doctest/doctest.h>

#include <graft/modules/op.hpp>
#include <graft/tensor/gradients.hpp>
#include <span>

/// The gradients of ops of one input that are told the shape of its rows: convolutions, pooling.
namespace support {

/// A matrix whose rows are further apart than they are wide.
template <class T>
class Strided {
 public:
  explicit Strided(const graft::Matrix<T>& values)
      : cols_(values.cols()), all_(graft::Matrix<T>::Constant(values.rows(), values.cols() + 3, T(77))) {
    all_.leftCols(cols_) = values;
  }
  [[nodiscard]] graft::In<T> in() const { return graft::in<T>(all_.data(), all_.rows(), cols_, all_.cols()); }
  [[nodiscard]] graft::Out<T> out() { return graft::out<T>(all_.data(), all_.rows(), cols_, all_.cols()); }
  [[nodiscard]] graft::Matrix<T> values() const { return all_.leftCols(cols_); }
  [[nodiscard]] bool gaps_are_intact() const { return (all_.rightCols(3).array() == T(77)).all(); }

 private:
  graft::Index cols_;
  graft::Matrix<T> all_;
};

template <class T, class Op>
graft::Matrix<T> run_shaped(const Op& op, const graft::Matrix<T>& x, const graft::Shape& row) {
  graft::Matrix<T> y(x.rows(), op.shape(std::span(&row, 1)).size());
  op.template run<T>(graft::in(x), row, graft::out(y), nullptr);
  return y;
}

/// dx, of which `before` stands there already; null where nobody wants it.
template <class T, class Op>
graft::Matrix<T> shaped_vjp(const Op& op, const graft::Matrix<T>& dy, const graft::Matrix<T>& x, const graft::Shape& row,
                            graft::Gradients& gradients, bool wanted = true, graft::Workspace* workspace = nullptr) {
  const T before(0.5);
  const Strided<T> g(dy), from(x);
  Strided<T> dx(graft::Matrix<T>::Constant(x.rows(), x.cols(), before));
  const graft::Out<T> to = wanted ? dx.out() : graft::out<T>(nullptr, 0, 0);
  op.template vjp<T>({.workspace = workspace}, gradients, g.in(), from.in(), row, to);
  if (workspace) CHECK(workspace->in_use() == 0);
  CHECK(dx.gaps_are_intact());
  return dx.values().array() - before;
}

/// d loss() / d values by central differences with steps of 1/8.
template <class Loss>
graft::Matrix<double> slopes_of(graft::Index rows, graft::Index cols, double* values, const Loss& loss) {
  graft::Matrix<double> slopes(rows, cols);
  for (graft::Index i = 0; i < rows * cols; ++i) {
    const double kept = values[i];
    values[i] = kept + 0.125;
    const double above = loss();
    values[i] = kept - 0.125;
    const double below = loss();
    values[i] = kept;
    slopes.data()[i] = (above - below) / 0.25;
  }
  return slopes;
}

}  // namespace support
