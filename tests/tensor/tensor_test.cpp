#include <doctest/doctest.h>

#include <graft/tensor/tensor.hpp>
#include <vector>

#include "support/ramp.hpp"

using graft::Shape;
using graft::tensor_traits;

namespace {
template <int N>
using Tensor = Eigen::Tensor<float, N, Eigen::RowMajor>;

/// Somebody's own tensor.
struct Cube {
  std::vector<double> values = std::vector<double>(8);
};
}  // namespace

template <>
struct graft::tensor_traits<Cube> {
  using scalar = double;
  using result = Cube;
  static Shape shape(const Cube&) { return {2, 2, 2}; }
  static const double* data(const Cube& cube) { return cube.values.data(); }
  static Cube make(const Shape&) { return {}; }
  static double* data(Cube& cube) { return cube.values.data(); }
};

TEST_CASE("an Eigen tensor shows its shape and memory, outermost dimension first") {
  Tensor<3> x(7, 5, 2);
  support::fill_ramp(x);
  using traits = tensor_traits<Tensor<3>>;
  CHECK(traits::shape(x) == Shape{7, 5, 2});
  CHECK(traits::data(x) == x.data());
  CHECK(traits::data(x)[11] == x(1, 0, 1));
}

TEST_CASE("maps of memory and of const memory are tensors too") {
  Tensor<3> x(2, 3, 4);
  const Eigen::TensorMap<Tensor<2>> map(x.data(), 6, 4);
  const Eigen::TensorMap<const Tensor<2>> of_const(x.data(), 4, 6);
  CHECK(tensor_traits<Eigen::TensorMap<Tensor<2>>>::shape(map) == Shape{6, 4});
  CHECK(tensor_traits<Eigen::TensorMap<const Tensor<2>>>::shape(of_const) == Shape{4, 6});
  CHECK(tensor_traits<Eigen::TensorMap<const Tensor<2>>>::data(of_const) == x.data());
}

TEST_CASE("results are tensors of the same rank, or of the rank and scalar that are asked for") {
  using traits = tensor_traits<Eigen::TensorMap<const Tensor<3>>>;
  static_assert(std::is_same_v<traits::result, Tensor<3>> && std::is_same_v<traits::scalar, float> && traits::rank == 3);
  CHECK(traits::make({2, 3, 4}).dimension(2) == 4);
  const Eigen::Tensor<double, 2, Eigen::RowMajor> other = traits::make_other<2, double>({2, 3});
  CHECK(other.size() == 6);
  CHECK_THROWS_AS((void)traits::make({2, 3}), graft::ShapeError);
}

TEST_CASE("features last are rows of features") {
  Tensor<3> x(2, 3, 4);
  support::fill_ramp(x);
  const graft::In<float> rows = graft::detail::features_last(x);
  CHECK(rows.rows() == 6);
  CHECK(rows(5, 3) == x(1, 2, 3));
  CHECK(graft::detail::features_last(Tensor<2>(3, 0)).rows() == 0);
  CHECK(graft::detail::with_features({2, 3, 4}, 7) == Shape{2, 3, 7});
  CHECK_THROWS_AS((void)graft::detail::features_last(Tensor<0>()), graft::ShapeError);
}

TEST_CASE("what is a tensor") {
  static_assert(graft::TensorLike<Tensor<4>> && graft::TensorLike<const Tensor<4>&> && graft::TensorLike<Cube>);
  static_assert(!graft::TensorLike<graft::Matrix<>> && !graft::TensorLike<float>);
}
