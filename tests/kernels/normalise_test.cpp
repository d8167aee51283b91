#include "graft/kernels/normalise.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

template <class T, class W>
void check_norms(Index cols, double shift) {
  CAPTURE(cols);
  Matrix<T> x(3, cols, 1), rms(3, cols, 2, 1), layer(3, cols, 3, 2), plain(3, cols, 4);
  const Matrix<W> weight(1, cols, 5), bias(1, cols, 6);
  const W* none = nullptr;
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < cols; ++j) x(i, j) += T(shift);
  const double eps = 1e-3;
  kernels::rms_norm(3, cols, x.data(), x.ld, weight.data(), eps, rms.data(), rms.ld);
  kernels::layer_norm(3, cols, x.data(), x.ld, weight.data(), bias.data(), eps, layer.data(), layer.ld);
  kernels::layer_norm(3, cols, x.data(), x.ld, none, none, eps, plain.data(), plain.ld);
  // The rounding of x - mean is relative to x, and grows with 1 / deviation.
  const double bound = 8 * double(std::numeric_limits<T>::epsilon()) * (1 + std::abs(shift)) / std::sqrt(eps);
  bool all_close = true;
  for (Index i = 0; i < 3; ++i) {
    double sum = 0, squares = 0, deviations = 0;
    for (Index j = 0; j < cols; ++j) sum += x.at(i, j), squares += x.at(i, j) * x.at(i, j);
    const double mean = sum / double(cols);
    for (Index j = 0; j < cols; ++j) deviations += (x.at(i, j) - mean) * (x.at(i, j) - mean);
    for (Index j = 0; j < cols; ++j) {
      const double by_rms = x.at(i, j) / std::sqrt(squares / double(cols) + eps) * weight.at(0, j);
      const double by_layer = (x.at(i, j) - mean) / std::sqrt(deviations / double(cols) + eps);
      all_close = all_close && std::abs(rms.at(i, j) - by_rms) <= bound &&
                  std::abs(plain.at(i, j) - by_layer) <= bound &&
                  std::abs(layer.at(i, j) - (by_layer * weight.at(0, j) + bias.at(0, j))) <= bound;
    }
  }
  CHECK(all_close);
  CHECK(rms.gaps_are_intact());
  CHECK(layer.gaps_are_intact());
  CHECK(plain.gaps_are_intact());
}

template <class T>
void check_softmax(Index cols, T factor) {
  CAPTURE(cols);
  const Matrix<T> x(3, cols, 1);
  Matrix<T> y(3, cols, 2, 1);
  kernels::softmax(3, cols, x.data(), x.ld, y.data(), y.ld, factor);
  bool all_close = true;
  for (Index i = 0; i < 3; ++i) {
    double sum = 0;
    for (Index j = 0; j < cols; ++j) sum += std::exp(double(factor) * x.at(i, j));
    for (Index j = 0; j < cols; ++j) {
      const double expected = std::exp(double(factor) * x.at(i, j)) / sum;
      all_close = all_close &&
                  std::abs(y.at(i, j) - expected) <= (8 + 2 * std::abs(double(factor))) *
                                                         double(std::numeric_limits<T>::epsilon()) * expected;
    }
  }
  CHECK(all_close);
  CHECK(y.gaps_are_intact());
}

template <class T>
void check_log_sum_exp(Index cols, double shift) {
  CAPTURE(cols);
  Matrix<T> x(3, cols, 1);
  std::vector<double> y(4, 99);
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < cols; ++j) x(i, j) += T(shift);
  kernels::log_sum_exp(3, cols, x.data(), x.ld, y.data());
  for (Index i = 0; i < 3; ++i) {
    double sum = 0;
    for (Index j = 0; j < cols; ++j) sum += std::exp(x.at(i, j) - shift);
    // the relative error of the sum is that of an exponential and of its argument, which is rounded near x
    const double bound = (8 + std::abs(shift)) * double(std::numeric_limits<T>::epsilon());
    CHECK(std::abs(y[std::size_t(i)] - (shift + std::log(sum))) <= bound);
  }
  CHECK(y[3] == 99);
}

}  // namespace

TEST_CASE("log_sum_exp is its formula, however large its terms") {
  for (const Index cols : awkward)
    for (const double shift : {0.0, -500.0, 1000.0}) {
      check_log_sum_exp<float>(cols, shift);
      check_log_sum_exp<double>(cols, shift);
    }
}

TEST_CASE("rms_norm and layer_norm are their formulas") {
  for (const Index cols : awkward) {
    check_norms<float, float>(cols, 0);
    check_norms<float, graft::bf16>(cols, 0);
    check_norms<double, double>(cols, 0);
    check_norms<float, float>(cols, 100);  // a mean that drowns the deviations of a single pass
    check_norms<double, double>(cols, -1000);
  }
  check_norms<float, float>(5000, 3);
}

