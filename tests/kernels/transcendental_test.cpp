#include "graft/kernels/transcendental.hpp"

#include <doctest/doctest.h>

#include <bit>

#include "reference.hpp"

#define GRAFT_KERNELS "kernels/transcendental_checks.inc"
#include "graft/kernels/for_each_isa.inc"

using namespace reference;

namespace graft::kernels {

namespace {

// Units in the last place between y and the double that it stands for.
double error_in_units(float y, double exact) {
  if (std::isinf(y)) return float(exact) == y ? 0 : 1e9;
  const float rounded = float(exact);
  const double unit =
      std::max(double(std::nextafter(std::abs(rounded), INFINITY)) - std::abs(rounded), 0x1p-149);
  return std::abs(double(y) - exact) / unit;
}

template <class T>
T exp_of(T x) {
  return GRAFT_DISPATCH(transcendental_checks::value('e', x));
}
template <class T>
T tanh_of(T x) {
  return GRAFT_DISPATCH(transcendental_checks::value('t', x));
}
template <class T>
T erf_of(T x) {
  return GRAFT_DISPATCH(transcendental_checks::value('f', x));
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

TEST_CASE("double is the standard library's") {
  for (double x = -0.5; x < 2.5; x += 0.3) {
    // Not ==: the compiler may know a lane's value better than the library computes it.
    CHECK(std::abs(exp_of(x) - std::exp(x)) < 1e-14);
    CHECK(std::abs(tanh_of(x) - std::tanh(x)) < 1e-15);
    CHECK(std::abs(erf_of(x) - std::erf(x)) < 1e-15);
  }
}

}  // namespace graft::kernels
