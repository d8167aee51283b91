#include "graft/kernels/products.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

const Index row_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17};

template <class T, class W, bool Transposed>
void check_product(Index n, Index out, Index in, bool with_bias, bool accumulate, T scale) {
  CAPTURE(n);
  CAPTURE(out);
  CAPTURE(in);
  const Matrix<T> x(n, in, 1), bias(1, out, 3);
  const Matrix<W> w(Transposed ? in : out, Transposed ? out : in, 2);
  Matrix<T> y(n, out, 4);
  const Matrix<T> before = y;
  const T* b = with_bias ? bias.data() : nullptr;
  if constexpr (Transposed)
    kernels::product_nn(n, out, in, x.data(), x.ld, w.data(), w.ld, b, y.data(), y.ld, accumulate, scale);
  else
    kernels::product_nt(n, out, in, x.data(), x.ld, w.data(), w.ld, b, y.data(), y.ld, accumulate);
  bool all_fit = true;
  for (Index i = 0; i < n; ++i)
    for (Index o = 0; o < out; ++o) {
      Sum sum;
      if (accumulate) sum.add(before.at(i, o));
      if (with_bias) sum.add(bias.at(0, o));
      for (Index k = 0; k < in; ++k)
        sum.add(double(scale) * x.at(i, k) * (Transposed ? w.at(k, o) : w.at(o, k)));
      all_fit = all_fit && sum.fits(y(i, o));
    }
  CHECK(all_fit);
  CHECK(y.gaps_are_intact());
}

template <class T, class W, bool Transposed>
void check_all() {
  for (const Index n : row_counts)
    for (const Index size : awkward) {
      check_product<T, W, Transposed>(n, size, 13, true, false, T(1));
      check_product<T, W, Transposed>(n, 7, size, false, true, T(1));
    }
  for (const Index size : awkward) check_product<T, W, Transposed>(5, size, size, true, true, T(1));
  for (const Index n : row_counts) {
    check_product<T, W, Transposed>(n, 33, 1601, true, true, T(1));  // several blocks of the contraction
    check_product<T, W, Transposed>(n, 701, 9, true, false, T(1));   // several strips of columns
  }
  check_product<T, W, Transposed>(3, 5, 0, true, false, T(1));
  check_product<T, W, Transposed>(3, 5, 0, false, true, T(1));
}

// Every row of a call over n rows has the bits that it has alone.
template <class T, class W, bool Transposed>
void check_rows_alone(Index out, Index in) {
  const Index most = 33;
  const Matrix<T> x(most, in, 1), bias(1, out, 3);
  const Matrix<W> w(Transposed ? in : out, Transposed ? out : in, 2);
  const auto run = [&](Index first, Index n, T* y) {
    if constexpr (Transposed)
      kernels::product_nn(n, out, in, &x(first, 0), x.ld, w.data(), w.ld, bias.data(), y, out, false, T(0.7));
    else
      kernels::product_nt(n, out, in, &x(first, 0), x.ld, w.data(), w.ld, bias.data(), y, out, false);
  };
  std::vector<T> alone(std::size_t(most * out)), together(alone.size());
  for (Index i = 0; i < most; ++i) run(i, 1, alone.data() + i * out);
  for (Index n = 2; n <= most; ++n) {
    CAPTURE(n);
    run(most - n, n, together.data());
    CHECK(std::equal(together.begin(), together.begin() + n * out, alone.begin() + (most - n) * out));
  }
}

}  // namespace

TEST_CASE("product_nt is the sum over k, for every shape, bias and scalar") {
  check_all<float, float, false>();
  check_all<double, double, false>();
  check_all<float, graft::bf16, false>();
  check_all<float, graft::f16, false>();
}

TEST_CASE("product_nn is the sum over k, for every shape, bias and scalar") {
  check_all<float, float, true>();
  check_all<double, double, true>();
  check_all<float, graft::bf16, true>();
  check_all<float, graft::f16, true>();
}

TEST_CASE("product_nn scales the sum but neither the bias nor what y held") {
  for (const Index n : row_counts) {
    check_product<float, float, true>(n, 33, 65, true, true, -0.375f);
    check_product<double, double, true>(n, 33, 65, true, true, 2.5);
  }
}

TEST_CASE("product_nn takes few rows over a long leading dimension") {
  for (Index n = 1; n <= 10; ++n) check_product<float, float, true>(n, 1100, 37, true, false, 1.0f);
}

TEST_CASE("a row's bits do not depend on the other rows") {
  for (const Index in : {9, 65, 769, 1601}) {
    check_rows_alone<float, float, false>(13, in);
    check_rows_alone<float, graft::bf16, false>(13, in);
    check_rows_alone<double, double, false>(13, in);
    check_rows_alone<float, float, true>(49, in);
    check_rows_alone<float, graft::f16, true>(49, in);
    check_rows_alone<double, double, true>(49, in);
  }
  check_rows_alone<float, float, true>(1100, 19);
}

