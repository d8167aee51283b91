#include "graft/kernels/elementwise.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

template <class T, class Kernel, class Plain>
void check_unary(Kernel&& kernel, Plain&& plain) {
  for (const Index cols : awkward) {
    Matrix<T> x(3, cols, 1), y(3, cols, 2, 5);
    for (Index i = 0; i < 3; ++i)
      for (Index j = 0; j < cols; ++j) x(i, j) *= T(6);
    kernel(3, cols, x.data(), x.ld, y.data(), y.ld);
    bool all_close = true;
    for (Index i = 0; i < 3; ++i)
      for (Index j = 0; j < cols; ++j) {
        const double expected = plain(x.at(i, j));
        // Relative to x, not to y: gelu's own formula cancels for negative x, in torch as here.
        all_close = all_close && std::abs(y.at(i, j) - expected) <= tolerance<T> * (1 + std::abs(x.at(i, j)));
      }
    CHECK(all_close);
    CHECK(y.gaps_are_intact());
    kernel(3, cols, x.data(), x.ld, x.data(), x.ld);  // in place
    bool equal = true;
    for (Index i = 0; i < 3; ++i)
      for (Index j = 0; j < cols; ++j) equal = equal && x(i, j) == y(i, j);
    CHECK(equal);
    CHECK(x.gaps_are_intact());
  }
}

template <class T>
void check_activations() {
  check_unary<T>([](auto... a) { kernels::relu(a...); }, [](double v) { return v < 0 ? 0 : v; });
  check_unary<T>([](auto... a) { kernels::sigmoid(a...); }, [](double v) { return 1 / (1 + std::exp(-v)); });
  check_unary<T>([](auto... a) { kernels::silu(a...); }, [](double v) { return v / (1 + std::exp(-v)); });
  check_unary<T>([](auto... a) { kernels::tanh(a...); }, [](double v) { return std::tanh(v); });
  check_unary<T>([](auto... a) { kernels::gelu_erf(a...); },
                 [](double v) { return 0.5 * v * (1 + std::erf(v / std::sqrt(2.0))); });
  check_unary<T>([](auto... a) { kernels::gelu_tanh(a...); },
                 [](double v) {
                   return 0.5 * v *
                          (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (v + 0.044715 * v * v * v)));
                 });
}

template <class T, class Kernel>
std::vector<T> of_list(Kernel&& kernel) {
  const std::vector<T> x = {T(-6), T(-3.5), T(-1), T(-0.1), T(0), T(1e-3), T(0.5), T(0.7), T(2), T(5)};
  std::vector<T> y(10, T(99));
  kernel(1, 10, x.data(), 10, y.data(), 10);
  return y;
}

template <class T>
void check_golden() {
  const double bound = tolerance<T>;
  CHECK(close(of_list<T>([](auto... a) { kernels::silu(a...); }),
              {-0.014835738939808647, -0.10259280762974712, -0.2689414213699951, -0.047502081252106004, 0,
               0.00050024999997916667, 0.3112296656009273, 0.46773144051771626, 1.7615941559557646,
               4.9665357453785761},
              bound));
  CHECK(close(of_list<T>([](auto... a) { kernels::sigmoid(a...); }),
              {0.0024726231566347743, 0.029312230751356319, 0.2689414213699951, 0.47502081252105999, 0.5,
               0.50024999997916664, 0.62245933120185459, 0.66818777216816616, 0.88079707797788231,
               0.99330714907571527},
              bound));
  CHECK(close(
      of_list<T>([](auto... a) { kernels::tanh(a...); }),
      {-0.99998771165079559, -0.99817789761119868, -0.76159415595576485, -0.099667994624955819, 0,
       0.0009999996666668, 0.46211715726000974, 0.6043677771171635, 0.9640275800758169, 0.99990920426259511},
      bound));
  CHECK(close(of_list<T>([](auto... a) { kernels::gelu_erf(a...); }),
              {-5.9195258694799691e-09, -0.00081420177662439031, -0.15865525393145702, -0.046017216272297101,
               0, 0.00050039894221391105, 0.34573123063700656, 0.53062544344384888, 1.9544997361036416,
               4.9999985667421409},
              bound));
  CHECK(close(of_list<T>([](auto... a) { kernels::gelu_tanh(a...); }),
              {-8.43964897967453e-11, -0.00061619765537374027, -0.15880800939172324, -0.046017248954564841, 0,
               0.00050039894221358199, 0.34571400982514394, 0.53057013470511671, 1.954597694087775,
               4.9999997708203807},
              bound));
}

}  // namespace

TEST_CASE("activations are their formulas, in place and out of place") {
  check_activations<float>();
  check_activations<double>();
}

// x = torch.tensor([-6, -3.5, -1, -0.1, 0, 1e-3, 0.5, 0.7, 2, 5], dtype=torch.float64)
// F.silu(x), torch.sigmoid(x), torch.tanh(x), F.gelu(x), F.gelu(x, approximate="tanh")
TEST_CASE("activations give torch's numbers") {
  check_golden<float>();
  check_golden<double>();
}

