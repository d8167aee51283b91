#include "graft/kernels/pool.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;
using kernels::PoolGeometry;

static const PoolGeometry golden{.channels = 2,
                                 .height = 5,
                                 .width = 7,
                                 .kernel_height = 3,
                                 .kernel_width = 2,
                                 .stride_height = 2,
                                 .stride_width = 3,
                                 .padding_height = 1,
                                 .padding_width = 1};

// F.max_pool2d(v(1, 2, 5, 7), (3, 2), stride=(2, 3), padding=(1, 1)) and F.avg_pool2d alike; v as in
// conv_test.cpp
TEST_CASE("pooling gives torch's numbers") {
  const auto x = lattice<float>(70);
  REQUIRE(golden.output_height() == 3);
  REQUIRE(golden.output_width() == 3);
  std::vector<float> y(18, 99.0f);
  kernels::max_pool2d(golden, x.data(), y.data());
  CHECK(y == std::vector<float>{1.75, -0.25, 2, 1.75, 1.75, 2, 0.5, 2, 0.75, 1.5, 0.5, 2, 0.25, 1.75, 2, 1.25,
                                1.75, 1.5});
  kernels::avg_pool2d(golden, x.data(), y.data());
  CHECK(close(y,
              {0.41666666666666669, -0.75, 0.75, -0.041666666666666664, 0.375, -0.20833333333333334, 0,
               0.54166666666666663, -0.083333333333333329, -0.041666666666666664, -0.25, 0.54166666666666663,
               -0.375, 0.41666666666666669, -0.16666666666666666, 0.25, -0.375, 0.41666666666666669},
              1e-7));
}

TEST_CASE("NaN wins, and padding does not") {
  const PoolGeometry g{.height = 1, .width = 4, .kernel_height = 1, .kernel_width = 2, .stride_width = 2};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::vector<float>& x :
       {std::vector<float>{nan, 3, -1, -2}, std::vector<float>{3, nan, -1, -2}}) {
    float y[2];
    kernels::max_pool2d(g, x.data(), y);
    CHECK(std::isnan(y[0]));
    CHECK(y[1] == -1);
    kernels::avg_pool2d(g, x.data(), y);
    CHECK(std::isnan(y[0]));
    CHECK(y[1] == -1.5f);
  }
  const PoolGeometry padded{.kernel_height = 2, .kernel_width = 2, .padding_height = 1, .padding_width = 1};
  const double negative[] = {-5};
  double y[4];
  kernels::max_pool2d(padded, negative, y);
  for (const double value : y) CHECK(value == -5);
}

TEST_CASE("a pooling that cannot be is a ShapeError") {
  CHECK_NOTHROW(golden.check());
  const auto refused = [](auto&& change) {
    PoolGeometry g = golden;
    change(g);
    CHECK_THROWS_AS(g.check(), graft::ShapeError);
  };
  refused([](PoolGeometry& g) { g.padding_width = 2; });
  refused([](PoolGeometry& g) { g.padding_height = -1; });
  refused([](PoolGeometry& g) { g.stride_height = 0; });
  refused([](PoolGeometry& g) { g.kernel_height = 8; });
}
