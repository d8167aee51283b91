#include "graft/kernels/conv_backward.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "conv_reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

/// A gradient that something was added to before, as sums.
template <class T>
struct Expected {
  explicit Expected(const Matrix<T>& before) : cols(before.cols), sums(std::size_t(before.rows * before.cols)) {
    for (Index i = 0; i < before.rows; ++i)
      for (Index j = 0; j < before.cols; ++j) at(i, j).add(before.at(i, j));
  }
  Sum& at(Index i, Index j) { return sums[std::size_t(i * cols + j)]; }
  [[nodiscard]] bool fits(const Matrix<T>& y) const {
    bool all = y.gaps_are_intact();
    for (Index i = 0; i < y.rows; ++i)
      for (Index j = 0; j < y.cols; ++j) all = all && sums[std::size_t(i * cols + j)].fits(y(i, j));
    return all;
  }
  Index cols;
  std::vector<Sum> sums;
};

// f(place in a channel, kernel element, output position) for all that a convolution reads
template <class F>
void for_each_read(const ConvGeometry& g, F&& f) {
  for_each_place(g.kernel, [&](Index element, ConvGeometry::Axes kernel) {
    for_each_place(g.output(), [&](Index position, ConvGeometry::Axes at) {
      if (const Index place = place_through(g, at, kernel); place >= 0) f(place, element, position);
    });
  });
}

template <class T, class W>
struct Conv {
  explicit Conv(const ConvGeometry& geometry) : g(geometry) { g.check(); }
  ConvGeometry g;
  Matrix<T> x{g.in, g.input_positions(), 1, 0}, dy{g.out, g.output_positions(), 2, 0};
  Matrix<W> w{g.out, g.weight_columns(), 3, 0};
  Matrix<T> dw{g.out, g.weight_columns(), 4, 0}, db{1, g.out, 5}, dx{g.in, g.input_positions(), 6, 0};

  void run(unsigned wanted = 7) {
    std::vector<T> scratch(std::size_t(kernels::conv_backward_scratch(g)) + 1, T(99));
    const kernels::ConvGradients<T> to{wanted & 1 ? dw.data() : nullptr, wanted & 2 ? db.data() : nullptr,
                                       wanted & 4 ? dx.data() : nullptr};
    // what is not wanted is not needed for the others either
    kernels::conv_backward<T, W>(g, wanted & 1 ? x.data() : nullptr, wanted & 4 ? w.data() : nullptr, dy.data(), to, scratch.data());
    CHECK(scratch.back() == T(99));
  }
};

template <class T, class W>
void check_conv(const ConvGeometry& geometry) {
  Conv<T, W> conv(geometry);
  const Conv<T, W> before = conv;
  const ConvGeometry& g = conv.g;
  Expected<T> dw(conv.dw), db(conv.db), dx(conv.dx);
  const Index in = g.in / g.groups, out = g.out / g.groups;
  for (Index o = 0; o < g.out; ++o) {
    for (Index position = 0; position < g.output_positions(); ++position) db.at(0, o).add(conv.dy.at(o, position));
    for (Index c = 0; c < in; ++c)
      for_each_read(g, [&](Index place, Index element, Index position) {
        const Index channel = o / out * in + c, column = c * g.kernel_positions() + element;
        dw.at(o, column).add(conv.dy.at(o, position) * conv.x.at(channel, place));
        dx.at(channel, place).add(conv.dy.at(o, position) * conv.w.at(o, column));
      });
  }
  conv.run();
  CHECK(dw.fits(conv.dw));
  CHECK(db.fits(conv.db));
  CHECK(dx.fits(conv.dx));
  for (const unsigned wanted : {1u, 2u, 4u}) {  // the same bits alone, and what is not wanted stays
    Conv<T, W> alone = before;
    alone.run(wanted);
    CHECK(alone.dw.storage == (wanted & 1 ? conv : before).dw.storage);
    CHECK(alone.db.storage == (wanted & 2 ? conv : before).db.storage);
    CHECK(alone.dx.storage == (wanted & 4 ? conv : before).dx.storage);
  }
}

