#include "graft/kernels/narrow_low_rank.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

template <class W>
std::vector<float> widened(const Matrix<W>& m) {
  std::vector<float> values(std::size_t(m.rows * m.cols));
  kernels::widen<float, W>(m.rows * m.cols, m.data(), values.data());
  return values;
}

// Against plain sums, and bit by bit against the update over the same values in float.
template <class W>
void check_update(Index n, Index in, Index out, Index r, bool with_e, bool with_beta) {
  CAPTURE(n);
  CAPTURE(in);
  CAPTURE(out);
  CAPTURE(r);
  const Matrix<float> x(n, in, 1), e(1, r, 4), beta(1, out, 5);
  const Matrix<W> A(r, in, 2, 0), B(out, r, 3, 0);
  Matrix<float> y(n, out, 6);
  const Matrix<float> before = y;
  Matrix<float> wide_y = y;
  const float scale = 0.75f;
  std::vector<W> packed(std::size_t(out * r));
  std::vector<float> scratch(std::size_t(r) + 1, 99.0f);
  kernels::pack_narrow_b(out, r, B.data(), packed.data());
  kernels::narrow_low_rank_update<W>(n, in, out, r, x.data(), x.ld, A.data(), packed.data(), with_e ? e.data() : nullptr, scale,
                                     with_beta ? beta.data() : nullptr, y.data(), y.ld, scratch.data());
  bool all_fit = true;
  for (Index i = 0; i < n; ++i)
    for (Index o = 0; o < out; ++o) {
      Sum sum;
      sum.add(before.at(i, o));
      if (with_beta) sum.add(double(scale) * beta.at(0, o));
      for (Index j = 0; j < r; ++j)
        for (Index k = 0; k < in; ++k)
          sum.add(double(scale) * x.at(i, k) * A.at(j, k) * (with_e ? e.at(0, j) : 1.0) * B.at(o, j));
      all_fit = all_fit && sum.fits(y(i, o));
    }
  CHECK(all_fit);
  CHECK(y.gaps_are_intact());
  CHECK(scratch.back() == 99.0f);
  CHECK(y.storage != before.storage);

  const std::vector<float> wide_a = widened(A), wide_b = widened(B);
  std::vector<float> wide_packed(wide_b.size()), more(std::size_t(kernels::low_rank_updates_scratch(n, r)));
  kernels::pack_b(out, r, wide_b.data(), wide_packed.data());
  const kernels::LowRankTerm<float> term{r, wide_a.data(), wide_packed.data(), with_e ? e.data() : nullptr, scale,
                                         with_beta ? beta.data() : nullptr};
  kernels::low_rank_updates<float>(n, in, out, std::span(&term, 1), x.data(), x.ld, nullptr, wide_y.data(), wide_y.ld, more.data());
  CHECK(y.storage == wide_y.storage);
}

}  // namespace

TEST_CASE_TEMPLATE("a narrow update is that over the values in float, bit by bit", W, graft::bf16, graft::f16) {
  for (const Index r : {1, 3, 8, 13, 33})
    for (const Index n : {1, 2, 5}) {
      check_update<W>(n, 31, 37, r, true, false);
      check_update<W>(n, 97, 301, r, false, true);
    }
  check_update<W>(1, 1601, 7, 65, true, true);  // several blocks of the contraction
  check_update<W>(1, 5, 129, 701, false, false);
}

TEST_CASE("NaN and infinity of narrow matrices reach the result") {
  Matrix<graft::bf16> A(3, 5, 1, 0), B(9, 3, 2, 0);
  const Matrix<float> x(1, 5, 3);
  B(4, 1) = graft::bf16(std::numeric_limits<float>::infinity());
  const auto run = [&] {
    std::vector<graft::bf16> packed(std::size_t{27});
    kernels::pack_narrow_b(9, 3, B.data(), packed.data());
    std::vector<float> y(std::size_t{9}), scratch(std::size_t{3});
    kernels::narrow_low_rank_update<graft::bf16>(1, 5, 9, 3, x.data(), x.ld, A.data(), packed.data(), nullptr, 1, nullptr, y.data(),
                                                 9, scratch.data());
    return y;
  };
  std::vector<float> y = run();
  for (std::size_t o = 0; o < 9; ++o) CHECK(std::isinf(y[o]) == (o == 4));
  A(2, 4) = graft::bf16(std::numeric_limits<float>::quiet_NaN());
  y = run();
  for (const float value : y) CHECK(std::isnan(value));
}
