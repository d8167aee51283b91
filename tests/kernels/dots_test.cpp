#include "graft/kernels/dots.hpp"

#include <vector>

#include <doctest/doctest.h>

#include "reference.hpp"

#define GRAFT_KERNELS "kernels/dots_checks.inc"
#include "graft/kernels/for_each_isa.inc"

using namespace reference;

namespace graft::kernels {

template <class T>
static void check_tiles(Index n, Index cols, Index k, bool has_bias, bool accumulate, bool fetches) {
  CAPTURE(n);
  CAPTURE(cols);
  CAPTURE(k);
  const Matrix<T> x(n, k, 1, 3), w(cols, k, 2, 5), bias(1, cols, 3);
  Matrix<T> y(n, cols, 4, 2);
  const Matrix<T> before = y;
  const T* const b = has_bias ? bias.data() : nullptr;
  GRAFT_DISPATCH(dots_checks::tiles(n, cols, k, x.data(), x.ld, w.data(), w.ld, b, y.data(), y.ld, accumulate, fetches));
  for (Index i = 0; i < n; ++i)
    for (Index o = 0; o < cols; ++o) {
      Sum expected;
      if (has_bias) expected.add(bias.at(0, o));
      if (accumulate) expected.add(before.at(i, o));
      for (Index j = 0; j < k; ++j) expected.add(x.at(i, j) * w.at(o, j));
      CHECK(expected.fits(y(i, o)));
    }
  CHECK(y.gaps_are_intact());
}

TEST_CASE("tiles of dots of every shape, with bias, added and written") {
  for (const Index n : {1, 2, 3, 4, 5, 6, 7, 11, 13})
    for (const Index cols : {1, 3, 4, 7, 8, 9, 48})
      for (const Index k : {1, 13, 64, 97})
        for (const int how : {0, 1, 2, 3}) {
          check_tiles<float>(n, cols, k, how & 1, how & 2, k > 13);
          check_tiles<double>(n, cols, k, how & 1, how & 2, k > 13);
        }
}

template <class T, class W>
static void check_copy(Index rows, Index cols) {
  const Matrix<W> from(rows, cols, 1, 4);
  const Index stride = dot_stride<T>(cols);
  CHECK(stride >= cols);
  CHECK(stride * Index(sizeof(T)) % 64 == 0);
  std::vector<T> to(std::size_t(rows * stride), T(99));
  GRAFT_DISPATCH(dots_checks::copy(rows, cols, from.data(), from.ld, to.data()));
  for (Index i = 0; i < rows; ++i)
    for (Index k = 0; k < stride; ++k) CHECK(to[std::size_t(i * stride + k)] == (k < cols ? T(from(i, k)) : T(99)));
}

TEST_CASE("a block is copied to rows that begin at lines of the cache") {
  for (const Index cols : {1, 7, 16, 33, 200}) {
    check_copy<float, float>(5, cols);
    check_copy<double, double>(1, cols);
    check_copy<float, graft::bf16>(3, cols);
  }
  CHECK(dot_stride<float>(5000) == dot_block<float>);
  CHECK(dot_blocks<float>(2 * dot_block<float> + 1) == 3);
}

}  // namespace graft::kernels
