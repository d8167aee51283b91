#include "graft/kernels/random.hpp"

#include <doctest/doctest.h>

#include <array>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

/// Philox4x32-10 by plain loops.
std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter, std::uint64_t stream) {
  std::uint32_t x[4] = {std::uint32_t(counter), std::uint32_t(counter >> 32), std::uint32_t(stream), std::uint32_t(stream >> 32)};
  std::uint32_t k[2] = {std::uint32_t(key), std::uint32_t(key >> 32)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p = 0xD2511F53ull * x[0], q = 0xCD9E8D57ull * x[2];
    const std::uint32_t next[4] = {std::uint32_t(q >> 32) ^ x[1] ^ k[0], std::uint32_t(q), std::uint32_t(p >> 32) ^ x[3] ^ k[1],
                                   std::uint32_t(p)};
    std::copy(next, next + 4, x);
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return {x[0], x[1], x[2], x[3]};
}
double unit(std::uint32_t high, std::uint32_t low) { return double((std::uint64_t{high} << 32 | low) >> 11) * 0x1p-53; }

struct Place {
  std::uint64_t key, stream, first;
};
const Place places[] = {{0, 0, 0},
                        {0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88},
                        {~0ull, ~0ull, 0xfffffff0},          // counters over 32 bits
                        {3, 0x13198a2e03707344, 0x1ffffffefull},  // over 32 bits where two numbers take one, from an odd number on
                        {7, 0xaf63dc4c8601ec8c, ~0ull - 5}};  // and over 64

template <class T>
void check_uniform(const Place& place, Index count) {
  CAPTURE(count);
  const double bound = 0.3;
  std::vector<T> y(std::size_t(count) + 2, T(99));
  kernels::random_uniform<T>(place.key, place.stream, place.first, count, bound, y.data() + 1);  // at an odd address
  bool all = true;
  for (Index i = 0; i < count; ++i) {
    const std::uint64_t number = place.first % 2 + std::uint64_t(i);
    const auto words = philox(place.key, place.first / 2 + number / 2, place.stream);
    const double u = number % 2 ? unit(words[2], words[3]) : unit(words[0], words[1]);
    all = all && y[std::size_t(i) + 1] == T((2 * u - 1) * bound);
  }
  CHECK(all);
  CHECK(y.front() == T(99));
  CHECK(y.back() == T(99));
}

}  // namespace

TEST_CASE("the reference gives a known answer of Random123") {
  CHECK(philox(0, 0, 0) == std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
}

TEST_CASE("random_uniform has the bits of the plain loop, wherever it starts and ends") {
  for (const Place& place : places)
    for (const Index count : {0, 1, 3, 7, 8, 13, 31, 33, 63, 65, 97}) {
      check_uniform<float>(place, count);
      check_uniform<double>(place, count);
    }
}

TEST_CASE("random_units has the bits of the plain loop") {
  for (const Place& place : places)
    for (const Index count : {1, 5, 13, 33, 97}) {
      std::vector<double> u(std::size_t(count) + 1, 99.0), v = u;
      kernels::random_units(place.key, place.stream, place.first, count, u.data(), v.data());
      bool all = true;
      for (Index i = 0; i < count; ++i) {
        const auto words = philox(place.key, place.first + std::uint64_t(i), place.stream);
        all = all && u[std::size_t(i)] == unit(words[0], words[1]) && v[std::size_t(i)] == unit(words[2], words[3]);
      }
      CHECK(all);
      CHECK(u.back() == 99.0);
      CHECK(v.back() == 99.0);
    }
}
