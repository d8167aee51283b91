#include <graft/adapters/update_gradient.hpp>

#include <doctest/doctest.h>

#include <graft/modules/linear.hpp>

using graft::Index;
using graft::Matrix;

TEST_CASE("a parameter that wants no gradient, or has no numbers, has no place for one") {
  graft::Gradients gradients;
  graft::ParameterData wanted(graft::Dtype::f64, {2, 3}), frozen = wanted, empty(graft::Dtype::f64, {0, 3});
  for (graft::ParameterData* parameter : {&wanted, &frozen, &empty}) parameter->allocate();
  wanted.set_requires_grad(true);
  empty.set_requires_grad(true);
  CHECK(graft::detail::gradient_of<double>(frozen, gradients) == nullptr);
  CHECK(graft::detail::gradient_of<double>(empty, gradients) == nullptr);
  CHECK(gradients.empty());
  double* const place = graft::detail::gradient_of<double>(wanted, gradients);
  REQUIRE(place);
  place[4] = 7;
  CHECK((*gradients.find_at<double>(wanted))(1, 1) == 7);
}
TEST_CASE("sums over rows and positions, of channels that lie in one piece or repeat") {
  Matrix<double> memory = Matrix<double>::Constant(2, 9, 1000);
  memory.leftCols(6) << 1, 2, 3, 4, 5, 6, 10, 20, 30, 40, 50, 60;
  const graft::In<double> g = graft::in<double>(memory.data(), 2, 6, 9);
  std::vector<double> sums{1, 1, 1};
  graft::detail::add_channel_sums<double>(g, 3, 2, sums.data());
  CHECK(sums == std::vector<double>{1 + 2 * 33, 1 + 2 * 77, 1 + 2 * 121});
  sums = {0, 0, 0};
  graft::detail::add_channel_sums<double>(g, 3, -1, sums.data(), true);
  CHECK(sums == std::vector<double>{-55, -77, -99});
  sums = {1, 1, 1};
  Matrix<double> other = Matrix<double>::Constant(2, 7, 1000);
  other.leftCols(6) << 1, 0, 2, 1, 0, -1, 0, 1, 1, 0, 3, 2;
  graft::detail::add_channel_dots<double>(g, graft::in<double>(other.data(), 2, 6, 7), 3, 0.5, sums.data());
  CHECK(sums == std::vector<double>{1 + 0.5 * (1 + 20), 1 + 0.5 * (6 + 4 + 30), 1 + 0.5 * (-6 + 150 + 120)});
}
TEST_CASE("sums over rows of more features than are summed at a time") {
  const Index n = 5, features = 300;
  Matrix<double> g(n, features), v(n, features);
  for (Index i = 0; i < g.size(); ++i) {
    g.data()[i] = double(i * 7 % 23);
    v.data()[i] = double(i * 5 % 17) - 8;
  }
  Matrix<double> sums = Matrix<double>::Ones(1, features), dots = sums;
  graft::detail::add_channel_sums<double>(graft::in<double>(g), features, 2, sums.data());
  graft::detail::add_channel_dots<double>(graft::in<double>(g), graft::in<double>(v), features, -3, dots.data());
  CHECK(sums == Matrix<double>((1 + 2 * g.colwise().sum().array()).matrix()));  // whole numbers
  CHECK(dots == Matrix<double>((1 - 3 * g.cwiseProduct(v).colwise().sum().array()).matrix()));
}
TEST_CASE("a bias is taken out of every position of its channel") {
  graft::Linear<double> layer(2, 3), without(2, 3, false);
  layer.bias.view() << 1, 2, 3;
  Matrix<double> y = Matrix<double>::Zero(2, 6);
  graft::detail::subtract_bias<double>(graft::detail::base_weight_of(layer), 3, graft::out(y), nullptr);
  Matrix<double> want(2, 6);
  want << -1, -1, -2, -2, -3, -3, -1, -1, -2, -2, -3, -3;
  CHECK(y == want);
  graft::detail::subtract_bias<double>(graft::detail::base_weight_of(without), 3, graft::out(y), nullptr);
  CHECK(y == want);
}
