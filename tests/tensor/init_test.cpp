#include <doctest/doctest.h>

#include <cmath>
#include <graft/tensor/init.hpp>
#include <vector>

using graft::Dtype;
using graft::ParameterData;

namespace {
using Words = std::array<std::uint32_t, 4>;

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

TEST_CASE("Philox4x32-10 gives the known answers of its authors") {
  using graft::detail::philox;  // kat_vectors of Random123: counter and key of zeros, of ones, of the digits of pi
  static_assert(philox(0, 0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  static_assert(philox(~0ull, ~0ull, ~0ull) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  static_assert(philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e) ==
                Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a name's stream is its FNV-1a hash") {
  static_assert(graft::detail::stream_of("") == 0xcbf29ce484222325);
  static_assert(graft::detail::stream_of("a") == 0xaf63dc4c8601ec8c);
  static_assert(graft::detail::stream_of("foobar") == 0x85944171f73967e8);
}

TEST_CASE("unit numbers are in [0, 1)") {
  static_assert(graft::detail::unit(0, 0) == 0);
  static_assert(graft::detail::unit(~0u, ~0u) < 1);
  static_assert(graft::detail::unit(1u << 31, 0) == 0.5);
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

TEST_CASE("a constant stands everywhere, and borrowed memory is left alone") {
  std::vector<float> memory{5, 5};
  ParameterData parameter(Dtype::f32, {2});
  parameter.borrow(reinterpret_cast<std::byte*>(memory.data()), nullptr);
  graft::fill_constant(parameter, 1.5);
  CHECK(values_of(parameter) == std::vector<double>{1.5, 1.5});
  graft::fill_constant(parameter, 0);
  CHECK(values_of(parameter) == std::vector<double>{0, 0});
  CHECK(memory == std::vector<float>{5, 5});
  ParameterData empty(Dtype::f32, {0, 3});
  CHECK_NOTHROW(graft::fill_normal(empty, {1, "w"}, 1));
}
