#include <doctest/doctest.h>

#include <graft/modules/linear.hpp>
#include <graft/tensor/tensor.hpp>

#include "support/ramp.hpp"

using graft::Batch;
using graft::Index;
using graft::Linear;
using graft::Matrix;
using graft::ShapeError;
using support::close;
using support::ramp;

namespace {
// F.linear(ramp(3, 5, salt=1), ramp(7, 5, salt=2), ramp(7, salt=3)): exact in float
const std::vector<double> with_bias{-1.703125, -2.796875, -1.015625, -2.109375, -0.328125, 0.015625,  -1.078125,
                                    -1.53125,  -2.90625,  -1.046875, -2.0625,   -0.203125, -0.140625, -1.15625,
                                    -0.640625, -2.65625,  -1.078125, -2.375,    -0.796875, -1.375,    -2.671875};
// the same without the bias
const std::vector<double> without_bias{-1.578125, -1.546875, -1.515625, -1.484375, -1.453125, 0.015625, 0.046875,
                                       -1.40625,  -1.65625,  -1.546875, -1.4375,   -1.328125, -0.140625, -0.03125,
                                       -0.515625, -1.40625,  -1.578125, -1.75,     -1.921875, -1.375,    -1.546875};
// F.linear(x, (W * 1.01).bfloat16().double(), (b * 1.01).bfloat16().double())
const std::vector<double> of_bf16{-1.717529297,  -2.826904297, -1.024902344, -2.135009766, -0.3369140625, 0.01831054688, -1.082641602,
                                  -1.543701172,  -2.937866211, -1.057617188, -2.086547852, -0.2102050781, -0.1396484375, -1.162353516,
                                  -0.6455078125, -2.686645508, -1.090332031, -2.400268555, -0.8078613281, -1.386962891,  -2.690795898};

template <class T = float>
Linear<T> layer(bool has_bias = true) {
  Linear<T> made(5, 7, has_bias);
  made.weight.view() = ramp<T>(7, 5, 2);
  if (has_bias) made.bias.view() = ramp<T>(1, 7, 3);
  return made;
}
const Matrix<> x = ramp(3, 5, 1);
}  // namespace

TEST_CASE("a linear layer is torch's, with and without bias") {
  CHECK(close(layer()(x), with_bias, 0));
  CHECK(close(layer(false)(x), without_bias, 0));
  CHECK(layer(false).bias.size() == 0);
  CHECK(close(layer<double>()(ramp<double>(3, 5, 1)), with_bias, 0));
  static_assert(std::is_same_v<decltype(layer()(x)), Matrix<float>>);
}

TEST_CASE("it starts with zeros") { CHECK(Linear<>(5, 7)(x).isZero(0)); }

TEST_CASE("narrow weights take float activations") {
  Linear<graft::bf16> narrow(5, 7);
  const Matrix<double> weight = ramp<double>(7, 5, 2) * 1.01, bias = ramp<double>(1, 7, 3) * 1.01;
  for (Index i = 0; i < weight.size(); ++i) narrow.weight.data()[i] = graft::bf16(float(weight.data()[i]));
  for (Index i = 0; i < bias.size(); ++i) narrow.bias.data()[i] = graft::bf16(float(bias.data()[i]));
  CHECK(close(narrow(x), of_bf16, 1e-6));
}

TEST_CASE("maps, blocks, column-major matrices and expressions go in alike") {
  const auto linear = layer();
  CHECK(close(linear(Eigen::Map<const Matrix<>>(x.data(), 3, 5)), with_bias, 0));
  CHECK(close(linear(Eigen::MatrixXf(x)), with_bias, 0));
  Matrix<> wide = Matrix<>::Constant(5, 9, 100);
  wide.block(1, 2, 3, 5) = x;
  CHECK(close(linear(wide.block(1, 2, 3, 5)), with_bias, 0));
  CHECK(close(linear(x * 2 - x), with_bias, 0));
  CHECK(linear(x.row(1)) == linear(x).row(1));
  CHECK(linear(Matrix<>(0, 5)).rows() == 0);
}

TEST_CASE("tensors with features last keep their leading dimensions") {
  Eigen::Tensor<float, 3, Eigen::RowMajor> tensor(1, 3, 5);
  support::fill_ramp(tensor, 1);
  const auto y = layer()(tensor);
  static_assert(std::is_same_v<std::remove_const_t<decltype(y)>, Eigen::Tensor<float, 3, Eigen::RowMajor>>);
  CHECK(y.dimension(0) == 1);
  CHECK(y.dimension(1) == 3);
  CHECK(y.dimension(2) == 7);
  CHECK(close(Eigen::Map<const Matrix<>>(y.data(), 3, 7), with_bias, 0));
}

