#include "graft/kernels/quantize.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

TEST_CASE("int8 keeps every element to half a step, and its row's largest magnitude as ±127") {
  for (const Index in : awkward) {
    const Matrix<float> w(5, in, 1);
    std::vector<std::int8_t> values(std::size_t(5 * in));
    std::vector<float> scales(5), back(values.size());
    kernels::quantize_int8(5, in, w.data(), w.ld, values.data(), scales.data());
    kernels::dequantize(5, in, kernels::Int8View{values.data(), scales.data()}, in, back.data());
    for (Index o = 0; o < 5; ++o) {
      int largest = 0;
      for (Index i = 0; i < in; ++i) {
        const std::size_t at = std::size_t(o * in + i);
        CHECK(std::abs(double(back[at]) - w.at(o, i)) <= double(scales[std::size_t(o)]) * 0.5 * (1 + 1e-5));
        largest = std::max(largest, std::abs(int(values[at])));
      }
      CHECK(largest == 127);
    }
  }
}

TEST_CASE("zeros stay zeros") {
  const std::vector<float> zeros(200, 0.0f);
  std::vector<std::int8_t> values(200, 5);
  std::vector<float> scales(8, 5.0f), back(200, 5.0f);
  kernels::quantize_int8(2, 100, zeros.data(), 100, values.data(), scales.data());
  kernels::dequantize(2, 100, kernels::Int8View{values.data(), scales.data()}, 100, back.data());
  CHECK(back == zeros);
  for (const float* code : {kernels::nf4_code, kernels::fp4_code, kernels::int4_code}) {
    std::vector<std::uint32_t> words(32, 5);
    back.assign(200, 5.0f);
    kernels::quantize_four_bit(2, 100, zeros.data(), 100, code, 6, words.data(), scales.data());
    kernels::dequantize(2, 100, kernels::FourBitView{words.data(), scales.data(), code, 6}, 128, back.data());
    CHECK(back == zeros);
  }
}

TEST_CASE("4 bits keep every element as the nearest of the code's values") {
  for (const float* code : {kernels::nf4_code, kernels::fp4_code, kernels::int4_code})
    for (const Index in : {1, 13, 64, 65, 127, 129, 300}) {
      const int shift = code == kernels::int4_code ? 5 : 6;
      const Matrix<float> w(3, in, 1);
      const Index columns = kernels::four_bit_columns(in);
      std::vector<std::uint32_t> words(std::size_t(3 * columns / 8));
      std::vector<float> scales(std::size_t(3 * columns >> shift)), back(std::size_t(3 * in));
      kernels::quantize_four_bit(3, in, w.data(), w.ld, code, shift, words.data(), scales.data());
      kernels::dequantize(3, in, kernels::FourBitView{words.data(), scales.data(), code, shift}, columns, back.data());
      bool all_nearest = true;
      for (Index o = 0; o < 3; ++o)
        for (Index i = 0; i < in; ++i) {
          const float scale = scales[std::size_t((o * columns + i) >> shift)];
          double least = 1e9;
          for (int c = 0; c < 16; ++c) least = std::min(least, std::abs(double(code[c] * scale) - w.at(o, i)));
          all_nearest = all_nearest && std::abs(double(back[std::size_t(o * in + i)]) - w.at(o, i)) <= least + 1e-6;
        }
      CHECK(all_nearest);
    }
}

// ggml's q4_0 of 32 numbers: the largest magnitude, -4, is -8 times the factor 0.5.
TEST_CASE("4-bit integers are q4_0") {
  std::vector<float> w(32, 0.0f);
  w[0] = -4;
  w[1] = 3.5f;
  w[2] = 1.2f;
  w[3] = 4;  // 8 does not exist: 7
  std::uint32_t words[16];
  float scales[4], back[32];
  kernels::quantize_four_bit(1, 32, w.data(), 32, kernels::int4_code, 5, words, scales);
  CHECK(scales[0] == 0.5f);
  kernels::dequantize(1, 32, kernels::FourBitView{words, scales, kernels::int4_code, 5}, 128, back);
  CHECK(back[0] == -4);
  CHECK(back[1] == 3.5f);
  CHECK(back[2] == 1);
  CHECK(back[3] == 3.5f);
  CHECK(back[4] == 0);
}

