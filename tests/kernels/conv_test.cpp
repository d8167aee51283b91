#include "graft/kernels/conv.hpp"

#include <doctest/doctest.h>

#include "conv_reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

// f(o, position) -> Sum, over all outputs
template <class T, class F>
bool all_fit(const ConvGeometry& g, const T* y, F&& f) {
  bool fit = true;
  for (Index o = 0; o < g.out; ++o)
    for_each_place(g.output(), [&](Index position, ConvGeometry::Axes at) {
      fit = fit && f(o, position, at).fits(y[o * g.output_positions() + position]);
    });
  return fit;
}

template <class T, class W>
void check_conv(const ConvGeometry& g, bool with_bias, bool accumulate, T scale) {
  g.check();
  const Index positions = g.output_positions(), in = g.in / g.groups;
  const Matrix<T> x(1, g.in * g.input_positions(), 1), bias(1, g.out, 3);
  const Matrix<W> w(1, g.out * g.weight_columns(), 2);
  Matrix<T> y(1, g.out * positions, 4);
  const Matrix<T> before = y;
  std::vector<T> scratch(std::size_t(kernels::conv_scratch(g)) + 1, T(99));
  kernels::conv_forward(g, x.data(), w.data(), with_bias ? bias.data() : nullptr, y.data(), scratch.data(),
                        accumulate, scale);
  CHECK(all_fit(g, y.data(), [&](Index o, Index position, ConvGeometry::Axes at) {
    Sum sum;
    if (accumulate) sum.add(before.at(0, o * positions + position));
    if (with_bias) sum.add(bias.at(0, o));
    for (Index c = 0; c < in; ++c)
      for_each_place(g.kernel, [&](Index element, ConvGeometry::Axes kernel) {
        const T* channel = x.data() + (o / (g.out / g.groups) * in + c) * g.input_positions();
        sum.add(double(scale) * read_through(g, channel, at, kernel) *
                w.at(0, o * g.weight_columns() + c * g.kernel_positions() + element));
      });
    return sum;
  }));
  CHECK(y.gaps_are_intact());
  CHECK(scratch.back() == T(99));
}

template <class T>
void check_low_rank(const ConvGeometry& g, Index r, bool with_e, bool with_beta) {
  const Index positions = g.output_positions(), k = g.in * g.kernel_positions(), rank = r / g.groups;
  const Matrix<T> x(1, g.in * g.input_positions(), 1), A(r, k, 2, 0), B(g.out, rank, 3, 0), e(1, r, 5),
      beta(1, g.out, 6);
  Matrix<T> y(1, g.out * positions, 4);
  const Matrix<T> before = y;
  std::vector<T> scratch(std::size_t(kernels::low_rank_conv_scratch(g, r)) + 1, T(99));
  const T scale = T(0.75);
  kernels::low_rank_conv_update(g, r, x.data(), A.data(), B.data(), with_e ? e.data() : nullptr, scale,
                                with_beta ? beta.data() : nullptr, y.data(), scratch.data());
  CHECK(all_fit(g, y.data(), [&](Index o, Index position, ConvGeometry::Axes at) {
    Sum sum;
    sum.add(before.at(0, o * positions + position));
    if (with_beta) sum.add(double(scale) * beta.at(0, o));
    for (Index j = 0; j < rank; ++j) {
      const Index row = o / (g.out / g.groups) * rank + j;
      for (Index c = 0; c < g.in; ++c)
        for_each_place(g.kernel, [&](Index element, ConvGeometry::Axes kernel) {
          sum.add(double(scale) * read_through(g, x.data() + c * g.input_positions(), at, kernel) *
                  A.at(row, c * g.kernel_positions() + element) * (with_e ? e.at(0, row) : 1.0) * B.at(o, j));
        });
    }
    return sum;
  }));
  CHECK(y.gaps_are_intact());
  CHECK(scratch.back() == T(99));
}

