#include "graft/kernels/low_rank.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

template <class T>
void check_update(Index n, Index in, Index out, Index r, bool with_e, bool with_beta) {
  CAPTURE(n);
  CAPTURE(in);
  CAPTURE(out);
  CAPTURE(r);
  const Matrix<T> x(n, in, 1), A(r, in, 2, 0), B(out, r, 3, 0), e(1, r, 4), beta(1, out, 5);
  Matrix<T> y(n, out, 6);
  const Matrix<T> before = y;
  const T scale = T(0.75);
  const Index needed = kernels::low_rank_scratch(n, in, out, r);
  std::vector<T> scratch(std::size_t(needed) + 1, T(99));
  kernels::low_rank_update(n, in, out, r, x.data(), x.ld, A.data(), B.data(), with_e ? e.data() : nullptr,
                           scale, with_beta ? beta.data() : nullptr, y.data(), y.ld, scratch.data());
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
  CHECK(scratch.back() == T(99));
}

}  // namespace

TEST_CASE("low_rank_update is scale * ((x A^T) * e) B^T + scale * beta") {
  for (const Index r : {0, 1, 3, 4, 8, 13, 16, 33})
    for (const Index n : {1, 2, 3, 5, 13}) {
      check_update<float>(n, 31, 37, r, false, false);
      check_update<float>(n, 33, 129, r, true, true);
      check_update<double>(n, 7, 13, r, true, false);
      check_update<double>(n, 65, 97, r, false, true);
    }
  check_update<float>(300, 9, 301, 5, true, true);  // several chunks of rows, several panels
}

// Golden vector 1 of the specification, from PEFT: W [[1,2],[3,4]], b [.5,-.5], r = 1, alpha = 3.
TEST_CASE("LoRA on a linear layer gives PEFT's numbers") {
  const double A[] = {1, -1}, B[] = {2, 1}, x[] = {1, 2};
  double y[] = {5.5, 10.5}, scratch[8];
  const double* none = nullptr;
  kernels::low_rank_update(1, 2, 2, 1, x, 2, A, B, none, 3.0, none, y, 2, scratch);
  CHECK(y[0] == -0.5);
  CHECK(y[1] == 7.5);
}

// Golden vector 5 of the specification, from PEFT: AdaLoRA, init_r = 2, alpha = 3.
TEST_CASE("AdaLoRA on a linear layer gives PEFT's numbers") {
  const double A[] = {1, -1, 0, 2}, E[] = {.5, -1}, B[] = {2, 0, 1, 1}, x[] = {1, 2};
  double y[] = {5.5, 10.5}, scratch[8];
  const double* none = nullptr;
  kernels::low_rank_update(1, 2, 2, 2, x, 2, A, B, E, 3 / (2 + 1e-5), none, y, 2, scratch);
  CHECK(std::abs(y[0] - 4.00000750) < 1e-8);
  CHECK(std::abs(y[1] - 3.75003375) < 1e-8);
}

TEST_CASE("a row's update has the same bits alone and among others") {
  const Index n = 200, in = 65, out = 150;
  for (const Index r : {1, 4, 8, 16, 33}) {
    const Matrix<float> x(n, in, 1), A(r, in, 2, 0), B(out, r, 3, 0);
    Matrix<float> together(n, out, 4);
    Matrix<float> alone = together;
    std::vector<float> scratch(std::size_t(kernels::low_rank_scratch(n, in, out, r)));
    const float* none = nullptr;
    kernels::low_rank_update(n, in, out, r, x.data(), x.ld, A.data(), B.data(), none, 0.3f, none,
                             together.data(), together.ld, scratch.data());
    for (Index i = 0, rows; i < n; i += rows) {
      rows = std::min(n - i, 1 + i % 7);
      kernels::low_rank_update(rows, in, out, r, &x(i, 0), x.ld, A.data(), B.data(), none, 0.3f, none,
                               &alone(i, 0), alone.ld, scratch.data());
    }
    CHECK(together.storage == alone.storage);
  }
}

TEST_CASE("the scratch of an update is bounded in rows and outputs") {
  CHECK(kernels::low_rank_scratch(1 << 20, 4096, 1 << 20, 16) ==
        kernels::low_rank_scratch(4096, 1, 4096, 16));
  CHECK(kernels::low_rank_scratch(1, 4096, 4096, 16) < kernels::low_rank_scratch(64, 4096, 4096, 16));
}

