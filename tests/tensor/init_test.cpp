#include <doctest/doctest.h>

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

TEST_CASE("every element has two numbers of its own, by seed, name and index") {
  std::vector<std::array<double, 2>> drawn;
  graft::detail::for_each_random({7, "q"}, 3, [&](graft::Index i, auto u) {
    CHECK(i == graft::Index(drawn.size()));
    drawn.push_back(u);
  });
  REQUIRE(drawn.size() == 3);
  const auto words = graft::detail::philox(7, 2, graft::detail::stream_of("q"));
  CHECK(drawn[2] == std::array<double, 2>{graft::detail::unit(words[0], words[1]), graft::detail::unit(words[2], words[3])});
  CHECK(drawn[1] != drawn[2]);
}

TEST_CASE("a uniform draw takes two numbers of each counter") {
  std::vector<double> drawn;
  graft::detail::for_each_uniform({7, "q"}, 5, [&](graft::Index i, double u) {
    CHECK(i == graft::Index(drawn.size()));
    drawn.push_back(u);
  });
  REQUIRE(drawn.size() == 5);
  const auto words = [](std::uint64_t counter) { return graft::detail::philox(7, counter, graft::detail::stream_of("q")); };
  CHECK(drawn[2] == graft::detail::unit(words(1)[0], words(1)[1]));
  CHECK(drawn[3] == graft::detail::unit(words(1)[2], words(1)[3]));
  CHECK(drawn[4] == graft::detail::unit(words(2)[0], words(2)[1]));
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
  CHECK_NOTHROW(graft::fill_constant(empty, 1));
}