// The convolution of the golden snippets: x = v(1, in, …), w = w(out, in / groups, …), b = bias(out), all
// exact.
std::vector<float> of_lattices(const ConvGeometry& g) {
  g.check();
  const auto x = lattice<float>(g.in * g.input_positions()),
             w = lattice<float>(g.out * g.weight_columns(), 29, 5, 13), b = lattice<float>(g.out, 7, 3, 5);
  std::vector<float> y(std::size_t(g.out * g.output_positions()), 99.0f),
      scratch(std::size_t(kernels::conv_scratch(g)));
  kernels::conv_forward(g, x.data(), w.data(), b.data(), y.data(), scratch.data());
  return y;
}

}  // namespace

TEST_CASE("conv_forward is the sum over channels and kernel, for every option and scalar") {
  int number = 0;
  for (const ConvGeometry& g : geometries()) {
    CAPTURE(number++);
    check_conv<float, float>(g, true, false, 1.0f);
    check_conv<float, float>(g, true, true, -0.5f);
    check_conv<double, double>(g, false, true, 1.0);
    check_conv<float, graft::bf16>(g, false, false, 1.0f);
    check_conv<float, graft::f16>(g, true, true, 2.0f);
  }
  ConvGeometry many;  // more outputs than are widened at once, more inputs than a block of the contraction
  many.in = 70;
  many.out = 41;
  many.input = {1, 5, 60};
  many.kernel = {1, 3, 3};
  check_conv<float, float>(many, true, false, 1.0f);
  check_conv<float, graft::bf16>(many, true, false, 1.0f);
}

TEST_CASE("low_rank_conv_update is a convolution to r channels and a pointwise one from there") {
  int number = 0;
  for (const ConvGeometry& g : geometries()) {
    CAPTURE(number++);
    for (const Index r : {0, 2, 6}) {
      check_low_rank<float>(g, r, false, false);
      check_low_rank<float>(g, r, true, true);
      check_low_rank<double>(g, r, false, true);
    }
  }
}

// v(*shape, a=37, b=11, m=17): ((i * a + b) % m - m // 2) / 4, reshaped; w = v with a=29, b=5, m=13;
// bias = v with a=7, b=3, m=5. The values are exact in every type.
TEST_CASE("Conv1d with stride, padding and dilation gives torch's numbers") {
  ConvGeometry g;  // F.conv1d(v(1, 3, 11), w(2, 3, 3), bias(2), stride=2, padding=2, dilation=2)
  g.in = 3;
  g.out = 2;
  g.input = {1, 1, 11};
  g.kernel = {1, 1, 3};
  g.stride = g.dilation = {1, 1, 2};
  g.padding_before = g.padding_after = {0, 0, 2};
  CHECK(of_lattices(g) == std::vector<float>{-3.3125, -5, 2.6875, -4.5, -3.1875, 6.4375, -3.25, -5.5, 2.375,
                                             -5.6875, -4.1875, 4.875});
}

TEST_CASE("Conv2d in groups gives torch's numbers") {
  ConvGeometry g;  // F.conv2d(v(1, 4, 5, 6), w(4, 2, 3, 2), bias(4), stride=(2, 1), padding=(1, 2),
                   // dilation=(1, 2), groups=2)
  g.in = g.out = 4;
  g.groups = 2;
  g.input = {1, 5, 6};
  g.kernel = {1, 3, 2};
  g.stride = {1, 2, 1};
  g.padding_before = g.padding_after = {0, 1, 2};
  g.dilation = {1, 1, 2};
  CHECK(of_lattices(g) ==
        std::vector<float>{
            -3.4375, -3.0625, -1,      3.125,   0.875,   1.8125,  -0.0625, 0.5,     0.3125,  -1.125, 0.4375,
            3.3125,  -0.1875, -5.8125, 1.375,   -0.6875, 1.0625,  2.5625,  2.125,   -2.875,  -3.625, 2,
            1,       0.875,   -3.0625, 0.6875,  -5.8125, -0.5625, 1.5,     0.375,   -1.5625, -3.25,  -1.75,
            1.5,     -1.75,   2.4375,  3.4375,  -0.875,  -2.1875, -4.4375, 0.75,    -2.5625, -0.75,  1,
            0.625,   -0.8125, -2.75,   1.25,    0.0625,  -1.625,  -4.125,  1.5,     6.0625,  2.125,  -3.4375,
            -1.4375, -0.1875, -2.4375, 0.125,   -1.5,    4.3125,  5.875,   -4.375,  -2.6875, -1.375, -2.6875,
            1.6875,  -0.4375, 1.6875,  2.75,    -1.8125, -0.5,    -0.3125, 0.625,   1.5,     0.0625, -5.625,
            0.375,   -1.625,  1.3125,  -1.0625, 0.625,   -0.875,  1.25,    -4.0625, 1.25,    1.1875, -0.5,
            0.875,   2.1875,  0.25,    1.6875,  -0.0625, 4.5625,  0.9375,  0});
}

