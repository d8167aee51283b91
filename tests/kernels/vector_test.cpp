#include "graft/kernels/vector.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <vector>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

template <class W, class T>
void check_partial_loads() {
  const Matrix<W> x(1, 2 * kernels::lanes<T>, 5);
  for (Index count = 1; count <= kernels::lanes<T>; ++count) {
    std::vector<W> exactly(x.data(), x.data() + count);  // a byte too far is the sanitizer's to find
    const auto v = kernels::load_some(exactly.data(), count);
    for (Index i = 0; i < kernels::lanes<T>; ++i) CHECK(double(v[i]) == (i < count ? x.at(0, i) : 0.0));
  }
}

template <class T>
void check_partial_stores() {
  const Matrix<T> x(1, kernels::lanes<T>, 6);
  for (Index count = 1; count <= kernels::lanes<T>; ++count) {
    Matrix<T> y(1, count, 7);
    kernels::store_some(y.data(), kernels::load(x.data()), count);
    for (Index i = 0; i < count; ++i) CHECK(y(0, i) == x(0, i));
    CHECK(y.gaps_are_intact());
  }
}

template <class W>
void check_widening() {
  for (std::uint32_t first = 0; first < 0x10000; first += std::uint32_t(kernels::lanes<float>)) {
    std::vector<W> narrow;
    for (Index i = 0; i < kernels::lanes<float>; ++i)
      narrow.push_back(W::from_bits(std::uint16_t(first + std::uint32_t(i))));
    const auto wide = kernels::load(narrow.data());
    bool equal = true;
    for (Index i = 0; i < kernels::lanes<float>; ++i) {
      const float expected = float(narrow[std::size_t(i)]), got = wide[i];
      equal = equal && (std::isnan(expected)
                            ? std::isnan(got)
                            : std::bit_cast<std::uint32_t>(got) == std::bit_cast<std::uint32_t>(expected));
    }
    REQUIRE(equal);
  }
}

}  // namespace

TEST_CASE("a partial load reads its elements and zeros") {
  check_partial_loads<float, float>();
  check_partial_loads<double, double>();
  check_partial_loads<graft::bf16, float>();
  check_partial_loads<graft::f16, float>();
}

TEST_CASE("a partial store writes its elements and nothing behind them") {
  check_partial_stores<float>();
  check_partial_stores<double>();
}

TEST_CASE("all narrow values widen to what they are") {
  check_widening<graft::bf16>();
  check_widening<graft::f16>();
}

TEST_CASE("broadcast keeps the sign of zero") { CHECK(std::signbit(float(kernels::broadcast(-0.0f)[0]))); }

TEST_CASE("for_each_register covers every element once") {
  for (const Index count : awkward) {
    std::vector<int> seen(std::size_t(count), 0);
    kernels::for_each_register<float>(count, [&](Index o, Index here) {
      for (Index i = o; i < o + here; ++i) ++seen[std::size_t(i)];
    });
    CHECK(seen == std::vector<int>(std::size_t(count), 1));
  }
}
