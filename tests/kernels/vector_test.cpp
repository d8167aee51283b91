#include "graft/kernels/vector.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <vector>

#include "reference.hpp"

#define GRAFT_KERNELS "kernels/vector_checks.inc"
#include "graft/kernels/for_each_isa.inc"

using namespace reference;

namespace graft::kernels {
namespace {

template <class W, class T>
void check_partial_loads() {
  const Index width = GRAFT_DISPATCH(vector_checks::width<W>());
  const reference::Matrix<W> x(1, 2 * width, 5);
  for (Index count = 1; count <= width; ++count) {
    std::vector<W> exactly(x.data(), x.data() + count);  // a byte too far is the sanitizer's to find
    std::vector<T> y(std::size_t(width), T(9));
    GRAFT_DISPATCH(vector_checks::load_to(exactly.data(), count, y.data()));
    for (Index i = 0; i < width; ++i) CHECK(double(y[std::size_t(i)]) == (i < count ? x.at(0, i) : 0.0));
  }
}

template <class T>
void check_partial_stores() {
  const Index width = GRAFT_DISPATCH(vector_checks::width<T>());
  const reference::Matrix<T> x(1, width, 6);
  for (Index count = 1; count <= width; ++count) {
    reference::Matrix<T> y(1, count, 7);
    GRAFT_DISPATCH(vector_checks::store_from(x.data(), count, y.data()));
    for (Index i = 0; i < count; ++i) CHECK(y(0, i) == x(0, i));
    CHECK(y.gaps_are_intact());
  }
}

template <class W>
void check_widening() {
  const Index width = GRAFT_DISPATCH(vector_checks::width<W>());
  std::vector<float> wide(std::size_t(width), 0.0f);
  for (std::uint32_t first = 0; first < 0x10000; first += std::uint32_t(width)) {
    std::vector<W> narrow;
    for (Index i = 0; i < width; ++i) narrow.push_back(W::from_bits(std::uint16_t(first + std::uint32_t(i))));
    GRAFT_DISPATCH(vector_checks::load_to(narrow.data(), width, wide.data()));
    bool equal = true;
    for (std::size_t i = 0; i < wide.size(); ++i) {
      const float expected = float(narrow[i]), got = wide[i];
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
  check_partial_loads<bf16, float>();
  check_partial_loads<f16, float>();
}

TEST_CASE("a partial store writes its elements and nothing behind them") {
  check_partial_stores<float>();
  check_partial_stores<double>();
}

TEST_CASE("all narrow values widen to what they are") {
  check_widening<bf16>();
  check_widening<f16>();
}

TEST_CASE("broadcast keeps the sign of zero") {
  CHECK(std::signbit(GRAFT_DISPATCH(vector_checks::broadcast_one(-0.0f))));
}

TEST_CASE("multiply_add rounds once where the instruction set can") {
  // (1 + e)(1 - e) - 1 = -e^2, which two roundings lose
  const float e = 0x1p-13f, fused = GRAFT_DISPATCH(vector_checks::multiply_add_one(1 + e, 1 - e, -1.0f));
  const double d = 0x1p-30, fused_double = GRAFT_DISPATCH(vector_checks::multiply_add_one(1 + d, 1 - d, -1.0));
  if (isa() != Isa::baseline) {
    CHECK(fused == -e * e);
    CHECK(fused_double == -d * d);
  } else {
    CHECK((fused == 0 || fused == -e * e));
    CHECK((fused_double == 0 || fused_double == -d * d));
  }
}

TEST_CASE("for_each_register covers every element once") {
  for (const Index count : awkward) {
    std::vector<int> seen(std::size_t(count), 0);
    GRAFT_DISPATCH(vector_checks::count_visits(count, seen.data()));
    CHECK(seen == std::vector<int>(std::size_t(count), 1));
  }
}

}  // namespace graft::kernels