TEST_CASE("Conv2d with a padding mode gives torch's numbers") {
  ConvGeometry
      g;  // nn.Conv2d(2, 1, (3, 2), stride=(1, 2), padding=(2, 1), padding_mode=mode) on v(1, 2, 4, 5)
  g.in = 2;
  g.input = {1, 4, 5};
  g.kernel = {1, 3, 2};
  g.stride = {1, 1, 2};
  g.padding_before = g.padding_after = {0, 2, 1};
  g.padding_mode = PaddingMode::reflect;
  CHECK(of_lattices(g) == std::vector<float>{-5.625, -1.0625, 0.4375, -0.75, 3.8125, 0, 4.875, -4.375, -2.875,
                                             4.375, -2.75, 1.9375, -0.5, -1.25, 2.375, -6.125, -0.5, 5.25});
  g.padding_mode = PaddingMode::replicate;
  CHECK(of_lattices(g) == std::vector<float>{-1, 1.5, 0.875, -2, 1.5625, -0.125, 6.9375, -4.375, -2.875, 3.25,
                                             -2.75, 1.9375, 1.625, -2.25, 1.375, 1.75, -2.125, 1.5});
  g.padding_mode = PaddingMode::circular;
  CHECK(of_lattices(g) == std::vector<float>{-3.625, -0.3125, 6.5, -5.625, 4.0625, -0.8125, 6.125, -4.375,
                                             -2.875, 5.625, -2.75, 1.9375, -3.625, -0.3125, 6.5, -5.625,
                                             4.0625, -0.8125});
}

TEST_CASE("padding same with an even kernel gives torch's numbers") {
  ConvGeometry g;  // nn.Conv2d(2, 2, (2, 4), padding="same", dilation=(1, 2)) on v(1, 2, 3, 4)
  g.in = g.out = 2;
  g.input = {1, 3, 4};
  g.kernel = {1, 2, 4};
  g.dilation = {1, 1, 2};
  g.pad_same();
  CHECK(of_lattices(g) == std::vector<float>{-0.4375, -1.375,  -0.5,  -1.75,  -4.8125, 2.125,
                                             1.9375,  2.875,   -0.5,  -0.75,  1.125,   1.5,
                                             -1.8125, -2.625,  -3.5,  1.0625, 1,       2.375,
                                             0.4375,  -0.9375, 0.375, 1.5,    0.375,   -0.3125});
  g.dilation = {1, 1, 1};  // nn.Conv2d(2, 2, (2, 4), padding="same", padding_mode="reflect")
  g.padding_mode = PaddingMode::reflect;
  g.pad_same();
  CHECK(of_lattices(g) == std::vector<float>{2.375,   -6.5625, -4.375,  0,      1.5625,  0.0625,
                                             4.375,   3.4375,  -0.9375, -1.375, 2.9375,  2,
                                             -2.1875, -4.375,  0.3125,  4.6875, 6.0625,  2.8125,
                                             1.125,   0.1875,  3.5625,  1.375,  -0.3125, -1.25});
}

