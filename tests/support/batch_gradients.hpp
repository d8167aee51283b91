#pragma once

#include <array>
#include <cmath>
#include <vector>

#include "shaped_gradients.hpp"

/// The gradients of ops over the sequences of a batch.
namespace support {

template <class T, class Op>
graft::Matrix<T> forward_on(const Op& op, const graft::Batch& batch, const std::vector<graft::Matrix<T>>& x) {
  std::vector<graft::In<T>> views;
  for (const graft::Matrix<T>& one : x) views.push_back(graft::in(one));
  const graft::Index rows = graft::detail::tail_of<Op> ? batch.tail(graft::detail::tail_of<Op>).rows() : batch.rows();
  graft::Matrix<T> y(rows, op.cols(std::span<const graft::In<T>>(views)));
  op.template forward<T>(batch.view(), graft::out(y), std::span<const graft::In<T>>(views));
  return y;
}

/// Every dx, of which 1/2 stands there already; bit i of `wanted`: somebody wants that of x[i].
template <class T, class Op>
std::vector<graft::Matrix<T>> vjp_on(const Op& op, const graft::Batch& batch, const graft::Matrix<T>& dy,
                                     const std::vector<graft::Matrix<T>>& x, unsigned wanted = ~0u) {
  const Strided<T> y(forward_on<T>(op, batch, x)), g(dy);
  std::vector<Strided<T>> from, to;
  for (const graft::Matrix<T>& one : x) {
    from.emplace_back(one);
    to.emplace_back(graft::Matrix<T>::Constant(one.rows(), one.cols(), T(0.5)));
  }
  std::vector<graft::In<T>> views;
  std::vector<graft::Out<T>> dx;
  for (std::size_t i = 0; i < x.size(); ++i) {
    views.push_back(from[i].in());
    dx.push_back(wanted >> i & 1 ? to[i].out() : graft::out<T>(nullptr, 0, 0));
  }
  graft::Gradients gradients;
  const std::size_t in_use = batch.workspace().in_use();
  op.template vjp<T>(batch.view(), gradients, g.in(), y.in(), std::span<const graft::In<T>>(views), std::span<const graft::Out<T>>(dx));
  CHECK(batch.workspace().in_use() == in_use);
  CHECK(gradients.empty());
  std::vector<graft::Matrix<T>> values;
  for (const Strided<T>& one : to) {
    CHECK(one.gaps_are_intact());
    values.push_back(one.values().array() - T(0.5));
  }
  return values;
}

/// max|a − b| ≤ tolerance · (1 + max|b|), and b is not zero.
template <class T>
bool near(const graft::Matrix<T>& a, const graft::Matrix<double>& b, double tolerance) {
  if (a.rows() != b.rows() || a.cols() != b.cols() || !a.allFinite()) return false;
  const double largest = b.cwiseAbs().maxCoeff();
  return largest > 0 && (a.template cast<double>() - b).cwiseAbs().maxCoeff() <= tolerance * (1 + largest);
}

/// Whether every dx is central differences of forward, alone and with the others, and the same in float but for its roundings.
/// With a step of 2^-17 a third derivative of 1 costs 1e-11, the roundings of a loss of 1 some 3e-11: below the 1e-8 asked for.
template <class Op>
void check_on(const Op& op, const graft::Batch& batch, const graft::Matrix<double>& dy, std::vector<graft::Matrix<double>> x,
              double float_error = 1e-5) {
  const std::vector<graft::Matrix<double>> dx = vjp_on<double>(op, batch, dy, x);
  std::vector<graft::Matrix<float>> in_float;
  for (const graft::Matrix<double>& one : x) in_float.push_back(one.cast<float>());
  const std::vector<graft::Matrix<float>> dx_in_float = vjp_on<float>(op, batch, dy.cast<float>(), in_float);
  const auto loss = [&] { return forward_on<double>(op, batch, x).cwiseProduct(dy).sum(); };
  for (std::size_t k = 0; k < x.size(); ++k) {
    CAPTURE(k);
    graft::Matrix<double> slopes(x[k].rows(), x[k].cols());
    for (graft::Index i = 0; i < x[k].size(); ++i) {
      const double step = 0x1p-17, kept = x[k].data()[i];
      x[k].data()[i] = kept + step;
      const double above = loss();
      x[k].data()[i] = kept - step;
      slopes.data()[i] = (above - loss()) / (2 * step);
      x[k].data()[i] = kept;
    }
    CHECK(near(dx[k], slopes, 1e-8));
    CHECK(near(dx_in_float[k], dx[k], float_error));
    const std::vector<graft::Matrix<double>> alone = vjp_on<double>(op, batch, dy, x, 1u << k);
    for (std::size_t other = 0; other < x.size(); ++other) CHECK((other == k ? alone[other] == dx[other] : alone[other].isZero(0)));
  }
}

}  // namespace support
