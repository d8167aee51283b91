#include "graft/kernels/weight_backward.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {
template <class T>
void run(Index n, Index out, Index in, const Matrix<T>& g, Index from, const Matrix<T>& x, Matrix<T>& dw) {
  std::vector<T> scratch(std::size_t(kernels::product_tn_backward_scratch<T>(n, out, in)) + 1, T(99));
  kernels::product_tn_backward<T>(n, out, in, g.data() + from, g.ld, x.data(), x.ld, dw.data() + from * dw.ld, dw.ld, scratch.data());
  CHECK(scratch.back() == T(99));
}
template <class T>
void check(Index n, Index out, Index in) {
  CAPTURE(n);
  CAPTURE(out);
  CAPTURE(in);
  const Matrix<T> g(n, out, 1), x(n, in, 2);
  Matrix<T> dw(out, in, 3);
  const Matrix<T> before = dw;
  run(n, out, in, g, 0, x, dw);
  bool fits = true;
  for (Index o = 0; o < out; ++o)
    for (Index k = 0; k < in; ++k) {
      Sum sum;
      sum.add(before.at(o, k));
      for (Index i = 0; i < n; ++i) sum.add(g.at(i, o) * x.at(i, k));
      fits = fits && sum.fits(dw(o, k));
    }
  CHECK(fits);
  CHECK(dw.gaps_are_intact());
  // in two parts
  Matrix<T> parts = before;
  const Index first = out / 3;
  run(n, first, in, g, 0, x, parts);
  run(n, out - first, in, g, first, x, parts);
  CHECK(parts.storage == dw.storage);
}
}  // namespace

TEST_CASE_TEMPLATE("the gradient of a weight is added, at every size, and part by part with the same bits", T, float, double) {
  for (const Index n : {Index(1), Index(7), Index(13)})
    for (const Index out : {Index(3), Index(7), Index(12), Index(65)})
      for (const Index in : {Index(1), Index(13), Index(33), Index(97)}) check<T>(n, out, in);
}
TEST_CASE_TEMPLATE("it passes over many rows and many outputs in parts", T, float, double) {
  check<T>(513, 13, 7);
  check<T>(1030, 3, 33);
  check<T>(7, 259, 13);
  check<T>(515, 263, 5);
}
TEST_CASE("scratch is bounded") {
  CHECK(kernels::product_tn_backward_scratch<float>(1 << 20, 1 << 20, 1 << 20) <= 512 * (256 + 4 * 48));
}