TEST_CASE("Conv3d gives torch's numbers") {
  ConvGeometry g;  // F.conv3d(v(1, 2, 3, 4, 3), w(2, 2, 2, 2, 2), bias(2), stride=(1, 2, 1), padding=(1, 0,
                   // 1), dilation=(2, 1, 1))
  g.in = g.out = 2;
  g.input = {3, 4, 3};
  g.kernel = {2, 2, 2};
  g.stride = {1, 2, 1};
  g.padding_before = g.padding_after = {1, 0, 1};
  g.dilation = {2, 1, 1};
  CHECK(of_lattices(g) == std::vector<float>{3,       3.3125,  -3.25,  0.75,   2.9375,  2.1875,  -1.1875,
                                             0.75,    5.1875,  4.9375, 0.75,   3.25,    5.3125,  0,
                                             -1,      3.5,     2.9375, 3.9375, -3.25,   0.0625,  3.125,
                                             2.25,    -1.75,   0.3125, 0.0625, -4.8125, -4,      2.75,
                                             -0.1875, -2.0625, 1.9375, 2.5625, 0.0625,  -6.3125, 0,
                                             3.75,    -0.1875, -7.75,  1.75,   3.625,   0,       -4.1875,
                                             -4,      2.0625,  0,      -2,     1.375,   2.125});
}

// Golden vector 3 of the specification, from PEFT: Conv1d, r = alpha = 2.
TEST_CASE("LoRA on a Conv1d gives PEFT's numbers") {
  ConvGeometry g;
  g.input = {1, 1, 3};
  g.kernel = {1, 1, 2};
  const double x[] = {1, 2, 3}, W[] = {1, 2}, A[] = {1, 0, 0, -1}, B[] = {1, 2};
  const double* none = nullptr;
  std::vector<double> y(2, 99.0), scratch(400);
  kernels::conv_forward(g, x, W, none, y.data(), scratch.data());
  kernels::low_rank_conv_update(g, 2, x, A, B, none, 1.0, none, y.data(), scratch.data());
  CHECK(y == std::vector<double>{2, 4});
}

// nn.Conv2d(4, 4, (3, 2), stride=(2, 1), padding=(1, 1), groups=2) under LoraConfig(r=2, lora_alpha=3,
// lora_bias=True), lora_A = w(2, 4, 3, 2), lora_B = v(4, 1, 1, 1, a=7, b=3, m=11), its bias v(4, a=7, b=3,
// m=5), x = v(1, 4, 5, 3): the output less the base's, PEFT 0.21.2
TEST_CASE("LoRA on a grouped Conv2d gives PEFT's numbers") {
  ConvGeometry g;
  g.in = g.out = 4;
  g.groups = 2;
  g.input = {1, 5, 3};
  g.kernel = {1, 3, 2};
  g.stride = {1, 2, 1};
  g.padding_before = g.padding_after = {0, 1, 1};
  const auto x = lattice<double>(60), A = lattice<double>(48, 29, 5, 13), B = lattice<double>(4, 7, 3, 11),
             beta = lattice<double>(4, 7, 3, 5);
  std::vector<double> y(48, 0.0), scratch(std::size_t(kernels::low_rank_conv_scratch(g, 2)));
  kernels::low_rank_conv_update(g, 2, x.data(), A.data(), B.data(), static_cast<const double*>(nullptr), 1.5,
                                beta.data(), y.data(), scratch.data());
  CHECK(close(
      y, {-1.125,     4.3125,     4.453125,  7.40625,     5.90625,     3.515625,  3,           5.015625,
          7.078125,   2.25,       -0.09375,  2.71875,     3,           -10.59375, -10.9453125, -18.328125,
          -14.578125, -8.6015625, -7.3125,   -12.3515625, -17.5078125, -5.4375,   0.421875,    -6.609375,
          1.5703125,  0.46875,    2.0390625, 1.6875,      2.765625,    2.203125,  1.59375,     2.0390625,
          1.828125,   1.734375,   0.28125,   1.3828125,   -3.9609375,  -0.65625,  -5.3671875,  -4.3125,
          -7.546875,  -5.859375,  -4.03125,  -5.3671875,  -4.734375,   -4.453125, -0.09375,    -3.3984375},
      1e-14));
}

