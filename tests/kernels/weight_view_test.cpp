#include "graft/kernels/weight_view.hpp"

#include <doctest/doctest.h>

#include "graft/kernels/quantize.hpp"
#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

struct Int8 {
  Index out, in, ld;
  std::vector<std::int8_t> values;
  std::vector<float> scales;
  Int8(const Matrix<float>& w) : out(w.rows), in(w.cols), ld(w.cols), values(std::size_t(out * in)), scales(std::size_t(out)) {
    kernels::quantize_int8(out, in, w.data(), w.ld, values.data(), scales.data());
  }
  kernels::Int8View view() const { return {values.data(), scales.data()}; }
};
template <int Code>
struct FourBit {
  static constexpr const float* code = Code == 0 ? kernels::nf4_code : Code == 1 ? kernels::fp4_code : kernels::int4_code;
  static constexpr int shift = Code == 2 ? 5 : 6;
  Index out, in, ld;
  std::vector<std::uint32_t> words;
  std::vector<float> scales;
  FourBit(const Matrix<float>& w)
      : out(w.rows), in(w.cols), ld(kernels::four_bit_columns(w.cols)), words(std::size_t(out * ld / 8)), scales(std::size_t(out * ld >> shift)) {
    kernels::quantize_four_bit(out, in, w.data(), w.ld, code, shift, words.data(), scales.data());
  }
  kernels::FourBitView view() const { return {words.data(), scales.data(), code, shift}; }
};

// Against plain sums over the weight in float, and bit by bit against the dense product over it.
template <class Quantised>
void check_product(Index n, Index out, Index in, bool accumulate) {
  CAPTURE(n);
  CAPTURE(out);
  CAPTURE(in);
  const Matrix<float> x(n, in, 1), w(out, in, 2), bias(1, out, 3);
  const Quantised narrow(w);
  std::vector<float> wide(std::size_t(out * in));
  kernels::dequantize(out, in, narrow.view(), narrow.ld, wide.data());
  using View = decltype(narrow.view());
  std::vector<float> scratch(std::size_t(kernels::product_nt_scratch<float, View>(n, in, x.ld, narrow.ld)) + 1, 99.0f);
  Matrix<float> y(n, out, 4);
  const Matrix<float> before = y;
  Matrix<float> with_scratch = y, dense = y;
  kernels::product_nt_view(n, out, in, x.data(), x.ld, narrow.view(), narrow.ld, bias.data(), y.data(), y.ld, accumulate);
  kernels::product_nt_view(n, out, in, x.data(), x.ld, narrow.view(), narrow.ld, bias.data(), with_scratch.data(),
                           with_scratch.ld, accumulate, scratch.data());
  kernels::product_nt(n, out, in, x.data(), x.ld, wide.data(), in, bias.data(), dense.data(), dense.ld, accumulate);
  bool all_fit = true;
  for (Index i = 0; i < n; ++i)
    for (Index o = 0; o < out; ++o) {
      Sum sum;
      if (accumulate) sum.add(before.at(i, o));
      sum.add(bias.at(0, o));
      for (Index k = 0; k < in; ++k) sum.add(x.at(i, k) * double(wide[std::size_t(o * in + k)]));
      all_fit = all_fit && sum.fits(y(i, o));
    }
  CHECK(all_fit);
  CHECK(y.storage == dense.storage);
  CHECK(with_scratch.storage == dense.storage);
  CHECK(scratch.back() == 99.0f);
}

template <class Quantised>
void check_all() {
  for (const Index n : {1, 2, 3, 5, 6, 7, 13})
    for (const Index size : awkward) {
      check_product<Quantised>(n, size, 13, false);
      check_product<Quantised>(n, 7, size, true);
    }
  for (const Index n : {1, 4, 49}) {
    check_product<Quantised>(n, 9, 128, false);
    check_product<Quantised>(n, 9, 129, false);
    check_product<Quantised>(n, 101, 1601, true);
  }
}

}  // namespace

TEST_CASE("products over int8 rows are those over their float values") { check_all<Int8>(); }
TEST_CASE("products over NF4 blocks are those over their float values") { check_all<FourBit<0>>(); }
TEST_CASE("products over FP4 blocks are those over their float values") { check_all<FourBit<1>>(); }
TEST_CASE("products over 4-bit integers are those over their float values") { check_all<FourBit<2>>(); }

TEST_CASE("a factor that is not finite reaches its own output alone") {
  const Matrix<float> x(1, 70, 1), w(3, 70, 2);
  FourBit<0> narrow(w);
  narrow.scales[2 + 1] = std::numeric_limits<float>::quiet_NaN();  // row 1, block 1
  float y[3];
  kernels::product_nt_view(1, 3, 70, x.data(), x.ld, narrow.view(), narrow.ld, nullptr, y, 3, false);
  CHECK(std::isfinite(y[0]));
  CHECK(std::isnan(y[1]));
  CHECK(std::isfinite(y[2]));
}
