#include "graft/kernels/reduce.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

template <class T>
static void check_sums() {
  const Index lanes = kernels::lanes<T>;
  const Matrix<T> x(4, lanes, 1);
  T sums[4];
  kernels::detail::sums_of_4(kernels::load(&x(0, 0)), kernels::load(&x(1, 0)), kernels::load(&x(2, 0)),
                             kernels::load(&x(3, 0)), sums);
  for (Index i = 0; i < 4; ++i) {
    Sum expected;
    T largest = x(i, 0);
    for (Index j = 0; j < lanes; ++j) {
      expected.add(x.at(i, j));
      largest = std::max(largest, x(i, j));
    }
    CHECK(expected.fits(sums[i]));
    const kernels::Vector<T> v = kernels::load(&x(i, 0));
    CHECK(kernels::sum_of_lanes<T>(v) == sums[i]);  // the same order in each of the four places
    CHECK(kernels::largest_lane<T>(v) == largest);
  }
}

TEST_CASE("four registers reduce to four sums, all in one order") {
  check_sums<float>();
  check_sums<double>();
}
