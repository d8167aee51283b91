#include "graft/modules/linear_vjp.hpp"

#include <doctest/doctest.h>

#include "support/cutting_host.hpp"
#include "support/op_gradients.hpp"
#include "support/ramp.hpp"
#include "support/recorded.hpp"

using namespace graft;
using support::agrees;
using support::close;
using support::difference_error;
using support::ramp;
using support::vjp_of;

namespace {
// torch's autograd of F.linear(ramp(3, 5, salt=1), ramp(7, 5, salt=2), ramp(7, salt=3)) for ramp(3, 7, salt=4): exact in float
const std::vector<double> torch_dx{0.9375, 1.5,  -1.171875, -1.6875,   0.3125,   -1.015625, -0.25,    0.875,
                                   -1.59375, 0.25, 1.34375, -0.921875, 0.765625, 1.375,     -0.171875};
const std::vector<double> torch_dw{-0.140625, -0.421875, 0.015625,  -0.265625, 0.53125,   -0.203125, 0.078125, -0.359375, -0.078125,
                                   3.078125,  0.09375,   0.9375,    -0.375,    0.46875,   -2.28125,  -0.328125, 1.078125, -1.109375,
                                   0.296875,  -0.09375,  0.328125,  -0.9375,   1.03125,   -0.234375, -1.5,     -0.09375,  -0.796875,
                                   0.296875,  -0.40625,  0.6875,    -0.15625,  -0.296875, -0.078125, -0.21875, 3.234375};
const std::vector<double> torch_db{0.25, -0.25, -0.75, -1.25, 1.125, 0.625, 0.125};
// of F.linear(x, weight[2:5], bias[2:5]) for ramp(3, 3, salt=4)
const std::vector<double> rows_dx{-0.703125, -0.046875, -0.46875,  0.1875,   -0.234375, -1.890625, 1.171875, -0.796875,
                                  2.265625,  0.296875,  -0.203125, 0.234375, -0.046875, 0.390625,  0.109375};
const std::vector<double> rows_dw{0,         0,        0, 0,         0,       0,        0,         0,        0,         0,       0.15625, -2.375,
                                  1.5625,    -0.96875, 2.25, -0.265625, 1,     -0.96875, 0.296875,  0.84375,  0.390625, -1.015625, 1.171875,
                                  -0.234375, -0.5625,  0, 0,         0,       0,        0,         0,        0,         0,       0,       0};
const std::vector<double> rows_db{0, 0, 2.25, -1.125, 1.25, 0, 0};

template <class T, class Product = KernelProduct>
Linear<T, dense, Product> layer(Index in = 5, Index out = 7, bool trained = true) {
  Linear<T, dense, Product> made(in, out);
  support::fill_ramp(made.weight, 2);
  support::fill_ramp(made.bias, 3);
  made.weight.set_requires_grad(trained);
  made.bias.set_requires_grad(trained);
  return made;
}
/// A product of a host's, with something of its own.
struct Times {
  std::vector<double> factors;
  void operator()(const In<double>& a, const In<double>& w, Out<double> y) const { y = factors.at(0) * (a * w.transpose()); }
};
template <class T>
Matrix<double> wide(const Parameter<T>& parameter) {
  Matrix<double> values(parameter.rows(), parameter.cols());
  for (Index i = 0; i < values.size(); ++i) {
    if constexpr (sizeof(T) == 2) values.data()[i] = double(float(parameter.data()[i]));
    else values.data()[i] = double(parameter.data()[i]);
  }
  return values;
}
}  // namespace

