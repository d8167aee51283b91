#include "graft/kernels/merge.hpp"

#include <doctest/doctest.h>

#include <cstring>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

template <class T>
void add(Matrix<T>& W, Index begin, Index rows, const Matrix<T>& B, const T* e, T scale, const Matrix<T>& A) {
  std::vector<T> scratch(std::size_t(kernels::low_rank_delta_scratch(W.cols, A.rows)) + 1, T(99));
  kernels::add_low_rank_delta<T>(rows, W.cols, A.rows, B.data() + begin * B.ld, B.ld, e, scale, A.data(), A.ld,
                                 W.data() + begin * W.ld, W.ld, scratch.data());
  CHECK(scratch.back() == T(99));
}
template <class T>
bool same_bits(const Matrix<T>& a, const Matrix<T>& b) {
  return std::memcmp(a.storage.data(), b.storage.data(), a.storage.size() * sizeof(T)) == 0;
}

template <class T>
void check(Index rows, Index width, Index r, bool with_e) {
  CAPTURE(rows);
  CAPTURE(width);
  CAPTURE(r);
  const Matrix<T> A(r, width, 1), B(rows, r, 2), e(1, r, 3);
  Matrix<T> W(rows, width, 4);
  const Matrix<T> before = W;
  const T scale = T(0.75);
  add(W, 0, rows, B, with_e ? e.data() : nullptr, scale, A);
  bool all_fit = true;
  for (Index o = 0; o < rows; ++o)
    for (Index i = 0; i < width; ++i) {
      Sum sum;
      sum.add(before.at(o, i));
      for (Index j = 0; j < r; ++j) sum.add(double(scale) * B.at(o, j) * (with_e ? e.at(0, j) : 1.0) * A.at(j, i));
      all_fit = all_fit && sum.fits(W(o, i));
    }
  CHECK(all_fit);
  CHECK(W.gaps_are_intact());

  // the same bits row by row, and the delta's own bits whatever it is added to
  Matrix<T> one_by_one = before, delta(rows, width, 5), negated = delta;
  for (Index o = 0; o < rows; ++o) add(one_by_one, o, 1, B, with_e ? e.data() : nullptr, scale, A);
  CHECK(same_bits(one_by_one, W));
  for (Index o = 0; o < rows; ++o)
    for (Index i = 0; i < width; ++i) delta(o, i) = negated(o, i) = T(0);
  add(delta, 0, rows, B, with_e ? e.data() : nullptr, scale, A);
  add(negated, 0, rows, B, with_e ? e.data() : nullptr, T(-scale), A);
  bool added_once = true, is_negated = true;
  for (Index o = 0; o < rows; ++o)
    for (Index i = 0; i < width; ++i) {
      const volatile T sum = before(o, i) + delta(o, i);
      added_once = added_once && sum == W(o, i);
      is_negated = is_negated && negated(o, i) == -delta(o, i);
    }
  CHECK(added_once);
  CHECK(is_negated);
}

}  // namespace

TEST_CASE("add_low_rank_delta is W + scale * (B * e) A, summed from zero and added once") {
  for (const Index r : {0, 1, 3, 8, 13})
    for (const Index rows : {1, 5, 6, 12, 13, 29}) {
      check<float>(rows, 7, r, true);
      check<float>(rows, 37, r, false);
      check<float>(rows, 97, r, true);
      check<double>(rows, 13, r, false);
      check<double>(rows, 65, r, true);
    }
}

TEST_CASE("all_finite and largest_magnitude see every element") {
  for (const Index size : awkward) {
    Matrix<float> values(1, size, 6, 0);
    CHECK(kernels::all_finite(size, values.data()));
    float most = 0;
    for (Index i = 0; i < size; ++i) most = std::max(most, std::abs(values(0, i)));
    CHECK(kernels::largest_magnitude(size, values.data()) == most);
    for (Index i = 0; i < size; ++i) {
      const float kept = values(0, i);
      for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                              std::numeric_limits<float>::quiet_NaN()}) {
        values(0, i) = bad;
        CHECK_FALSE(kernels::all_finite(size, values.data()));
        CHECK(kernels::largest_magnitude(size, values.data()) == std::numeric_limits<float>::infinity());
      }
      values(0, i) = std::numeric_limits<float>::max();
      CHECK(kernels::all_finite(size, values.data()));
      CHECK(kernels::largest_magnitude(size, values.data()) == std::numeric_limits<float>::max());
      values(0, i) = kept;
    }
  }
  CHECK(kernels::all_finite(0, static_cast<const double*>(nullptr)));
}