template <class T>
struct LowRank {
  LowRank(const ConvGeometry& geometry, Index rank, bool is_adaptive) : g(geometry), r(rank), with_e(is_adaptive) { g.check(); }
  ConvGeometry g;
  Index r;
  bool with_e;
  Index k = g.in * g.kernel_positions();
  T scale = T(0.75);
  Matrix<T> x{g.in, g.input_positions(), 1, 0}, dy{g.out, g.output_positions(), 2, 0};
  Matrix<T> A{r, k, 3, 0}, B{g.out, r / g.groups, 4, 0}, e{1, r, 5};
  Matrix<T> dA{r, k, 6, 0}, dB{g.out, r / g.groups, 7, 0}, de{1, r, 8}, dbeta{1, g.out, 9}, dx{g.in, g.input_positions(), 10, 0};

  void run(unsigned wanted = 31) {
    std::vector<T> scratch(std::size_t(kernels::low_rank_conv_backward_scratch(g, r)) + 1, T(99));
    const kernels::LowRankConvGradients<T> to{wanted & 1 ? dA.data() : nullptr, wanted & 2 ? dB.data() : nullptr,
                                              wanted & 4 ? de.data() : nullptr, wanted & 8 ? dbeta.data() : nullptr,
                                              wanted & 16 ? dx.data() : nullptr};
    kernels::low_rank_conv_backward<T>(g, r, x.data(), A.data(), B.data(), with_e ? e.data() : nullptr, scale, dy.data(), to,
                                       scratch.data());
    CHECK(scratch.back() == T(99));
  }
};

template <class T>
void check_low_rank(const ConvGeometry& geometry, Index r, bool with_e) {
  LowRank<T> conv(geometry, r, with_e);
  const LowRank<T> before = conv;
  const ConvGeometry& g = conv.g;
  const Index out = g.out / g.groups, rank = r / g.groups;
  Expected<T> dA(conv.dA), dB(conv.dB), de(conv.de), dbeta(conv.dbeta), dx(conv.dx);
  for (Index o = 0; o < g.out; ++o)
    for (Index position = 0; position < g.output_positions(); ++position)
      dbeta.at(0, o).add(double(conv.scale) * conv.dy.at(o, position));
  for (Index o = 0; o < g.out; ++o)
    for (Index t = 0; t < rank; ++t) {
      const Index j = o / out * rank + t;
      const double e = with_e ? conv.e.at(0, j) : 1;
      for (Index c = 0; c < g.in; ++c)
        for_each_read(g, [&](Index place, Index element, Index position) {
          const Index column = c * g.kernel_positions() + element;
          const double dy = double(conv.scale) * conv.dy.at(o, position), x = conv.x.at(c, place), a = conv.A.at(j, column);
          dA.at(j, column).add(dy * conv.B.at(o, t) * e * x);
          dB.at(o, t).add(dy * e * a * x);
          de.at(0, j).add(dy * conv.B.at(o, t) * a * x);
          dx.at(c, place).add(dy * conv.B.at(o, t) * e * a);
        });
    }
  conv.run();
  CHECK(dA.fits(conv.dA));
  CHECK(dB.fits(conv.dB));
  CHECK(de.fits(conv.de));
  CHECK(dbeta.fits(conv.dbeta));
  CHECK(dx.fits(conv.dx));
  for (const unsigned wanted : {1u, 2u, 4u, 8u, 16u}) {
    LowRank<T> alone = before;
    alone.run(wanted);
    CHECK(alone.dA.storage == (wanted & 1 ? conv : before).dA.storage);
    CHECK(alone.dB.storage == (wanted & 2 ? conv : before).dB.storage);
    CHECK(alone.de.storage == (wanted & 4 ? conv : before).de.storage);
    CHECK(alone.dbeta.storage == (wanted & 8 ? conv : before).dbeta.storage);
    CHECK(alone.dx.storage == (wanted & 16 ? conv : before).dx.storage);
  }
}

ConvGeometry with_many_channels() {  // more outputs than are turned at once
  ConvGeometry many;
  many.in = 35;
  many.out = 41;
  many.input = {1, 5, 30};
  many.kernel = {1, 3, 3};
  return many;
}

using Values = std::vector<double>;