// With scratch, blocks of x and of w are copied; the last element of the scratch stays.
template <class T, class W>
static void check_scratch(Index n, Index out, Index in, Index ld) {
  CAPTURE(n);
  CAPTURE(out);
  CAPTURE(in);
  const Matrix<T> x(n, in, 1, ld - in), bias(1, out, 3);
  const Matrix<W> w(out, in, 2, ld - in);
  std::vector<T> without(std::size_t(n * out)), with(without);
  const Index needed = kernels::product_nt_scratch<T, W>(n, in, x.ld, w.ld);
  std::vector<T> scratch(std::size_t(needed) + 1, T(99));
  kernels::product_nt(n, out, in, x.data(), x.ld, w.data(), w.ld, bias.data(), without.data(), out, false);
  kernels::product_nt(n, out, in, x.data(), x.ld, w.data(), w.ld, bias.data(), with.data(), out, false, scratch.data());
  CHECK(with == without);
  CHECK(scratch.back() == T(99));
  const bool power_of_two = n > 1 && ld % 1024 == 0, straddles = n >= 48 && ld % 16 != 0;
  const bool copies = n >= 48 && (ld % 16 != 0 || !std::is_same_v<T, W>), packs = in > 256 ? n >= (copies ? 112 : 224) : n >= 48 && in <= 2 * n;
  CHECK((needed != 0) == (power_of_two || straddles || packs || (n >= 48 && !std::is_same_v<T, W>)));
}

TEST_CASE("the scratch of product_nt changes no bit, is bounded and is not overrun") {
  for (const Index n : {1, 2, 7, 47, 48, 130, 400}) {
    check_scratch<float, float>(n, 13, 1023, 1024);
    check_scratch<float, float>(n, 99, 1021, 1024);
    check_scratch<float, graft::bf16>(n, 101, 33, 36);
    check_scratch<double, double>(n, 5, 700, 1024);
  }
  for (const Index n : {63, 64, 390}) {
    check_scratch<float, float>(n, 99, 2050, 2080);  // several blocks of several rows of w, with the next ones fetched
    check_scratch<float, float>(n, 99, 96, 97);      // rows that begin in the middle of a line are copied
    check_scratch<float, float>(n, 99, 1030, 1030);
    check_scratch<double, double>(n, 13, 1001, 1001);
    check_scratch<float, graft::f16>(n, 101, 384, 384);
    check_scratch<double, double>(n, 50, 383, 1024);
    check_scratch<float, float>(n, 99, 128, 128);  // short dots of many rows are packed
    check_scratch<float, graft::bf16>(n, 50, 126, 126);
    check_scratch<double, double>(n, 101, 97, 104);
  }
  check_scratch<float, float>(3, 13, 1023, 1025);
  check_scratch<float, float>(1030, 53, 256, 256);
  for (const Index out : {53, 195}) {  // many rows of long dots: for many outputs x and w are packed
    check_scratch<float, float>(230, out, 300, 300);
    check_scratch<float, float>(531, out, 1100, 1101);
    check_scratch<float, graft::bf16>(112, out, 1030, 1032);
    check_scratch<double, double>(225, out, 700, 1024);
  }
  CHECK(kernels::product_nt_scratch<float, float>(1 << 20, 1 << 20, 1 << 20, 1 << 20) <= (512 + 48) * 1024 + 256);
  CHECK(kernels::product_nt_scratch<float, graft::bf16>(1 << 20, 33, 33, 33) <= (1024 + 48) * 48 + 256);  // no more columns than there are
}

TEST_CASE("zeros behind the end of the contraction change no bit of product_nn") {
  const Index out = 21, longest = 1300;
  Matrix<float> x(1, longest, 1);
  const Matrix<float> w(longest, out, 2);
  for (const Index in : {5, 511, 512, 513, 1200}) {
    for (Index k = 0; k < longest; ++k) x(0, k) = k < in ? value_at<float>(1, k) : 0.0f;
    std::vector<float> exact(std::size_t{21}), padded(exact);
    const float* none = nullptr;
    kernels::product_nn(1, out, in, x.data(), x.ld, w.data(), w.ld, none, exact.data(), out, false);
    kernels::product_nn(1, out, longest, x.data(), x.ld, w.data(), w.ld, none, padded.data(), out, false);
    CHECK(exact == padded);
  }
}

TEST_CASE("NaN and infinity reach the outputs that read them, and no others") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const Index n : {1, 3, 7}) {
    Matrix<float> x(n, 21, 1);
    const Matrix<float> w(9, 21, 2), wt(21, 9, 2);
    std::vector<float> y(std::size_t(n * 9));
    const float* none = nullptr;
    x(0, 20) = nan;
    if (n > 1) x(1, 3) = inf;
    const auto check = [&] {
      for (Index i = 0; i < n; ++i)
        for (Index o = 0; o < 9; ++o) {
          const float value = y[std::size_t(i * 9 + o)];
          if (i == 0)
            CHECK(std::isnan(value));
          else if (i == 1)
            CHECK(std::isinf(value));
          else
            CHECK(std::isfinite(value));
        }
    };
    kernels::product_nt(n, 9, 21, x.data(), x.ld, w.data(), w.ld, none, y.data(), 9, false);
    check();
    kernels::product_nn(n, 9, 21, x.data(), x.ld, wt.data(), wt.ld, none, y.data(), 9, false);
    check();
  }
}
