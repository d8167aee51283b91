#include "graft/kernels/transpose.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;

template <class T>
static void check_transpose(Index rows, Index cols) {
  const Matrix<T> x(rows, cols, 1);
  Matrix<T> y(cols, rows, 2);
  graft::kernels::transpose(rows, cols, x.data(), x.ld, y.data(), y.ld);
  bool equal = true;
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j) equal = equal && y(j, i) == x(i, j);
  CHECK(equal);
  CHECK(y.gaps_are_intact());
}

TEST_CASE("transpose moves every element to its place") {
  for (const Index rows : awkward)
    for (const Index cols : awkward) {
      check_transpose<float>(rows, cols);
      check_transpose<double>(rows, cols);
    }
}