// x = v(1, in, …), w = w(out, in / groups, …), dy = v(…, a=7, b=3, m=11): all exact, so are the gradients
void check_torch(const ConvGeometry& g, const Values& dw, const Values& db, const Values& dx) {
  g.check();
  const auto x = lattice<double>(g.in * g.input_positions()), w = lattice<double>(g.out * g.weight_columns(), 29, 5, 13),
             dy = lattice<double>(g.out * g.output_positions(), 7, 3, 11);
  Values of_w(w.size()), of_b(std::size_t(g.out)), of_x(x.size()), scratch(std::size_t(kernels::conv_backward_scratch(g)));
  kernels::conv_backward<double, double>(g, x.data(), w.data(), dy.data(), {of_w.data(), of_b.data(), of_x.data()}, scratch.data());
  CHECK(of_w == dw);
  CHECK(of_b == db);
  CHECK(of_x == dx);
}

}  // namespace

TEST_CASE("conv_backward adds the gradients of weight, bias and x, for every option and scalar") {
  int number = 0;
  for (const ConvGeometry& g : geometries()) {
    CAPTURE(number++);
    check_conv<float, float>(g);
    check_conv<double, double>(g);
    check_conv<float, graft::bf16>(g);
  }
  check_conv<float, float>(with_many_channels());
  check_conv<float, graft::f16>(with_many_channels());
}

TEST_CASE("low_rank_conv_backward adds the gradients of A, B, E, the bias of B and x") {
  int number = 0;
  for (const ConvGeometry& g : geometries()) {
    CAPTURE(number++);
    for (const Index r : {0, 2, 6}) {
      check_low_rank<float>(g, r, r == 6);
      check_low_rank<double>(g, r, r == 2);
    }
  }
  check_low_rank<float>(with_many_channels(), 3, true);
}

// nn.Conv1d(4, 2, 3, stride=2, padding=3, dilation=2, groups=2, padding_mode=mode) on v(1, 4, 5)
TEST_CASE("the gradients of a Conv1d are torch's, for every padding mode") {
  ConvGeometry g;
  g.in = 4;
  g.out = g.groups = 2;
  g.input = {1, 1, 5};
  g.kernel = {1, 1, 3};
  g.stride = g.dilation = {1, 1, 2};
  g.padding_before = g.padding_after = {0, 0, 3};
  check_torch(g, {1.3125, 1.5625, -2.3125, 1.5625, 0.8125, -2.6875, 1, -2, 0.5, 1.125, -1.5, 0}, {0.25, 0.75},
              {0, -0.0625, 0, 1.875, 0, 0, -1.0625, 0, 1.125, 0, 0, -1.75, 0, 2.25, 0, 0, 1.5, 0, -0.75, 0});
  g.padding_mode = PaddingMode::reflect;
  check_torch(g, {3.8125, 1.75, -3.75, 3.6875, 1.625, -3.875, 3, 0, -1.125, 2.625, -0.375, -1.5}, {0.25, 0.75},
              {0, -1.5625, 0, 1.9375, 0, 0, -2.5625, 0, 2.1875, 0, 0, -3.8125, 0, 2.875, 0, 0, 3.375, 0, -1.6875, 0});
  g.padding_mode = PaddingMode::replicate;
  check_torch(g, {1.875, 1.5625, -2.0625, 1.75, 1.4375, -2.1875, 0.75, -3.375, 0.875, 0.375, -3.75, 0.5}, {0.25, 0.75},
              {-0.4375, -0.0625, 0, 1.875, -1, -0.6875, -1.0625, 0, 1.125, 0.25, -0.5, -1.75, 0, 2.25, -0.9375, 0.75, 1.5, 0, -0.75, 0.1875});
  g.padding_mode = PaddingMode::circular;
  check_torch(g, {1.6875, 1.25, -0.625, -0.5625, 1.125, -3.9375, 2.25, -3.6875, 1.6875, 1.875, -4.0625, 1.3125}, {0.25, 0.75},
              {-0.0625, -0.0625, -0.8125, 1.875, -0.5625, 0.4375, -1.0625, 0.4375, 1.125, -1.3125,
               -0.375, -1.75, 0.4375, 2.25, -1.5, -0.9375, 1.5, 1.125, -0.75, 0.75});
}

