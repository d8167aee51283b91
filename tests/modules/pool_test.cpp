#include <graft/modules/pool.hpp>

#include <cmath>

#include <doctest/doctest.h>

#include "support/recorded_shape.hpp"

namespace {
using Tensor = Eigen::Tensor<double, 4, Eigen::RowMajor>;

// x = torch.sin(0.7 * torch.arange(210).double() + 0.3).reshape(2, 3, 7, 5); picked: y.flatten()[[0, n // 3, n // 2, n - 1]]
Tensor input() {
  Tensor x(2, 3, 7, 5);
  for (graft::Index k = 0; k < x.size(); ++k) x.data()[k] = std::sin(0.7 * double(k) + 0.3);
  return x;
}

void check(const Tensor& y, const Eigen::array<graft::Index, 4>& shape, const double (&picked)[4], double sum) {
  REQUIRE(y.dimensions() == Tensor::Dimensions(shape));
  const graft::Index n = y.size(), places[4] = {0, n / 3, n / 2, n - 1};
  for (int i = 0; i < 4; ++i) CHECK(y.data()[places[i]] == doctest::Approx(picked[i]).epsilon(1e-11));
  double total = 0;
  for (graft::Index i = 0; i < n; ++i) total += std::abs(y.data()[i]);
  CHECK(total == doctest::Approx(sum).epsilon(1e-12));
}
}  // namespace

TEST_CASE("pooling: torch's outputs") {
  const Tensor x = input();
  check(graft::max_pool2d(x, {.kernel = {3, 2}, .stride = 2, .padding = 1}), {2, 3, 4, 3},
        {0.29552020666134, 0.570467633637378, 0.945724331330235, 0.983109020397634}, 55.9673240830618);
  check(graft::avg_pool2d(x, {.kernel = {3, 2}, .stride = 2, .padding = 1}), {2, 3, 4, 3},
        {-0.0527229473802299, -0.0419759844160189, -0.00898326037123398, 0.00148035213809903}, 7.48034904742817);
  check(graft::max_pool2d(x, {.kernel = 2}), {2, 3, 3, 2},
        {0.841470984807897, 0.570467633637378, 0.945724331330235, 0.62092582066232}, 28.1691680123507);
}

TEST_CASE("pooling: Rows keep their batch, and the tensor's bits") {
  const Tensor x = input(), y = graft::max_pool2d(x, {.kernel = 2});
  graft::Batch batch;
  batch.add(2);
  const graft::Rows<double> rows = graft::max_pool2d(batch.input(x), {.kernel = 2});
  CHECK(rows.row_shape() == graft::Shape{3, 3, 2});
  CHECK(std::equal(y.data(), y.data() + y.size(), rows.value().data()));
}

TEST_CASE("pooling: rows without a height and a width are a ShapeError") {
  graft::Batch batch;
  batch.add(2);
  const graft::Matrix<float> flat = graft::Matrix<float>::Zero(2, 9);
  CHECK_THROWS_AS((void)graft::max_pool2d(batch.input(flat), {.kernel = 2}), graft::ShapeError);
  CHECK_THROWS_AS((void)graft::max_pool2d(input(), {.kernel = 9}), graft::ShapeError);
}

TEST_CASE("pooling: a value of training goes with the op to whoever records it") {
  CHECK(graft::max_pool2d(support::ShapedRecording{}, {.kernel = 2}));
}