// nn.Conv2d(2, 3, (2, 3), stride=(1, 2), padding=(1, 2), dilation=(2, 1), padding_mode="circular") under
// AdaLoraConfig(init_r=3, lora_alpha=2), lora_A = w(3, 12), lora_B = v(3, 3, a=7, b=3, m=11),
// lora_E = v(3, 1, a=5, b=2, m=7), x = v(1, 2, 4, 5): the output less the base's, PEFT 0.21.2
TEST_CASE("AdaLoRA on a Conv2d gives PEFT's numbers, which pad with zeros") {
  ConvGeometry g;
  g.in = 2;
  g.out = 3;
  g.input = {1, 4, 5};
  g.kernel = {1, 2, 3};
  g.stride = {1, 1, 2};
  g.padding_before = g.padding_after = {0, 1, 2};
  g.dilation = {1, 2, 1};
  const auto x = lattice<double>(40), A = lattice<double>(36, 29, 5, 13), B = lattice<double>(9, 7, 3, 11),
             E = lattice<double>(3, 5, 2, 7);
  std::vector<double> y(48, 0.0), scratch(std::size_t(kernels::low_rank_conv_scratch(g, 3)));
  kernels::low_rank_conv_update(g, 3, x.data(), A.data(), B.data(), E.data(), 2 / (3 + 1e-5),
                                static_cast<const double*>(nullptr), y.data(), scratch.data());
  // ranknum is a float tensor in PEFT, so its scale carries a float's rounding of 3.00001.
  CHECK(close(y, {0.65885197049343169,  0.5182274392418692,   -3.6979043403188658,  1.2734332552224825,
                  -2.1145762847457177,  3.7890498698337676,   -0.79426818577271407, 0.95833013889953711,
                  -2.4218669271102429,  2.3359297135676216,   1.8255147482841725,   0.90103866320445603,
                  1.9739517534941551,   -0.26562411458628488, 2.2890548698171003,   -1.1796835677214408,
                  0.39843617187942715,  0.15624947916840259,  -2.9140527864907115,  1.2499958333472221,
                  -1.3359330468898436,  2.906240312532292,    -1.3593704687651038,  1.2187459375135417,
                  -1.6640569531434894,  2.0703055989813368,   0.19531184896050324,  1.1874960416798612,
                  1.3359330468898436,   0.39843617187942726,  1.5937446875177081,   -0.70312265625781245,
                  0.13802037326542238,  -0.20572848090506368, -2.1302012326625577,  1.2265584114719617,
                  -0.55728980903396996, 2.0234307552308155,   -1.9244727517574942,  1.4791617361275462,
                  -0.90624697917673602, 1.804681484395052,    -1.4348910503631658,  1.4739534201552662,
                  0.69791434028553234,  1.0624964583451388,   0.89843450521831603,  -0.22656174479418401},
              1e-7));
}

TEST_CASE("NaN reaches the outputs that read it, and no others") {
  ConvGeometry g;
  g.input = {1, 1, 20};
  g.kernel = {1, 1, 3};
  std::vector<float> x(20, 1.0f), y(18, 99.0f), scratch(std::size_t(kernels::conv_scratch(g)));
  const std::vector<float> w(3, 1.0f);
  x[7] = std::numeric_limits<float>::quiet_NaN();
  kernels::conv_forward(g, x.data(), w.data(), static_cast<const float*>(nullptr), y.data(), scratch.data());
  for (std::size_t i = 0; i < 18; ++i) CHECK(std::isnan(y[i]) == (i >= 5 && i <= 7));
}
