#include "graft/kernels/transcendental.hpp"

#include <doctest/doctest.h>

#include <bit>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

// Units in the last place between y and the double that it stands for.
double error_in_units(float y, double exact) {
  if (std::isinf(y)) return float(exact) == y ? 0 : 1e9;
  const float rounded = float(exact);
  const double unit =
      std::max(double(std::nextafter(std::abs(rounded), INFINITY)) - std::abs(rounded), 0x1p-149);
  return std::abs(double(y) - exact) / unit;
}

template <class F>
float one_lane(F&& f, float x) {
  return f(kernels::broadcast(x))[0];
}

float exp_of(float x) {
  return one_lane([](kernels::Vector<float> v) { return kernels::exp(v); }, x);
}
float tanh_of(float x) {
  return one_lane([](kernels::Vector<float> v) { return kernels::tanh(v); }, x);
}
float erf_of(float x) {
  return one_lane([](kernels::Vector<float> v) { return kernels::erf(v); }, x);
}

}  // namespace

TEST_CASE("exp is within 2 units in the last place, from underflow to overflow") {
  double worst = 0;
  for (float x = -103.9f; x < 88.7f; x += 0.00317f)
    worst = std::max(worst, error_in_units(exp_of(x), std::exp(double(x))));
  CHECK(worst < 2);
  CHECK(exp_of(0.0f) == 1.0f);
  CHECK(exp_of(1e-20f) == 1.0f);
}

TEST_CASE("tanh is within 4 units in the last place") {
  double worst = 0;
  for (float x = -10; x < 10; x += 0.00113f)
    worst = std::max(worst, error_in_units(tanh_of(x), std::tanh(double(x))));
  for (float x = 1e-30f; x < 1; x *= 1.7f)
    worst = std::max(worst, error_in_units(tanh_of(x), std::tanh(double(x))));
  CHECK(worst < 4);
}

TEST_CASE("erf is within 8 units in the last place") {
  double worst = 0;
  for (float x = -5; x < 5; x += 0.00113f)
    worst = std::max(worst, error_in_units(erf_of(x), std::erf(double(x))));
  for (float x = 1e-30f; x < 1; x *= 1.7f)
    worst = std::max(worst, error_in_units(erf_of(x), std::erf(double(x))));
  CHECK(worst < 8);
}

TEST_CASE("infinities give the limits and NaN stays NaN") {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(exp_of(inf) == inf);
  CHECK(exp_of(100.0f) == inf);
  CHECK(exp_of(-inf) == 0);
  CHECK(exp_of(-110.0f) == 0);
  CHECK(tanh_of(inf) == 1);
  CHECK(tanh_of(-inf) == -1);
  CHECK(std::abs(erf_of(inf) - 1) < 1e-6f);
  CHECK(std::abs(erf_of(-inf) + 1) < 1e-6f);
  CHECK(std::isnan(exp_of(nan)));
  CHECK(std::isnan(tanh_of(nan)));
  CHECK(std::isnan(erf_of(nan)));
}

TEST_CASE("double is the standard library's, in every lane") {
  kernels::Vector<double> x;
  for (Index i = 0; i < kernels::lanes<double>; ++i) x[i] = 0.3 * double(i) - 0.5;
  const auto e = kernels::exp(x), t = kernels::tanh(x), f = kernels::erf(x);
  for (Index i = 0; i < kernels::lanes<double>; ++i) {
    // Not ==: the compiler may know a lane's value better than the library computes it.
    CHECK(std::abs(e[i] - std::exp(x[i])) < 1e-15);
    CHECK(std::abs(t[i] - std::tanh(x[i])) < 1e-15);
    CHECK(std::abs(f[i] - std::erf(x[i])) < 1e-15);
  }
}