TEST_CASE_TEMPLATE("a linear layer's gradients are torch's", T, float, double) {
  const auto linear = layer<T>();
  Gradients gradients;
  CHECK(close(vjp_of<T>(linear.op(), ramp<T>(3, 7, 4), {ramp<T>(3, 5, 1)}, gradients)[0], torch_dx, 0));
  REQUIRE(gradients.find(linear.weight) != nullptr);
  REQUIRE(gradients.find(linear.bias) != nullptr);
  CHECK(close(*gradients.find(linear.weight), torch_dw, 0));
  CHECK(close(*gradients.find(linear.bias), torch_db, 0));
  // a second time: added
  (void)vjp_of<T>(linear.op(), ramp<T>(3, 7, 4), {ramp<T>(3, 5, 1)}, gradients);
  CHECK(gradients.of(linear.weight)(0, 0) == T(2 * torch_dw[0]));
  CHECK(gradients.of(linear.bias)(0, 6) == T(2 * torch_db[6]));
}

TEST_CASE_TEMPLATE("some rows of a weight add to theirs of the whole one's gradient", T, float, double) {
  const auto linear = layer<T>();
  auto op = linear.op();
  op.keep_rows(1, 5);
  op.keep_rows(1, 3);
  Gradients gradients;
  CHECK(close(vjp_of<T>(op, ramp<T>(3, 3, 4), {ramp<T>(3, 5, 1)}, gradients)[0], rows_dx, 0));
  CHECK(gradients.size() == 2);
  CHECK(close(gradients.of(linear.weight), rows_dw, 0));
  CHECK(close(gradients.of(linear.bias), rows_db, 0));
}

TEST_CASE("they are what differences say") {
  auto linear = layer<double>(13, 7);
  Matrix<double> x = ramp<double>(5, 13, 1);
  const Matrix<double> dy = ramp<double>(5, 7, 4);
  support::check_input_gradients(linear.op(), dy, {x});
  Gradients gradients;
  (void)vjp_of<double>(linear.op(), dy, {x}, gradients, 0);
  const auto loss = [&] { return support::forward_of<double>(linear.op(), {x}).cwiseProduct(dy).sum(); };
  CHECK(agrees(gradients.of(linear.weight), support::differences(7, 13, linear.weight.data(), loss), difference_error));
  CHECK(agrees(gradients.of(linear.bias), support::differences(1, 7, linear.bias.data(), loss), difference_error));
}

TEST_CASE("only what is trained has a gradient") {
  auto linear = layer<float>(5, 7, false);
  const auto run = [&] {
    Gradients gradients;
    (void)vjp_of<float>(linear.op(), ramp(3, 7, 4), {ramp(3, 5, 1)}, gradients);
    return std::pair(gradients.find(linear.weight) != nullptr, gradients.find(linear.bias) != nullptr);
  };
  CHECK(run() == std::pair(false, false));
  CHECK_FALSE(linear.op().trainable({}));
  linear.weight.set_requires_grad(true);
  CHECK(run() == std::pair(true, false));
  CHECK(linear.op().trainable({}));
  linear.weight.set_requires_grad(false);
  linear.bias.set_requires_grad(true);
  CHECK(run() == std::pair(false, true));
  CHECK(linear.op().trainable({}));
  Linear<> without(5, 7, false);
  without.bias.set_requires_grad(true);
  CHECK_FALSE(without.op().trainable({}));
}

TEST_CASE_TEMPLATE("narrow weights have gradients of float", W, bf16, f16) {
  const auto linear = layer<W>(13, 33);
  for (const Index n : {1, 5, 31}) {
    CAPTURE(n);
    const Matrix<> x = ramp(n, 13, 1), dy = ramp(n, 33, 4);
    Gradients gradients;
    const Matrix<> dx = vjp_of<float>(linear.op(), dy, {x}, gradients)[0];
    // multiples of 1/8: exact
    CHECK(agrees(dx, dy.cast<double>() * wide(linear.weight), 0));
    CHECK(agrees(gradients.of(linear.weight), dy.cast<double>().transpose() * x.cast<double>(), 0));
    CHECK(agrees(gradients.of(linear.bias), dy.cast<double>().colwise().sum(), 0));
  }
}

