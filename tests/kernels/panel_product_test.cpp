#include "graft/kernels/panel_product.hpp"

#include <doctest/doctest.h>

#include "graft/kernels/quantize.hpp"
#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

// Against plain sums, and against product_nn bit by bit.
template <class T, class W>
void check_panels(Index n, Index out, Index in, bool accumulate) {
  CAPTURE(n);
  CAPTURE(out);
  CAPTURE(in);
  const Matrix<T> x(n, in, 1);
  const Matrix<W> w(in, out, 2);
  Matrix<T> y(n, out, 3);
  const Matrix<T> before = y;
  Matrix<T> other = y;
  const T scale = T(-0.375);
  std::vector<T> scratch(std::size_t(kernels::panel_scratch<T>(in, out)) + 1, T(99));
  kernels::product_nn_panels(n, out, in, x.data(), x.ld, w.data(), w.ld, y.data(), y.ld, accumulate, scale, scratch.data());
  bool all_fit = true;
  for (Index i = 0; i < n; ++i)
    for (Index o = 0; o < out; ++o) {
      Sum sum;
      if (accumulate) sum.add(before.at(i, o));
      for (Index k = 0; k < in; ++k) sum.add(double(scale) * x.at(i, k) * w.at(k, o));
      all_fit = all_fit && sum.fits(y(i, o));
    }
  CHECK(all_fit);
  CHECK(y.gaps_are_intact());
  CHECK(scratch.back() == T(99));
  const T* none = nullptr;
  kernels::product_nn(n, out, in, x.data(), x.ld, w.data(), w.ld, none, other.data(), other.ld, accumulate, scale);
  CHECK(y.storage == other.storage);
}

template <class T, class W>
void check_all() {
  for (const Index size : {1, 3, 7, 13, 31, 33, 63, 65, 97}) {
    check_panels<T, W>(9, size, 13, size % 4 == 1);
    check_panels<T, W>(5, 7, size, size % 4 == 3);
    check_panels<T, W>(size, 33, 31, true);
  }
  check_panels<T, W>(17, 301, 1100, true);  // several strips, several blocks
  check_panels<T, W>(17, 49, 513, false);
  check_panels<T, W>(3, 5, 0, true);
  check_panels<T, W>(3, 5, 0, false);
}

}  // namespace

TEST_CASE("a product over panels is the sum over k, with the bits of product_nn") {
  check_all<float, float>();
  check_all<double, double>();
  check_all<float, graft::bf16>();
  check_all<float, graft::f16>();
}

TEST_CASE("a product over a quantised weight has the bits of the product over the weight in float") {
  for (const Index n : {1, 13}) {
    for (const Index out : {7, 65, 193, 301}) {
      const Index in = 33;
      const Matrix<float> x(n, in, 1), w(in, out, 2, 0);
      std::vector<float> scratch(std::size_t(kernels::panel_scratch<float>(in, out)));
      const auto check = [&](const auto& view, Index ld, const std::vector<float>& wide) {
        Matrix<float> y(n, out, 3);
        Matrix<float> other = y;
        kernels::product_nn_view(n, out, in, x.data(), x.ld, view, ld, y.data(), y.ld, true, 2.0f, scratch.data());
        kernels::product_nn_panels(n, out, in, x.data(), x.ld, wide.data(), out, other.data(), other.ld, true, 2.0f,
                                   scratch.data());
        CHECK(y.storage == other.storage);
        CHECK(y.storage != Matrix<float>(n, out, 3).storage);
      };
      std::vector<std::int8_t> bytes(std::size_t(in * out));
      std::vector<float> row_scales(std::size_t{33}), wide(std::size_t(in * out));
      kernels::quantize_int8(in, out, w.data(), out, bytes.data(), row_scales.data());
      const kernels::Int8View int8{bytes.data(), row_scales.data()};
      kernels::dequantize(in, out, int8, out, wide.data());
      check(int8, out, wide);

      const Index ld = kernels::four_bit_columns(out);
      std::vector<std::uint32_t> words(std::size_t(in * ld / 8));
      std::vector<float> scales(std::size_t(in * ld >> 6));
      kernels::quantize_four_bit(in, out, w.data(), out, kernels::nf4_code, 6, words.data(), scales.data());
      const kernels::FourBitView four{words.data(), scales.data(), kernels::nf4_code, 6};
      kernels::dequantize(in, out, four, ld, wide.data());
      check(four, ld, wide);
    }
  }
}

TEST_CASE("NaN and infinity reach the outputs that read them, and no others") {
  const Index n = 13, out = 50, in = 9;
  Matrix<float> x(n, in, 1), w(in, out, 2);
  x(4, 8) = std::numeric_limits<float>::quiet_NaN();
  w(3, 49) = std::numeric_limits<float>::infinity();
  Matrix<float> y(n, out, 3);
  std::vector<float> scratch(std::size_t(kernels::panel_scratch<float>(in, out)));
  kernels::product_nn_panels(n, out, in, x.data(), x.ld, w.data(), w.ld, y.data(), y.ld, false, 1.0f, scratch.data());
  for (Index i = 0; i < n; ++i)
    for (Index o = 0; o < out; ++o) {
      if (i == 4) CHECK(std::isnan(y(i, o)));
      else if (o == 49) CHECK(std::isinf(y(i, o)));
      else CHECK(std::isfinite(y(i, o)));
    }
}

TEST_CASE("the scratch of a product over panels is bounded") {
  CHECK(kernels::panel_scratch<float>(1 << 20, 1 << 20) == 512 * 192);
  CHECK(kernels::panel_scratch<double>(1 << 20, 1 << 20) == 512 * 96);
}
