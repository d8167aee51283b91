#include <graft/modules/pool_vjp.hpp>

#include <doctest/doctest.h>

#include <cmath>

#include "support/ramp.hpp"
#include "support/shaped_gradients.hpp"

using graft::Matrix;
using graft::Shape;
using support::ramp;

namespace {

const Shape row{2, 5, 4};
const graft::PoolOptions options{.kernel = {3, 2}, .stride = {2, 1}, .padding = 1};
const graft::ops::Pool2d<true> largest{options};
const graft::ops::Pool2d<false> mean{options};

template <class T, class Op>
Matrix<T> gradient(const Op& op, const Matrix<T>& x, bool wanted = true) {
  graft::Gradients gradients;
  const Matrix<T> dx = support::shaped_vjp<T>(op, ramp<T>(2, 30, 2), x, row, gradients, wanted);
  CHECK(gradients.empty());
  return dx;
}

/// Halves, among which many are equal.
template <class T>
Matrix<T> halves() {
  return (ramp<T>(2, 40, 1) * T(2)).unaryExpr([](T value) { return T(std::nearbyint(value)) / T(2); });
}

}  // namespace

// F.max_pool2d((ramp(2, 2, 5, 4, salt=1) * 2).round() / 2, (3, 2), stride=(2, 1), padding=(1, 1)) and F.avg_pool2d of the
// ramp itself, .backward(ramp(2, 2, 3, 5, salt=2)), with the ramps of support/ramp.hpp
TEST_CASE("the gradients of poolings of several samples are torch's, of equal values too") {
  const auto check = [](auto scalar) {
    using T = decltype(scalar);
    CHECK(support::close(gradient<T>(largest, halves<T>()),
                         {0, 0, -0.875, 0, 0.25, 0, 0, 1.5, 0, -0.375, 0, 0, -0.75, 0, 0, 1.125, 0, -0.625, 0, 0,
                          -0.5, 0, 0.75, 0, 0, 0, 0, 1.75, 0, 0, -0.375, 0, -0.25, 0, 0, -1, 0, 0, -0.25, 0, 0.25,
                          0, 0, -0.75, 0, 1, 0, 0, -0.625, 0, 0, 0, 0, 1.375, 0, -0.75, -0.5, 0, 0, 0, 0, 1.625, 0,
                          0, -0.375, 0, -0.75, 0, -1.625, 0, 0, 1, 0, -0.875, 0, 0, -0.125, 0, -0.125, 1.125}, 0));
    CHECK(support::close(gradient<T>(mean, ramp<T>(2, 40, 1)),
                         {0.27083333333333331, -0.10416666666666669, 0, 0.10416666666666669, 0.10416666666666666,
                          -0.16666666666666669, 0.041666666666666657, 0.25000000000000006, -0.16666666666666666,
                          -0.0625, 0.041666666666666657, 0.14583333333333331, -0.29166666666666669,
                          -0.083333333333333343, 0.12499999999999999, 0.33333333333333331, -0.125,
                          -0.020833333333333343, 0.083333333333333329, 0.1875, -0.083333333333333329,
                          0.020833333333333343, 0.125, 0.22916666666666669, -0.125, 0.083333333333333343,
                          0.29166666666666663, 0.5, -0.041666666666666657, 0.0625, 0.16666666666666666,
                          0.27083333333333331, -0.041666666666666657, 0.16666666666666669, -0.10416666666666666,
                          0.10416666666666666, 0, 0.10416666666666669, -0.27083333333333331, -0.16666666666666666,
                          0.041666666666666657, 0.14583333333333331, -0.22916666666666669, -0.125,
                          0.12499999999999999, 0.33333333333333331, -0.41666666666666669, -0.20833333333333331,
                          0.083333333333333329, 0.1875, -0.1875, -0.083333333333333329, 0.20833333333333334,
                          0.41666666666666669, -0.33333333333333331, -0.125, 0.125, 0.22916666666666669,
                          -0.14583333333333331, -0.041666666666666657, 0.16666666666666666, 0.27083333333333331,
                          -0.10416666666666669, 0, -0.10416666666666666, 0.10416666666666666, -0.16666666666666669,
                          0.041666666666666657, -0.27083333333333331, -0.16666666666666666, -0.0625,
                          0.041666666666666657, -0.5, -0.29166666666666669, -0.083333333333333343,
                          0.12499999999999999, -0.22916666666666669, -0.125, -0.020833333333333343,
                          0.083333333333333329}, 1e-6));
  };
  check(float{});
  check(double{});
}

TEST_CASE("the gradient of the mean is central differences; where nobody wants one there is none") {
  Matrix<double> x = ramp<double>(2, 40, 1);
  const Matrix<double> dy = ramp<double>(2, 30, 2), dx = gradient<double>(mean, x);
  const auto loss = [&] { return support::run_shaped<double>(mean, x, row).cwiseProduct(dy).sum(); };
  CHECK_FALSE(dx.isZero(0));
  CHECK(dx.isApprox(support::slopes_of(2, 40, x.data(), loss), 1e-12));
  CHECK(gradient<double>(mean, x, false).isZero(0));
  CHECK(gradient<double>(largest, x, false).isZero(0));
}

TEST_CASE("poolings say the shape of their result's rows") {
  CHECK(largest.shape(std::span(&row, 1)) == Shape{2, 3, 5});
  const Shape flat{40};
  CHECK_THROWS_AS((void)mean.shape(std::span(&flat, 1)), graft::ShapeError);
}