TEST_CASE("the gradients of a Conv2d and a Conv3d are torch's") {
  ConvGeometry g;  // nn.Conv2d(2, 2, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), padding_mode="reflect") on v(1, 2, 4, 3)
  g.in = g.out = 2;
  g.input = {1, 4, 3};
  g.kernel = {1, 3, 2};
  g.stride = {1, 2, 1};
  g.dilation = {1, 1, 2};
  g.padding_before = g.padding_after = {0, 1, 2};
  g.padding_mode = PaddingMode::reflect;
  check_torch(g, {-1.0625, 1.5625, 0.6875, -4.125, -1.5, 1.125, -1.3125, 1.3125, 5.75, 0.9375, -1.75, 0.875,
                  -0.4375, -0.8125, 0.0625, 0.75, -0.3125, -0.6875, 0.1875, -0.1875, -2.5, -1.8125, 0.3125, -0.0625},
              {-0.5, 1.25},
              {0, -0.4375, 1.75, -2.4375, -0.5, -0.375, 2.9375, 1.3125, -3.375, 0.1875, -1, 0.375,
               -1.875, 0.1875, -0.9375, 3.4375, 1.9375, -0.1875, 0.375, -0.75, 0.5625, -0.75, -2.25, -0.5625});
  ConvGeometry cube;  // nn.Conv3d(2, 2, (2, 1, 2), stride=(1, 2, 1), padding=(1, 0, 1), dilation=(2, 1, 1), groups=2) on v(1, 2, 3, 2, 2)
  cube.in = cube.out = cube.groups = 2;
  cube.input = {3, 2, 2};
  cube.kernel = {2, 1, 2};
  cube.stride = {1, 2, 1};
  cube.padding_before = cube.padding_after = {1, 0, 1};
  cube.dilation = {2, 1, 1};
  check_torch(cube, {0.3125, 1.625, -2.3125, 0.875, -1.9375, 2.0625, -0.3125, -1.3125}, {0.75, -0.5},
              {-0.625, 0.5, 0, 0, 1.5, -0.8125, 0, 0, 2.1875, -1.25, 0, 0, 0.1875, 0.4375, 0, 0, 2.625, -0.75, 0, 0, -1.625, -1.125, 0, 0});
  ConvGeometry same;  // nn.Conv2d(2, 2, (2, 4), padding="same") on v(1, 2, 3, 2)
  same.in = same.out = 2;
  same.input = {1, 3, 2};
  same.kernel = {1, 2, 4};
  same.pad_same();
  check_torch(same, {2.4375, 1.4375, -0.8125, 0, -2.125, -0.875, 0.6875, 0, 2.5625, 1.75, -0.625, 0, -2, -0.8125, 0.625, 0,
                     3.3125, 2.0625, -1.0625, 0, -0.875, 0.875, 1.1875, 0, 3.0625, 1.625, -1.25, 0, -1, 0.4375, 0.875, 0},
              {1.25, -1.75}, {-1, -0.625, 0.875, -0.25, 3.375, 2.625, 1.1875, -0.875, 0, 0.5, -1.8125, 3.125});
}

