#include <graft/kernels/dot_panels.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <limits>

#include "graft/kernels/products.hpp"
#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

template <class T>
bool same_bits(const Matrix<T>& a, const Matrix<T>& b) {
  return std::memcmp(a.storage.data(), b.storage.data(), a.storage.size() * sizeof(T)) == 0;
}

/// Against the dots of product_nt without scratch, which reads the weight where it stands; ordinary numbers against plain
/// sums too.
template <class T, class W>
void check_dots(Index n, Index cols, Index depth, bool with_bias, bool accumulate, const Matrix<T>& x, bool is_ordinary = true) {
  CAPTURE(n);
  CAPTURE(cols);
  CAPTURE(depth);
  const Matrix<W> w(cols, depth, 2);
  const Matrix<T> bias(1, cols, 3);
  const T* b = with_bias ? bias.data() : nullptr;
  const Matrix<T> before(n, cols, 4);
  Matrix<T> y = before, dots = before;
  kernels::product_nt(n, cols, depth, x.data(), x.ld, w.data(), w.ld, b, dots.data(), dots.ld, accumulate);
  for (const bool packs_x : {false, true}) {
    y = before;
    std::vector<T> panels(std::size_t(kernels::dot_panels_scratch<T>(depth, cols)) + 1, T(99));
    std::vector<T> packed(std::size_t(kernels::dot_rows_scratch<T>(n, depth)) + 1, T(99));
    kernels::pack_dot_panels(cols, depth, w.data(), w.ld, panels.data());
    kernels::dots_over_panels(n, cols, depth, x.data(), x.ld, static_cast<const T*>(panels.data()), b, y.data(), y.ld, accumulate,
                              packs_x ? packed.data() : nullptr);
    CHECK(same_bits(y, dots));
    CHECK(y.gaps_are_intact());
    CHECK(panels.back() == T(99));
    CHECK(packed.back() == T(99));
  }
  if (!is_ordinary) return;
  bool all_fit = true;
  for (Index i = 0; i < n; ++i)
    for (Index o = 0; o < cols; ++o) {
      Sum sum;
      if (accumulate) sum.add(before.at(i, o));
      if (with_bias) sum.add(bias.at(0, o));
      for (Index k = 0; k < depth; ++k) sum.add(x.at(i, k) * w.at(o, k));
      all_fit = all_fit && sum.fits(y(i, o));
    }
  CHECK(all_fit);
}

template <class T, class W>
void check_all() {
  for (const Index depth : awkward)
    for (const Index cols : {1, 7, 13, 33, 47, 48, 97})
      check_dots<T, W>(depth % 2 != 0 ? 5 : 12, cols, depth, depth % 3 != 0, cols % 2 != 0, Matrix<T>(depth % 2 != 0 ? 5 : 12, depth, 1));
  for (const Index n : {1, 2, 3, 4, 63, 65}) check_dots<T, W>(n, 48, 384, true, true, Matrix<T>(n, 384, 1));
  check_dots<T, W>(9, 41, 512, true, false, Matrix<T>(9, 512, 1));
}

}  // namespace

TEST_CASE("dots over panels have the bits of dots") {
  check_all<float, float>();
  check_all<double, double>();
  check_all<float, graft::bf16>();
  check_all<float, graft::f16>();
}

TEST_CASE("the first of many outputs have their bits") {
  const Index n = 7, depth = 21, all = 137;
  const Matrix<float> x(n, depth, 1), w(all, depth, 2), before(n, all, 3);
  const float* none = nullptr;
  std::vector<float> panels(std::size_t(kernels::dot_panels_scratch<float>(depth, all)));
  kernels::pack_dot_panels(all, depth, w.data(), w.ld, panels.data());
  for (const Index cols : {Index(48), Index(96), all}) {
    CAPTURE(cols);
    Matrix<float> y = before, dots = before;
    kernels::product_nt(n, cols, depth, x.data(), x.ld, w.data(), w.ld, none, dots.data(), dots.ld, false);
    kernels::dots_over_panels<float>(n, cols, depth, x.data(), x.ld, panels.data(), none, y.data(), y.ld, false, nullptr);
    CHECK(same_bits(y, dots));  // and what lies behind them is as it was
  }
}

TEST_CASE("the smallest numbers, infinity and the signs of zeros are those of dots") {
  for (const Index depth : {5, 16, 33}) {
    Matrix<float> x(6, depth, 1);
    for (Index k = 0; k < depth; ++k) {
      x(0, k) = std::numeric_limits<float>::denorm_min() * float(k % 3 - 1);
      x(1, k) = -0.0f;
      x(2, k) = -1e-30f * float(k % 2);
    }
    x(3, depth - 1) = std::numeric_limits<float>::infinity();
    check_dots<float, float>(6, 37, depth, false, false, x, false);
    check_dots<float, float>(6, 37, depth, true, true, x, false);
  }
}

TEST_CASE("a NaN reaches the outputs of its row, and no others") {
  Matrix<float> x(6, 21, 1), y(6, 37, 2);
  const Matrix<float> w(37, 21, 3);
  const float* none = nullptr;
  x(4, 20) = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> panels(std::size_t(kernels::dot_panels_scratch<float>(21)));
  std::vector<float> packed(std::size_t(kernels::dot_rows_scratch<float>(6, 21)));
  kernels::pack_dot_panels(37, 21, w.data(), w.ld, panels.data());
  for (float* rows : {static_cast<float*>(nullptr), packed.data()}) {
    kernels::dots_over_panels<float>(6, 37, 21, x.data(), x.ld, panels.data(), none, y.data(), y.ld, false, rows);
    for (Index i = 0; i < 6; ++i)
      for (Index o = 0; o < 37; ++o) CHECK(std::isnan(y(i, o)) == (i == 4));
  }
}
