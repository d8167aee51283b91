#include "graft/kernels/widen.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;

template <class T, class W>
static void check_widen() {
  for (const Index count : awkward) {
    const Matrix<W> x(1, count, 1);
    Matrix<T> y(1, count, 2);
    graft::kernels::widen<T, W>(count, x.data(), y.data());
    for (Index i = 0; i < count; ++i) CHECK(double(y(0, i)) == x.at(0, i));
    CHECK(y.gaps_are_intact());
  }
}

TEST_CASE("widen keeps every value") {
  check_widen<float, float>();
  check_widen<double, double>();
  check_widen<float, graft::bf16>();
  check_widen<float, graft::f16>();
}
