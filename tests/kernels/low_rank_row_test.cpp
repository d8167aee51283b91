#include "graft/kernels/low_rank_row.hpp"

#include <array>

#include <doctest/doctest.h>

#include "graft/kernels/low_rank.hpp"
#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

/// A, B and e of one adapter, and B packed.
template <class T>
struct Factors {
  Matrix<T> A, B, e;
  std::vector<T> packed;
  Factors(Index in, Index out, Index r) : A(r, in, 2, 0), B(out, r, 3, 0), e(1, r, 4, 0), packed(std::size_t(out * r)) {
    kernels::pack_b(out, r, B.data(), packed.data());
  }
};

/// Against plain sums, and against the kernel for any number of rows bit by bit.
template <class T>
void check_row(Index in, Index out, Index r, bool has_e) {
  CAPTURE(in);
  CAPTURE(out);
  CAPTURE(r);
  const Matrix<T> x(1, in, 1);
  const Factors<T> f(in, out, r);
  const T* const e = has_e ? f.e.data() : nullptr;
  const Matrix<T> before(1, out, 5);
  Matrix<T> y = before, other = before;
  std::vector<T> u(std::size_t(r) + 1, T(99));
  kernels::low_rank_row(in, out, r, x.data(), f.A.data(), e, T(-0.375), f.packed.data(), kernels::detail::low_rank_panel, y.data(),
                        u.data());
  bool all_fit = true, any_changed = false;
  for (Index o = 0; o < out; ++o) {
    Sum sum;
    sum.add(before.at(0, o));
    for (Index k = 0; k < in; ++k)
      for (Index j = 0; j < r; ++j) sum.add(-0.375 * x.at(0, k) * f.A.at(j, k) * (has_e ? f.e.at(0, j) : 1.0) * f.B.at(o, j));
    all_fit = all_fit && sum.fits(y(0, o));
    any_changed = any_changed || y(0, o) != before(0, o);
  }
  CHECK(all_fit);
  CHECK(any_changed);
  CHECK(y.gaps_are_intact());
  CHECK(u.back() == T(99));
  std::vector<T> scratch(std::size_t(kernels::low_rank_scratch(1, in, out, r)));
  const T* const none = nullptr;
  kernels::low_rank_update(1, in, out, r, x.data(), x.ld, f.A.data(), f.B.data(), e, T(-0.375), none, other.data(), other.ld,
                           scratch.data());
  CHECK(y.storage == other.storage);
}

}  // namespace

TEST_CASE_TEMPLATE("one row's update is that of the products it is made of", T, float, double) {
  for (const Index size : awkward) {
    check_row<T>(size, 13, 3, size % 2 != 0);
    check_row<T>(7, size, 3, size % 2 == 0);
    check_row<T>(13, 7, size, size % 3 == 0);
  }
  check_row<T>(1100, 301, 16, true);  // several blocks of x, several panels of B
  check_row<T>(64, 256, 20, false);
}

TEST_CASE("a row has the same bits alone and among others, at ranks that are summed in blocks too") {
  const Index in = 37, out = 150;
  for (const Index r : {3, 512, 513, 700}) {
    CAPTURE(r);
    const Factors<float> f(in, out, r);
    const Matrix<float> x(2, in, 1), beta(1, out, 6), columns(1, out, 7);
    const Matrix<float> before(2, out, 5);
    Matrix<float> both = before, one = before;
    const std::array<kernels::LowRankTerm<float>, 1> term{{{r, f.A.data(), f.packed.data(), f.e.data(), 0.75f, beta.data(), f.B.data()}}};
    std::vector<float> scratch(std::size_t(kernels::low_rank_updates_scratch<float>(2, term)));
    kernels::low_rank_updates<float>(2, in, out, term, x.data(), x.ld, columns.data(), both.data(), both.ld, scratch.data());
    for (Index i = 0; i < 2; ++i)
      kernels::low_rank_updates<float>(1, in, out, term, x.data() + i * x.ld, x.ld, columns.data(), one.data() + i * one.ld, one.ld,
                                       scratch.data());
    CHECK(both.storage != before.storage);
    CHECK(one.storage == both.storage);
  }
}