TEST_CASE("rows of a batch stay in the batch") {
  Batch batch;
  batch.add(1).add(2);
  const auto y = layer()(batch.input(x));
  CHECK(&y.batch() == &batch);
  CHECK(close(y.value(), with_bias, 0));
}

TEST_CASE("features that do not fit are a ShapeError; a transposed input is recognised") {
  CHECK_THROWS_AS((void)layer()(ramp(3, 4)), ShapeError);
  CHECK_THROWS_WITH_AS((void)layer()(ramp(5, 3)), doctest::Contains("transpose()"), ShapeError);
  Eigen::Tensor<float, 3, Eigen::RowMajor> tensor(2, 3, 4);
  CHECK_THROWS_AS((void)layer()(tensor), ShapeError);
}

TEST_CASE("without memory it is a MetaError") {
  CHECK_THROWS_AS((void)(Linear<float, graft::lazy>(5, 7))(x), graft::MetaError);
}

TEST_CASE("linear() multiplies by a parameter or by any matrix") {
  const auto held = layer();
  CHECK(close(graft::linear(x, held.weight), without_bias, 0));
  CHECK(close(graft::linear(x, held.weight, held.bias), with_bias, 0));
  CHECK(close(graft::linear(x, held.weight, layer(false).bias), without_bias, 0));
  const Matrix<> weight = ramp(7, 5, 2);
  CHECK(close(graft::linear(x, weight), without_bias, 0));
  CHECK(close(graft::linear(x, Eigen::MatrixXf(weight)), without_bias, 0));
  CHECK(close(graft::linear(x, Eigen::MatrixXf(weight), Eigen::VectorXf(ramp(1, 7, 3).transpose())), with_bias, 0));
  Matrix<> wide = Matrix<>::Constant(7, 8, 100);
  wide.middleCols(2, 5) = weight;
  CHECK(close(graft::linear(x, wide.middleCols(2, 5)), without_bias, 0));
  Batch batch;
  batch.add(3);
  CHECK(close(graft::linear(batch.input(x), held.weight).value(), without_bias, 0));
}

TEST_CASE("its traits state sizes and views") {
  using traits = graft::layer_traits<Linear<>>;
  auto linear = layer();
  static_assert(traits::kind == graft::LayerKind::linear);
  CHECK(traits::in_features(linear) == 5);
  CHECK(traits::out_features(linear) == 7);
  traits::weight(linear)(6, 4) = 50;
  traits::bias(linear)(6) = 60;
  CHECK(linear.weight.view()(6, 4) == 50);
  CHECK(linear.bias.view()(0, 6) == 60);
  CHECK_FALSE(traits::has_bias(layer(false)));
}

TEST_CASE("a weight and a bias may be of different kinds, and lie anywhere") {
  const graft::Matrix<> x = support::ramp(3, 5, 1), weight = support::ramp(7, 5, 2), bias = support::ramp(1, 7, 3);
  const graft::Matrix<> want = (x * weight.transpose()).rowwise() + bias.row(0);
  graft::Parameter<float> w(graft::Shape{7, 5}), b(graft::Shape{7});
  w.view() = weight;
  b.view() = bias;
  graft::Parameter<float, graft::mapped> mapped(graft::Shape{7});
  mapped.bind(bias.data());
  const Eigen::MatrixXf columns = weight;
  const Eigen::VectorXf column = bias.transpose();
  const graft::Matrix<> wide = support::ramp(7, 8, 4);
  CHECK(graft::linear(x, w, column).isApprox(want));
  CHECK(graft::linear(x, weight, b).isApprox(want));
  CHECK(graft::linear(x, w, mapped).isApprox(want));
  CHECK(graft::linear(x, columns, bias.row(0)).isApprox(want));
  CHECK(graft::linear(x, wide.middleCols(2, 5), 2 * column)
            .isApprox((x * wide.middleCols(2, 5).transpose()).rowwise() + 2 * bias.row(0)));
  CHECK_THROWS_AS((void)graft::linear(x, w, Eigen::VectorXf::Zero(6).eval()), graft::ShapeError);
}