TEST_CASE("the codes are bitsandbytes' tables") {
  // bitsandbytes 0.50.2, QuantState.code of quantize_4bit
  const float fp4[] = {0.0f, 0.0052083334885537624f,  0.6666666865348816f,  1.0f,  0.3333333432674408f,  0.5f,  0.1666666716337204f,  0.25f,
                       0.0f, -0.0052083334885537624f, -0.6666666865348816f, -1.0f, -0.3333333432674408f, -0.5f, -0.1666666716337204f, -0.25f};
  for (int i = 0; i < 16; ++i) CHECK(kernels::fp4_code[i] == fp4[i]);
  CHECK(kernels::nf4_code[0] == -1.0f);
  CHECK(kernels::nf4_code[7] == 0.0f);
  CHECK(kernels::nf4_code[8] == 0.07958029955625534f);
  CHECK(kernels::nf4_code[15] == 1.0f);
}

TEST_CASE("ggml's q4_0 blocks are read as ggml reads them") {
  for (const Index in : {32, 64, 96, 128, 160, 288}) {
    const Index out = 3, blocks = out * in / 32;
    std::vector<std::uint8_t> bytes;
    for (Index b = 0; b < blocks; ++b) {
      const std::uint16_t d = graft::f16(value_at<float>(3, b)).bits;
      bytes.push_back(std::uint8_t(d & 255u));
      bytes.push_back(std::uint8_t(d >> 8));
      for (Index j = 0; j < 16; ++j) bytes.push_back(std::uint8_t((b * 89 + j * 151 + 7) % 256));
    }
    // ggml's dequantize_row_q4_0, over all blocks in order
    std::vector<float> expected(std::size_t(out * in));
    for (Index b = 0; b < blocks; ++b) {
      const std::uint8_t* block = bytes.data() + 18 * b;
      const float d = float(graft::f16::from_bits(std::uint16_t(block[0] + 256 * block[1])));
      for (Index j = 0; j < 16; ++j) {
        expected[std::size_t(32 * b + j)] = float((block[2 + j] & 0x0F) - 8) * d;
        expected[std::size_t(32 * b + j + 16)] = float((block[2 + j] >> 4) - 8) * d;
      }
    }
    const Index columns = kernels::four_bit_columns(in);
    std::vector<std::uint32_t> words(std::size_t(out * columns / 8), 0xdeadbeefu);
    std::vector<float> scales(std::size_t(out * columns / 32), 5.0f), back(expected.size());
    kernels::repack_q4_0(out, in, bytes.data(), words.data(), scales.data());
    const kernels::FourBitView view{words.data(), scales.data(), kernels::int4_code, 5};
    kernels::dequantize(out, in, view, columns, back.data());
    CHECK(back == expected);
    for (Index o = 0; o < out; ++o)
      for (Index i = in; i < columns; ++i) {
        CHECK(kernels::int4_code[kernels::detail::get_nibble(view.row(o, columns).words, i)] == 0);
        CHECK(view.row(o, columns).scales[i / 32] == 0);
      }
    // the product, against the same sums in double
    const Matrix<float> x(2, in, 5);
    std::vector<float> y(std::size_t(2 * out));
    kernels::product_nt_view(2, out, in, x.data(), x.ld, view, columns, nullptr, y.data(), out, false);
    for (Index i = 0; i < 2; ++i)
      for (Index o = 0; o < out; ++o) {
        Sum sum;
        for (Index k = 0; k < in; ++k) sum.add(x.at(i, k) * double(expected[std::size_t(o * in + k)]));
        CHECK(sum.fits(y[std::size_t(i * out + o)]));
      }
  }
}
