#include "graft/kernels/column_sums.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

TEST_CASE_TEMPLATE("column sums are added, at every size", T, float, double) {
  for (const Index n : {Index(1), Index(7), Index(31), Index(33), Index(97)})
    for (const Index cols : {Index(1), Index(3), Index(7), Index(13), Index(33), Index(97), Index(131), Index(259)}) {
      CAPTURE(n);
      CAPTURE(cols);
      const Matrix<T> x(n, cols, 1);
      Matrix<T> y(1, cols, 2);
      const Matrix<T> before = y;
      kernels::add_column_sums<T>(n, cols, x.data(), x.ld, y.data());
      for (Index c = 0; c < cols; ++c) {
        Sum sum;
        sum.add(before.at(0, c));
        for (Index i = 0; i < n; ++i) sum.add(x.at(i, c));
        CHECK(sum.fits(y(0, c)));
      }
      CHECK(y.gaps_are_intact());
      const Matrix<T> z(n, cols, 3);
      y = before;
      kernels::add_column_dots<T>(n, cols, x.data(), x.ld, z.data(), z.ld, y.data());
      for (Index c = 0; c < cols; ++c) {
        Sum sum;
        sum.add(before.at(0, c));
        for (Index i = 0; i < n; ++i) sum.add(double(x.at(i, c)) * double(z.at(i, c)));
        CHECK(sum.fits(y(0, c)));
      }
      CHECK(y.gaps_are_intact());
    }
}

TEST_CASE("their error does not grow with the rows") {
  // ones and a little: a float that counts one by one stands still at 2^24
  const Index n = (1 << 24) + 4096;
  const float one = 1;
  float sum = 0;
  kernels::add_column_sums<float>(n, 1, &one, 0, &sum);
  CHECK(sum == float(n));
}

TEST_CASE("no rows add nothing") {
  float y[] = {3, 4};
  kernels::add_column_sums<float>(0, 2, nullptr, 2, y);
  CHECK(y[0] == 3);
  CHECK(y[1] == 4);
}