namespace {

// Two LoRA terms, one with E and one with beta, each with B packed or as it is stored, and the factors of columns.
template <class T>
void check_updates(Index n, Index in, Index out, Index first, Index second, bool with_columns, bool first_is_packed,
                   bool second_is_packed) {
  CAPTURE(n);
  CAPTURE(first_is_packed);
  CAPTURE(second_is_packed);
  CAPTURE(out);
  const Matrix<T> x(n, in, 1), A(first, in, 2, 0), B(out, first, 3, 0), e(1, first, 4), C(second, in, 5, 0),
      D(out, second, 6, 0), beta(1, out, 7), columns(1, out, 8);
  Matrix<T> y(n, out, 9);
  const Matrix<T> before = y;
  std::vector<T> packed_b(std::size_t(out * first)), packed_d(std::size_t(out * second));
  kernels::pack_b(out, first, B.data(), packed_b.data());
  kernels::pack_b(out, second, D.data(), packed_d.data());
  const T* const none = nullptr;
  const kernels::LowRankTerm<T> terms[] = {
      {first, A.data(), first_is_packed ? packed_b.data() : none, e.data(), T(0.75), none, B.data()},
      {second, C.data(), second_is_packed ? packed_d.data() : none, none, T(-1.5), beta.data(), D.data()}};
  const Index unpacked = std::max(first_is_packed ? 0 : first, second_is_packed ? 0 : second);
  const Index needed = kernels::low_rank_updates_scratch(n, first + second, unpacked);
  CHECK(kernels::low_rank_updates_scratch<T>(n, terms) == needed);
  std::vector<T> scratch(std::size_t(needed) + 1, T(99));
  kernels::low_rank_updates<T>(n, in, out, terms, x.data(), x.ld, with_columns ? columns.data() : nullptr, y.data(),
                               y.ld, scratch.data());
  bool all_fit = true, any_changed = false;
  for (Index i = 0; i < n; ++i)
    for (Index o = 0; o < out; ++o) {
      const double factor = with_columns ? columns.at(0, o) : 1.0;
      Sum sum;
      sum.add(factor * before.at(i, o));
      sum.add(factor * -1.5 * beta.at(0, o));
      for (Index k = 0; k < in; ++k) {
        for (Index j = 0; j < first; ++j)
          sum.add(factor * 0.75 * x.at(i, k) * A.at(j, k) * e.at(0, j) * B.at(o, j));
        for (Index j = 0; j < second; ++j) sum.add(factor * -1.5 * x.at(i, k) * C.at(j, k) * D.at(o, j));
      }
      all_fit = all_fit && sum.fits(y(i, o));
      any_changed = any_changed || y(i, o) != before(i, o);
    }
  CHECK(all_fit);
  CHECK(any_changed);
  CHECK(y.gaps_are_intact());
  CHECK(scratch.back() == T(99));
  Matrix<T> apart = before;
  std::vector<T> more(std::size_t(kernels::low_rank_scratch(n, in, out, std::max(first, second))));
  kernels::low_rank_update(n, in, out, first, x.data(), x.ld, A.data(), B.data(), e.data(), T(0.75), none,
                           apart.data(), apart.ld, more.data());
  kernels::low_rank_update(n, in, out, second, x.data(), x.ld, C.data(), D.data(), none, T(-1.5), beta.data(),
                           apart.data(), apart.ld, more.data());
  if (with_columns) kernels::multiply(n, out, apart.data(), apart.ld, columns.data(), 0, apart.data(), apart.ld);
  CHECK(apart.storage == y.storage);
}

}  // namespace

TEST_CASE("several updates in one pass are those one by one, bit by bit, and may be scaled by columns") {
  for (const bool with_columns : {false, true})
    for (const int packed : {0, 1, 2, 3})
      for (const Index n : {1, 3, 7, 130})
        for (const Index out : {1, 13, 128, 129, 301}) {
          check_updates<float>(n, 31, out, 3, 13, with_columns, packed & 1, packed & 2);
          check_updates<double>(n, 33, out, 16, 0, with_columns, packed & 1, packed & 2);
        }
}

TEST_CASE("low_rank_expand_packed reads rows that are further apart than they are long") {
  const Index n = 5, out = 131, r = 7;
  const Matrix<float> u(n, r, 1), B(out, r, 2, 0);
  std::vector<float> packed(std::size_t(out * r));
  kernels::pack_b(out, r, B.data(), packed.data());
  Matrix<float> y(n, out, 3);
  const Matrix<float> before = y;
  kernels::low_rank_expand_packed(n, out, r, u.data(), u.ld, packed.data(), y.data(), y.ld);
  for (Index i = 0; i < n; ++i)
    for (Index o = 0; o < out; ++o) {
      Sum sum;
      sum.add(before.at(i, o));
      for (Index j = 0; j < r; ++j) sum.add(u.at(i, j) * B.at(o, j));
      CHECK(sum.fits(y(i, o)));
    }
  CHECK(y.gaps_are_intact());
}