TEST_CASE_TEMPLATE("a row of dx has the same bits alone and among others", W, float, bf16) {
  auto linear = layer<W>(13, 97);
  for (Index i = 0; i < linear.weight.size(); ++i) linear.weight.data()[i] = W(float(support::ramp_at(i, 2)) / 3);
  const Matrix<> x = ramp(31, 13, 1), dy = ramp(31, 97, 4) / 3;
  Gradients gradients;
  const Matrix<> dx = vjp_of<float>(linear.op(), dy, {x}, gradients)[0];
  REQUIRE(!dx.row(7).isZero(0));
  CHECK(Matrix<>(dx.row(7)) == vjp_of<float>(linear.op(), Matrix<>(dy.row(7)), {Matrix<>(x.row(7))}, gradients)[0]);
}

TEST_CASE("another product has the gradients of graft's") {
  const auto linear = layer<double, EigenProduct>();
  Gradients gradients;
  CHECK(close(vjp_of<double>(linear.op(), ramp<double>(3, 7, 4), {ramp<double>(3, 5, 1)}, gradients)[0], torch_dx, 0));
  CHECK(close(gradients.of(linear.weight), torch_dw, 0));
  CHECK(close(gradients.of(linear.bias), torch_db, 0));
}

TEST_CASE("no rows, and a layer without features, add nothing") {
  const auto linear = layer<float>();
  Gradients gradients;
  CHECK(vjp_of<float>(linear.op(), Matrix<>(0, 7), {Matrix<>(0, 5)}, gradients)[0].rows() == 0);
  CHECK(gradients.of(linear.weight).isZero(0));
  const Linear<> empty(0, 7);
  CHECK(vjp_of<float>(empty.op(), ramp(3, 7), {Matrix<>(3, 0)}, gradients)[0].size() == 0);
}

TEST_CASE("linear() of a recorded value trains Parameters and keeps matrices") {
  const auto trained = layer<double>();
  const Matrix<double> dy = ramp<double>(3, 7, 4);
  const support::Recording<double> x{ramp<double>(3, 5, 1)};
  Gradients gradients;
  const auto check = [&](const support::Recording<double>& y, bool trains_weight, bool trains_bias) {
    gradients.clear();
    CHECK(y.trains == (trains_weight || trains_bias));
    CHECK(close(y.backward(dy, gradients)[0], torch_dx, 0));
    CHECK(gradients.size() == std::size_t(trains_weight) + std::size_t(trains_bias));
    if (trains_weight) CHECK(close(gradients.of(trained.weight), torch_dw, 0));
    if (trains_bias) CHECK(close(gradients.of(trained.bias), torch_db, 0));
    CHECK(y.again() == y.value);
  };
  check(linear(x, trained.weight), true, false);
  check(linear(x, trained.weight, EigenProduct()), true, false);
  check(linear(x, trained.weight, trained.bias), true, true);
  check(linear(x, trained.weight, trained.bias, EigenProduct()), true, true);
  check(linear(x, trained.weight, Parameter<double>()), true, false);
  const auto frozen = layer<double>(5, 7, false);
  check(linear(x, frozen.weight, frozen.bias), false, false);
  // matrices are gone before backward begins: one that does not lie in one piece, a column, a row
  const auto with_matrices = [&](bool is_column) {
    const Eigen::MatrixXd weight = frozen.weight.view();
    const Eigen::VectorXd column = frozen.bias.view().row(0);
    const Eigen::RowVectorXd row = column;
    return is_column ? linear(x, weight, column) : linear(x, weight, row, EigenProduct());
  };
  check(with_matrices(true), false, false);
  check(with_matrices(false), false, false);
  const auto with_callable = [&] {
    const Times product{{1}};
    return linear(x, trained.weight, product);
  };
  check(with_callable(), true, false);
  check(linear(x, Matrix<double>(frozen.weight.view())), false, false);
  check(linear(x, frozen.weight, Eigen::VectorXd(trained.bias.view().row(0))), false, false);
  CHECK_THROWS_AS((void)linear(x, frozen.weight, Eigen::VectorXd(3)), ShapeError);
}
