#include <doctest/doctest.h>

#include <graft/modules/ops.hpp>

#include "support/ramp.hpp"

using graft::Batch;
using graft::Gelu;
using graft::Matrix;
using graft::ShapeError;
using support::close;
using support::ramp;

namespace {
using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;

const std::vector<double> points{-20, -3, -1, -0.5, 0, 0.25, 1, 2.5, 20};
template <class T = float>
Matrix<T> at_points() {
  return Eigen::Map<const Matrix<double>>(points.data(), 1, graft::Index(points.size())).cast<T>();
}
// torch at these points
const std::vector<double> torch_silu{-4.122307236e-08, -0.1422776195, -0.2689414214, -0.1887703344, 0,
                               0.1405441252,     0.7310585786,  2.31035455,    19.99999996};
const std::vector<double> torch_gelu{0, -0.004049694095, -0.1586552539, -0.1542687694, 0, 0.1496765814, 0.8413447461, 2.484475837, 20};
const std::vector<double> torch_gelu_tanh{0, -0.003637392082, -0.1588080094, -0.1542859902, 0, 0.1496753507, 0.8411919906, 2.484915734, 20};
const std::vector<double> torch_tanh{-1, -0.9950547537, -0.761594156, -0.4621171573, 0, 0.2449186624, 0.761594156, 0.9866142982, 1};
const std::vector<double> torch_sigmoid{2.061153618e-09, 0.04742587318, 0.2689414214, 0.3775406688, 0.5,
                                  0.5621765009,    0.7310585786,  0.92414182,   0.9999999979};
// torch.softmax(ramp(3, 5, salt=4), -1)
const std::vector<double> torch_softmax{0.4477289789,  0.1453563177,  0.04719028719, 0.2715613529,  0.08816306327,
                                  0.4477289789,  0.1453563177,  0.04719028719, 0.2715613529,  0.08816306327,
                                  0.04373648722, 0.2516861064,  0.08171051544, 0.4702115508,  0.1526553401};
}  // namespace

TEST_CASE_TEMPLATE("activations are torch's", T, float, double) {
  const double tolerance = std::is_same_v<T, float> ? 1e-6 : 1e-9;
  const Matrix<T> x = at_points<T>();
  CHECK(close(graft::relu(x), {0, 0, 0, 0, 0, 0.25, 1, 2.5, 20}, 0));
  CHECK(close(graft::silu(x), torch_silu, tolerance));
  CHECK(close(graft::gelu(x), torch_gelu, tolerance));
  CHECK(close(graft::gelu(x, Gelu::tanh), torch_gelu_tanh, tolerance));
  CHECK(close(graft::tanh(x), torch_tanh, tolerance));
  CHECK(close(graft::sigmoid(x), torch_sigmoid, tolerance));
  CHECK(close(graft::softmax(ramp<T>(3, 5, 4)), torch_softmax, tolerance));
}

TEST_CASE("softmax does not overflow") {
  const Matrix<> y = graft::softmax(Matrix<>{{1e30f, 0}, {-1e30f, -1e30f}});
  CHECK(close(y, {1, 0, 0.5, 0.5}, 1e-6));
}

TEST_CASE("sums, products and multiples, element by element") {
  const Matrix<> x = ramp(3, 7, 1), y = ramp(3, 7, 2);
  CHECK(graft::add(x, y) == x + y);
  CHECK(graft::mul(x, y) == x.cwiseProduct(y));
  CHECK(graft::scale(x, -1.5) == x * -1.5f);
  CHECK(graft::add(x, Eigen::MatrixXf(y)) == x + y);
  CHECK(graft::add(x.middleCols(1, 3), y.block(0, 4, 3, 3)) == x.middleCols(1, 3) + y.block(0, 4, 3, 3));
}

TEST_CASE("concat and slice are each other's inverse") {
  const Matrix<> x = ramp(3, 4, 1), y = ramp(3, 2, 2);
  const Matrix<> both = graft::concat(x, y);
  CHECK(both.cols() == 6);
  CHECK(graft::slice(both, 0, 4) == x);
  CHECK(graft::slice(both, 4, 2) == y);
  CHECK(graft::slice(both, 6, 0).cols() == 0);
}

TEST_CASE("shapes that do not fit are ShapeErrors") {
  CHECK_THROWS_AS((void)graft::add(ramp(3, 4), ramp(3, 5)), ShapeError);
  CHECK_THROWS_AS((void)graft::mul(ramp(3, 4), ramp(2, 4)), ShapeError);
  CHECK_THROWS_AS((void)graft::concat(ramp(3, 4), ramp(2, 4)), ShapeError);
  CHECK_THROWS_AS((void)graft::slice(ramp(3, 4), 2, 3), ShapeError);
  CHECK_THROWS_AS((void)graft::slice(ramp(3, 4), -1, 2), ShapeError);
}

TEST_CASE("tensors stay tensors; flatten makes rows of features") {
  Tensor x(2, 3, 2, 2), y(2, 3, 2, 2);
  support::fill_ramp(x, 1);
  support::fill_ramp(y, 2);
  const Tensor sum = graft::add(x, y), positive = graft::relu(x);
  CHECK(sum(1, 2, 1, 1) == x(1, 2, 1, 1) + y(1, 2, 1, 1));
  CHECK(positive(0, 0, 0, 1) == std::max(0.0f, x(0, 0, 0, 1)));
  const Eigen::Tensor<float, 2, Eigen::RowMajor> flat = graft::flatten(x);
  CHECK(flat.dimension(1) == 12);
  CHECK(flat(1, 11) == x(1, 2, 1, 1));
  CHECK_THROWS_AS((void)graft::add(x, Tensor(2, 3, 2, 1)), ShapeError);
  CHECK_THROWS_AS((void)graft::add(x, Tensor(3, 3, 2, 2)), ShapeError);
}

TEST_CASE("rows keep their shape until they are flattened") {
  Batch batch;
  batch.add(2);
  Tensor x(2, 3, 2, 2);
  support::fill_ramp(x, 1);
  const auto rows = batch.input(x);
  CHECK(graft::silu(rows).row_shape() == graft::Shape{3, 2, 2});
  CHECK(graft::flatten(rows).row_shape() == graft::Shape{12});
  CHECK(graft::flatten(rows).value() == rows.value());
  CHECK_THROWS_AS((void)graft::add(rows, graft::flatten(rows)), ShapeError);
  const auto m = batch.input(ramp(2, 5));
  CHECK(graft::concat(m, graft::scale(m, 2)).value().rightCols(5) == ramp(2, 5) * 2);
}
