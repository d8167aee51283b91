#include <graft/modules/random_fill.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

using graft::Dtype;
using graft::ParameterData;

namespace {
std::vector<double> values_of(const ParameterData& parameter) {
  std::vector<double> values;
  for (graft::Index i = 0; i < parameter.shape().size(); ++i)
    values.push_back(graft::element_as<double>(parameter.dtype(), parameter.data(), std::size_t(i)));
  return values;
}
std::vector<double> uniform(std::uint64_t seed, std::string_view name, graft::Index count, Dtype dtype = Dtype::f64) {
  ParameterData parameter(dtype, {count});
  graft::fill_uniform(parameter, {seed, name}, 0.5);
  return values_of(parameter);
}
std::vector<double> normal(std::uint64_t seed, std::string_view name, graft::Index count, double deviation) {
  ParameterData parameter(Dtype::f64, {count});
  graft::fill_normal(parameter, {seed, name}, deviation);
  return values_of(parameter);
}
/// The mean of the values' powers.
double moment(const std::vector<double>& values, int power) {
  double sum = 0;
  for (const double value : values) sum += std::pow(value, power);
  return sum / double(values.size());
}
}  // namespace

TEST_CASE("values are those of the plain generator, bit by bit, in every dtype and for every length") {
  for (const graft::Index count : {1, 7, 13, 255, 256, 257, 601})
    for (const Dtype dtype : {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16}) {
      ParameterData plain(dtype, {count}), plain_normal(dtype, {count}), drawn(dtype, {count}), drawn_normal(dtype, {count});
      for (ParameterData* parameter : {&plain, &plain_normal}) parameter->allocate();
      const auto put = [&](ParameterData& to, graft::Index i, double value) {
        if (dtype == Dtype::f64) graft::detail::store<double>(to, i, value);
        else if (dtype == Dtype::f32) graft::detail::store<float>(to, i, value);
        else if (dtype == Dtype::f16) graft::detail::store<graft::f16>(to, i, value);
        else graft::detail::store<graft::bf16>(to, i, value);
      };
      graft::detail::for_each_uniform({7, "q.lora_A"}, count, [&](graft::Index i, double u) { put(plain, i, (2 * u - 1) * 0.3); });
      graft::detail::for_each_random({7, "q.lora_A"}, count, [&](graft::Index i, auto u) {
        put(plain_normal, i, 0.02 * std::sqrt(-2 * std::log1p(-u[0])) * std::cos(2 * std::numbers::pi * u[1]));
      });
      graft::fill_uniform(drawn, {7, "q.lora_A"}, 0.3);
      graft::fill_normal(drawn_normal, {7, "q.lora_A"}, 0.02);
      CHECK(std::memcmp(drawn.data(), plain.data(), plain.bytes()) == 0);
      CHECK(std::memcmp(drawn_normal.data(), plain_normal.data(), plain.bytes()) == 0);
      CHECK(std::memcmp(drawn.data(), drawn_normal.data(), plain.bytes()) != 0);
    }
  ParameterData empty(Dtype::f32, {0, 3});
  CHECK_NOTHROW(graft::fill_normal(empty, {1, "w"}, 1));
  CHECK_NOTHROW(graft::fill_uniform(empty, {1, "w"}, 1));
}

TEST_CASE("values depend on seed, name and index alone") {
  const auto some = uniform(7, "q.lora_A", 5), more = uniform(7, "q.lora_A", 13);
  CHECK(std::equal(some.begin(), some.end(), more.begin()));
  CHECK(uniform(8, "q.lora_A", 5) != some);
  CHECK(uniform(7, "k.lora_A", 5) != some);
  CHECK(uniform(7, "q.lora_A", 5) == some);
}

TEST_CASE("uniform values fill [-bound, bound)") {
  const auto values = uniform(3, "w", 40000);
  for (const double value : values) {
    REQUIRE(value >= -0.5);
    REQUIRE(value < 0.5);
  }
  // standard errors: 0.0014 of the mean, 0.0004 of the mean square 1/12
  CHECK(std::abs(moment(values, 1)) < 0.006);
  CHECK(std::abs(moment(values, 2) - 1.0 / 12) < 0.002);
}

TEST_CASE("normal values have the deviation and the tails") {
  const auto values = normal(3, "w", 40000, 0.02);
  CHECK(std::abs(moment(values, 1)) < 0.0004);
  CHECK(std::abs(moment(values, 2) / 4e-4 - 1) < 0.03);
  CHECK(std::abs(moment(values, 3) / 8e-6) < 0.05);
  CHECK(std::abs(moment(values, 4) / 16e-8 - 3) < 0.2);
  for (const double value : values) REQUIRE(std::isfinite(value));
}

TEST_CASE("narrow parameters hold the same values, rounded once") {
  const auto exact = uniform(3, "w", 100);
  const auto floats = uniform(3, "w", 100, Dtype::f32), halves = uniform(3, "w", 100, Dtype::bf16);
  for (std::size_t i = 0; i < exact.size(); ++i) {
    CHECK(floats[i] == double(float(exact[i])));
    CHECK(halves[i] == double(float(graft::bf16(float(exact[i])))));
  }
  CHECK(uniform(3, "w", 100, Dtype::f16)[0] == double(float(graft::f16(float(exact[0])))));
}
