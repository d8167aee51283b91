#include "graft/kernels/pool_backward.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;
using kernels::PoolGeometry;

namespace {

const PoolGeometry geometries[] = {
    {.channels = 2, .height = 5, .width = 7, .kernel_height = 3, .kernel_width = 2, .stride_height = 2, .stride_width = 3,
     .padding_height = 1, .padding_width = 1},
    {.channels = 3, .height = 13, .width = 4, .kernel_height = 2, .kernel_width = 3, .stride_height = 3, .stride_width = 1,
     .padding_height = 1},
    {.height = 7, .width = 7},
    {.channels = 2, .height = 3, .width = 5, .kernel_height = 3, .kernel_width = 5},
};
Index outputs(const PoolGeometry& g) { return g.channels * g.output_height() * g.output_width(); }

// Different multiples of 1/4 in no order; 37 divides none of the counts.
std::vector<double> apart(Index count) {
  std::vector<double> x;
  for (Index i = 0; i < count; ++i) x.push_back(double((i * 37 + 11) % count) / 4);
  return x;
}

// Both poolings are linear as long as no other value becomes the largest: differences by 1/16 have the roundings of means only.
template <class Forward>
std::vector<double> differences(const PoolGeometry& g, const std::vector<double>& dy, Forward&& forward) {
  std::vector<double> x = apart(g.channels * g.height * g.width), y(dy.size()), slopes;
  const auto loss = [&] {
    forward(x.data(), y.data());
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum;
  };
  for (double& value : x) {
    const double kept = value;
    value = kept + 0.0625;
    const double above = loss();
    value = kept - 0.0625;
    slopes.push_back((above - loss()) / 0.125);
    value = kept;
  }
  return slopes;
}

template <class T>
void check(const PoolGeometry& g) {
  g.check();
  const auto dy = lattice<double>(outputs(g)), x = apart(g.channels * g.height * g.width);
  const auto max = differences(g, dy, [&](const double* from, double* to) { kernels::max_pool2d(g, from, to); }),
             mean = differences(g, dy, [&](const double* from, double* to) { kernels::avg_pool2d(g, from, to); });
  std::vector<T> narrow_x, narrow_dy, of_max(x.size(), T(0.5)), of_mean(x.size(), T(0.5));
  for (const double value : x) narrow_x.push_back(T(value));
  for (const double value : dy) narrow_dy.push_back(T(value));
  kernels::max_pool2d_backward(g, narrow_x.data(), narrow_dy.data(), of_max.data());
  kernels::avg_pool2d_backward(g, narrow_dy.data(), of_mean.data());
  for (std::vector<T>* all : {&of_max, &of_mean})
    for (T& value : *all) value -= T(0.5);
  CHECK(of_max != std::vector<T>(x.size()));
  CHECK(close(of_max, max, 0));
  CHECK(close(of_mean, mean, std::is_same_v<T, double> ? 1e-13 : 1e-6));
}

}  // namespace

TEST_CASE("the gradients of poolings are central differences") {
  for (const PoolGeometry& g : geometries) {
    check<double>(g);
    check<float>(g);
  }
}

// x = [[1, nan, 3, 4], [nan, 9, 7, 7], [2, 2, -inf, 5], [-inf] * 4], dy = ramp(1, 1, 3, 3, salt=2) of support/ramp.hpp:
// F.max_pool2d(x, 2, stride=1), then F.max_pool2d(x, 2, stride=2, padding=1)
TEST_CASE("of equal values the first, of NaNs the last and of minus infinities the first has the gradient, as in torch") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), low = -std::numeric_limits<double>::infinity();
  const std::vector<double> x{1, nan, 3, 4, nan, 9, 7, 7, 2, 2, low, 5, low, low, low, low},
      dy{1.375, 0.25, -0.875, 0.875, -0.25, -1.375, 0.375, -0.75, 1};
  PoolGeometry g{.height = 4, .width = 4, .kernel_height = 2, .kernel_width = 2};
  std::vector<double> dx(16);
  kernels::max_pool2d_backward(g, x.data(), dy.data(), dx.data());
  CHECK(dx == std::vector<double>{0, 0.25, 0, 0, 2.25, -0.25, -2.25, 0, 0.375, -0.75, 0, 1, 0, 0, 0, 0});
  g.stride_height = g.stride_width = 2;
  g.padding_height = g.padding_width = 1;
  dx.assign(16, 0);
  kernels::max_pool2d_backward(g, x.data(), dy.data(), dx.data());
  CHECK(dx == std::vector<double>{1.375, 0.25, 0, -0.875, 0.875, -0.25, 0, -1.375, 0, 0, 0, 0, 0.375, -0.75, 0, 1});
}