// nn.Conv2d(4, 4, (2, 1), stride=(2, 1), padding=(1, 0), groups=2) under LoraConfig(r=2, lora_alpha=3, lora_bias=True),
// lora_A = w(2, 4, 2, 1), lora_B = v(4, 1, 1, 1, a=7, b=3, m=11), x = v(1, 4, 3, 2), dy = v(1, 4, 2, 2, a=7, b=3, m=11)
TEST_CASE("the gradients of LoRA on a grouped Conv2d are PEFT's") {
  ConvGeometry g;
  g.in = g.out = 4;
  g.groups = 2;
  g.input = {1, 3, 2};
  g.kernel = {1, 2, 1};
  g.stride = {1, 2, 1};
  g.padding_before = g.padding_after = {0, 1, 0};
  const auto x = lattice<double>(24), A = lattice<double>(16, 29, 5, 13), B = lattice<double>(4, 7, 3, 11),
             dy = lattice<double>(16, 7, 3, 11);
  Values dA(16), dB(4), dbeta(4), dx(24), scratch(std::size_t(kernels::low_rank_conv_backward_scratch(g, 2)));
  kernels::low_rank_conv_backward<double>(g, 2, x.data(), A.data(), B.data(), nullptr, 1.5, dy.data(),
                                          {dA.data(), dB.data(), nullptr, dbeta.data(), dx.data()}, scratch.data());
  CHECK(close(dA, {1.6640625, 1.8046875, 1.640625, 2.109375, 1.6171875, 2.4140625, 1.59375, 6.703125, -0.421875, -3.09375,
                   -0.4921875, -3.7265625, -0.5625, -4.359375, -0.6328125, -1.8046875},
              1e-14));
  CHECK(close(dB, {8.2734375, -3.703125, -1.5703125, 8.2265625}, 1e-14));
  CHECK(close(dbeta, {0.375, 1.125, -2.25, 2.625}, 1e-14));
  CHECK(close(dx, {1.125, -0.46875, -0.2578125, 0.4921875, -1.03125, 0.984375, -5.0625, 0.046875, -1.8046875, 1.4765625, 4.125,
                   -4.4296875, 0.9375, -0.046875, 0, 0.328125, -0.7734375, 0.8203125, -5.25, 0.46875, -1.546875, 1.3125, 4.3828125,
                   -4.59375},
              1e-14));
}

// nn.Conv2d(2, 3, (1, 3), stride=(1, 2), padding=(0, 2), padding_mode="circular") under AdaLoraConfig(init_r=3, lora_alpha=2),
// lora_A = w(3, 6), lora_B = v(3, 3, a=7, b=3, m=11), lora_E = v(3, 1, a=5, b=2, m=7), x = v(1, 2, 1, 5), dy = v(1, 3, 1, 4,
// a=7, b=3, m=11): AdaLoRA pads with zeros. Its scale carries a float's rounding in PEFT.
TEST_CASE("the gradients of AdaLoRA on a Conv2d are PEFT's") {
  ConvGeometry g;
  g.in = 2;
  g.out = 3;
  g.input = {1, 1, 5};
  g.kernel = {1, 1, 3};
  g.stride = {1, 1, 2};
  g.padding_before = g.padding_after = {0, 0, 2};
  const auto x = lattice<double>(10), A = lattice<double>(18, 29, 5, 13), B = lattice<double>(9, 7, 3, 11),
             E = lattice<double>(3, 5, 2, 7), dy = lattice<double>(12, 7, 3, 11);
  Values dA(18), dB(9), de(3), dx(10), scratch(std::size_t(kernels::low_rank_conv_backward_scratch(g, 3)));
  kernels::low_rank_conv_backward<double>(g, 3, x.data(), A.data(), B.data(), E.data(), 2 / (3 + 1e-5), dy.data(),
                                          {dA.data(), dB.data(), de.data(), nullptr, dx.data()}, scratch.data());
  CHECK(close(dA, {-0.010416631944560162, -0.13020789930700227, 0.24999916666944444, -0.010416631944560162, -0.067708107639641246,
                   -0.15104116319612271, -0.68749770834097212, -0.66406028646571169, 0.47656091146362828, -0.085937213542621543,
                   -0.58593554688151017, -0.726560078133073, 0.20833263889120368, 0.33854053819820595, -0.42187359375468747,
                   0.03645821180596065, 0.24479085069716433, 0.38020706597644671},
              1e-7));
  CHECK(close(dB, {0.83333055556481472, -2.0234307552308159, -0.91666361112129646, -0.72395592014693277, -0.99999666667777776,
                   -2.4166586111379624, -0.13281205729314238, 2.6015538281539059, 2.9010319965600115},
              1e-7));
  CHECK(close(de, {-1.0364548784837384, 2.1041596528011572, -1.9088478038406538}, 1e-7));
  CHECK(close(dx, {-0.38281122396258682, 0.3645821180596065, 0.39062369792100693, -0.23958253472488428, 0.16145779514068276,
                   0.27083243055856476, -0.44270685764380791, -0.59895633681221061, 0.15364532118226271, 0.27864490451698498},
              1e-7));
}
