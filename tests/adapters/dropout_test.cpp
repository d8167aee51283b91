#include <graft/adapters/dropout.hpp>

#include <doctest/doctest.h>

#include <cmath>

using graft::DropoutStream;
using graft::Index;
using graft::Matrix;
using graft::detail::DropoutMask;

namespace {
template <class T = double>
Matrix<T> left_of(const Matrix<T>& x, const DropoutMask& mask, Index first = 0) {
  Matrix<T> y(x.rows(), x.cols());
  mask.apply<T>(graft::in<T>(x), first, graft::out(y));
  return y;
}
const Matrix<double> ones = Matrix<double>::Ones(40, 301);
const DropoutStream stream{true, 3, 5};
}  // namespace

TEST_CASE("an element is dropped with the probability that is asked for, and the others make up for it") {
  for (const double p : {0.1, 0.5, 0.9}) {
    const Matrix<double> y = left_of(ones, {stream, "p", "a", p});
    const double share = double((y.array() == 0).count()) / double(y.size());
    // five standard deviations of as many throws
    CHECK(std::abs(share - p) < 5 * std::sqrt(p * (1 - p) / double(y.size())));
    CHECK(y.maxCoeff() == 1 / (1 - p));
    CHECK(((y.array() == 0) || (y.array() == 1 / (1 - p))).all());
  }
  CHECK(left_of(ones, {stream, "p", "a", 0}) == ones);
  CHECK(left_of(ones, {stream, "p", "a", 1}).isZero(0));
  Matrix<float> infinite = Matrix<float>::Constant(2, 3, INFINITY);
  CHECK(left_of<float>(infinite, {stream, "p", "a", 1}).isZero(0));
}
TEST_CASE("what is dropped depends on seed, step, site, adapter and place alone") {
  const DropoutMask mask(stream, "p", "a", 0.5);
  const Matrix<double> y = left_of(ones, mask);
  CHECK(left_of(ones, {stream, "p", "a", 0.5}) == y);
  CHECK(left_of(Matrix<double>(ones.bottomRows(33)), mask, 7) == Matrix<double>(y.bottomRows(33)));
  CHECK(left_of(Matrix<float>(ones.cast<float>()), mask) == y.cast<float>());
  const Matrix<double> others[] = {left_of(ones, {{true, 4, 5}, "p", "a", 0.5}), left_of(ones, {{true, 3, 6}, "p", "a", 0.5}),
                                   left_of(ones, {stream, "q", "a", 0.5}),       left_of(ones, {stream, "p", "b", 0.5}),
                                   left_of(ones, {stream, "a", "p", 0.5}),       left_of(ones, mask, 1)};
  for (const Matrix<double>& other : others) {
    const double agree = double((other.array() == y.array()).count()) / double(y.size());
    CHECK(std::abs(agree - 0.5) < 5 * 0.5 / std::sqrt(double(y.size())));
  }
  // columns and rows are no copies of each other
  for (Index i = 1; i < 40; ++i) REQUIRE(y.row(i) != y.row(0));
  for (Index c = 1; c < 301; ++c) REQUIRE(y.col(c) != y.col(0));
}
TEST_CASE("the gradient goes where the element went") {
  const DropoutMask mask(stream, "p", "a", 0.3);
  const Matrix<double> factors = left_of(ones, mask), g = Matrix<double>::Random(40, 301);
  Matrix<double> dx = Matrix<double>::Constant(40, 301, 2);
  mask.add_gradient<double>(graft::in<double>(g), 0, graft::out(dx));
  CHECK((dx.array() - 2 - factors.array() * g.array()).abs().maxCoeff() < 1e-14);
}