TEST_CASE("NaN passes through every activation, and only its own element") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto check = [&](auto&& kernel) {
    std::vector<float> x(21, 0.5f), y(21, 99.0f);
    x[2] = x[20] = nan;
    kernel(1, 21, x.data(), 21, y.data(), 21);
    for (std::size_t i = 0; i < 21; ++i) CHECK(std::isnan(y[i]) == (i == 2 || i == 20));
  };
  check([](auto... a) { kernels::relu(a...); });
  check([](auto... a) { kernels::sigmoid(a...); });
  check([](auto... a) { kernels::silu(a...); });
  check([](auto... a) { kernels::tanh(a...); });
  check([](auto... a) { kernels::gelu_erf(a...); });
  check([](auto... a) { kernels::gelu_tanh(a...); });
}

TEST_CASE("large inputs do not overflow into NaN") {
  const std::vector<float> x = {-200, -90, 90, 200};
  std::vector<float> y(4, 99.0f);
  kernels::silu(1, 4, x.data(), 4, y.data(), 4);
  CHECK(y == std::vector<float>{0, -90 / (1 + std::exp(90.0f)), 90, 200});
  kernels::sigmoid(1, 4, x.data(), 4, y.data(), 4);
  CHECK(y[0] == 0);
  CHECK(y[3] == 1);
  kernels::gelu_tanh(1, 4, x.data(), 4, y.data(), 4);
  CHECK(y == std::vector<float>{0, 0, 90, 200});
}

template <class T>
static void check_arithmetic(Index cols) {
  const Matrix<T> a(3, cols, 1), b(3, cols, 2, 1), l(1, cols, 3);
  const auto check = [&](auto&& kernel, auto&& expected) {
    Matrix<T> y(3, cols, 4, 2);
    const Matrix<T> before = y;
    kernel(y);
    bool all_close = true;
    for (Index i = 0; i < 3; ++i)
      for (Index j = 0; j < cols; ++j)
        all_close = all_close && std::abs(y.at(i, j) - expected(before.at(i, j), i, j)) <= tolerance<T>;
    CHECK(all_close);
    CHECK(y.gaps_are_intact());
  };
  const T weight = T(0.25);
  check([&](auto& y) { kernels::add(3, cols, a.data(), a.ld, b.data(), b.ld, y.data(), y.ld); },
        [&](double, Index i, Index j) { return a.at(i, j) + b.at(i, j); });
  check([&](auto& y) { kernels::multiply(3, cols, a.data(), a.ld, b.data(), b.ld, y.data(), y.ld); },
        [&](double, Index i, Index j) { return a.at(i, j) * b.at(i, j); });
  check([&](auto& y) { kernels::scale(3, cols, weight, a.data(), a.ld, y.data(), y.ld); },
        [&](double, Index i, Index j) { return 0.25 * a.at(i, j); });
  check([&](auto& y) { kernels::add_scaled(3, cols, weight, a.data(), a.ld, y.data(), y.ld); },
        [&](double y, Index i, Index j) { return y + 0.25 * a.at(i, j); });
  check([&](auto& y) { kernels::add_scaled(3, cols, weight, l.data(), 0, y.data(), y.ld); },
        [&](double y, Index, Index j) { return y + 0.25 * l.at(0, j); });
  check([&](auto& y) { kernels::scale_columns(3, cols, a.data(), a.ld, l.data(), T(1), y.data(), y.ld); },
        [&](double, Index i, Index j) { return a.at(i, j) * l.at(0, j); });
  check([&](auto& y) { kernels::scale_columns(3, cols, y.data(), y.ld, l.data(), weight, y.data(), y.ld); },
        [&](double y, Index, Index j) { return y * (1 + 0.25 * (l.at(0, j) - 1)); });
}

TEST_CASE("adding, multiplying and scaling do so element by element") {
  for (const Index cols : awkward) {
    check_arithmetic<float>(cols);
    check_arithmetic<double>(cols);
  }
}

TEST_CASE("scale_channels scales all positions of a channel alike") {
  for (const Index positions : {1, 5, 17}) {
    const Matrix<float> l(1, 3, 1);
    for (const float weight : {1.0f, 0.5f}) {
      Matrix<float> y(2, 3 * positions, 2);
      const Matrix<float> x = y;
      kernels::scale_channels(2, 3, positions, y.data(), y.ld, l.data(), weight, y.data(), y.ld);
      for (Index i = 0; i < 2; ++i)
        for (Index j = 0; j < 3 * positions; ++j) {
          const double factor = 1 + double(weight) * (l.at(0, j / positions) - 1);
          CHECK(std::abs(y.at(i, j) - x.at(i, j) * factor) <= tolerance<float>);
        }
      CHECK(y.gaps_are_intact());
    }
  }
}
