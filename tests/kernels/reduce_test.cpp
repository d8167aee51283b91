#include "graft/kernels/reduce.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

#define GRAFT_KERNELS "kernels/reduce_checks.inc"
#include "graft/kernels/for_each_isa.inc"

using namespace reference;

namespace graft::kernels {

// Eight registers of numbers whose sums round. Two orders of adding them up agree often, but not over a hundred draws.
template <class T>
static reference::Matrix<T> registers(std::uint64_t seed) {
  reference::Matrix<T> x(8, GRAFT_DISPATCH(reduce_checks::width<T>()), seed);
  for (Index i = 0; i < x.rows; ++i)
    for (Index j = 0; j < x.cols; ++j) x(i, j) /= T(3);
  return x;
}

template <class T>
static void check_sums() {
  const reference::Matrix<T> x = registers<T>(1);
  const Index lanes = x.cols;
  T sums[4];
  GRAFT_DISPATCH(reduce_checks::four_sums(&x(0, 0), &x(1, 0), &x(2, 0), &x(3, 0), sums));
  for (Index i = 0; i < 4; ++i) {
    Sum expected;
    T largest = x(i, 0);
    for (Index j = 0; j < lanes; ++j) {
      expected.add(x.at(i, j));
      largest = std::max(largest, x(i, j));
    }
    CHECK(expected.fits(sums[i]));
    CHECK(GRAFT_DISPATCH(reduce_checks::sum_of(&x(i, 0))) == sums[i]);  // the same order in each of the four places
    CHECK(GRAFT_DISPATCH(reduce_checks::largest_of(&x(i, 0))) == largest);
  }
}

template <class T>
static void check_two_by_four() {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    const reference::Matrix<T> x = registers<T>(seed);
    T sums[2][4];
    GRAFT_DISPATCH(reduce_checks::eight_sums(x.data(), x.ld, sums[0], sums[1]));
    for (Index i = 0; i < 8; ++i) CHECK(sums[i / 4][i % 4] == GRAFT_DISPATCH(reduce_checks::sum_of(&x(i, 0))));
  }
}

TEST_CASE("eight registers reduce to the sums of each alone") {
  check_two_by_four<float>();
  check_two_by_four<double>();
}

TEST_CASE("four registers reduce to four sums, all in one order") {
  check_sums<float>();
  check_sums<double>();
}

}  // namespace graft::kernels