// v(*shape, a=37, b=11, m=17): ((i * a + b) % m - m // 2) / 4, reshaped; w = v with a=29, b=5, m=13;
// bias = v with a=7, b=3, m=5. F.layer_norm(v(2, 5) + 1, (5,), w(5), bias(5), 1e-5)
TEST_CASE("layer_norm gives torch's numbers") {
  std::vector<float> x = lattice<float>(10), w = lattice<float>(5, 29, 5, 13), b = lattice<float>(5, 7, 3, 5),
                     y(10);
  for (float& value : x) value += 1;
  kernels::layer_norm(2, 5, x.data(), 5, w.data(), b.data(), 1e-5, y.data(), 5);
  CHECK(close(y,
              {0.044709382460077718, 0.20385354585116211, -1.6618764277041325, 1.4286956507758388,
               -0.17179405046098201, 0.210897025230491, -0.12852173968966457, 1.6618764277041322,
               2.2596338646279048, 0.16058123507984451},
              5e-7));
}

// LlamaRMSNorm(5, 1e-6) with weight w(5) on v(2, 5), in float
TEST_CASE("rms_norm gives the numbers of transformers' Llama") {
  std::vector<float> x = lattice<float>(10), w = lattice<float>(5, 29, 5, 13), y(10);
  kernels::rms_norm(2, 5, x.data(), 5, w.data(), 1e-6, y.data(), 5);
  CHECK(close(y,
              {-0.1427600234746933, 0.57104009389877319, -1.903467059135437, 1.1896668672561646,
               0.19034670293331146, -0.048841524869203568, 0.39073219895362854, 1.7094533443450928,
               1.7094533443450928, 0.39073219895362854},
              5e-7));
}

template <class T>
static void check_growing_softmax(Index n, Index first, Index more) {
  CAPTURE(n);
  const Index widest = first + (n - 1) * more;
  const Matrix<T> x(n, widest, 1);
  Matrix<T> y(n, widest, 2), alone = y;
  kernels::softmax(n, first, x.data(), x.ld, y.data(), y.ld, T(0.5), more);
  for (Index i = 0; i < n; ++i) kernels::softmax(1, first + i * more, &x(i, 0), x.ld, &alone(i, 0), alone.ld, T(0.5));
  CHECK(y.storage == alone.storage);
}

TEST_CASE("softmax of rows that grow has the bits of each alone, and writes no more") {
  for (const Index n : {1, 2, 15, 16, 17, 33})
    for (const Index more : {0, 1, 3}) {
      check_growing_softmax<float>(n, 1, more);
      check_growing_softmax<float>(n, 40, more);
      check_growing_softmax<double>(n, 7, more);
    }
}

TEST_CASE("softmax is its formula, also with a factor") {
  for (const Index cols : awkward)
    for (const float factor : {1.0f, 0.125f, -2.0f, 40.0f}) {
      check_softmax<float>(cols, factor);
      check_softmax<double>(cols, double(factor));
    }
}

// torch.softmax(v(7), -1)
TEST_CASE("softmax gives torch's numbers, and does not overflow") {
  std::vector<float> x = lattice<float>(7), y(7);
  const std::vector<double> expected = {0.18203914310407374, 0.38537686897548118,  0.011637373074545205,
                                        0.02463631899214009, 0.052155087715635727, 0.11041232156043633,
                                        0.23374288657768769};
  kernels::softmax(1, 7, x.data(), 7, y.data(), 7);
  CHECK(close(y, expected, 5e-7));
  for (float& value : x) value += 1024;
  kernels::softmax(1, 7, x.data(), 7, x.data(), 7);
  CHECK(close(x, expected, 5e-7));
}

TEST_CASE("masked scores get nothing, NaN and a wholly masked row give NaN, and rows are apart") {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const Index cols : {3, 19, 40}) {
    Matrix<float> x(4, cols, 1);
    for (Index j = 0; j < cols; ++j) x(1, j) = -inf;
    x(0, 0) = x(0, cols - 1) = -inf;
    x(2, cols - 1) = nan;
    kernels::softmax(4, cols, x.data(), x.ld, x.data(), x.ld);
    CHECK(x(0, 0) == 0);
    CHECK(x(0, cols - 1) == 0);
    double sum = 0;
    for (Index j = 0; j < cols; ++j) {
      sum += x.at(0, j);
      CHECK(std::isnan(x(1, j)));
      CHECK(std::isnan(x(2, j)));
      CHECK(std::isfinite(x(3, j)));
    }
    CHECK(std::abs(sum - 1) < 1e-6);
  }
}

TEST_CASE("NaN in a row reaches all of its norm and no other row") {
  Matrix<float> x(2, 37, 1), y(2, 37, 2);
  const float* none = nullptr;
  x(0, 36) = std::numeric_limits<float>::quiet_NaN();
  kernels::rms_norm(2, 37, x.data(), x.ld, none, 1e-6, y.data(), y.ld);
  for (Index j = 0; j < 37; ++j) CHECK(std::isnan(y(0, j)) != std::isnan(y(1, j)));
  kernels::layer_norm(2, 37, x.data(), x.ld, none, none, 1e-6, y.data(), y.ld);
  for (Index j = 0; j < 37; ++j) CHECK(std::isnan(y(0, j)) != std::isnan(y(1, j)));
}
