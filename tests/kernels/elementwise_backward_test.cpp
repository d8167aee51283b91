#include "graft/kernels/elementwise_backward.hpp"

#include <doctest/doctest.h>

#include "graft/kernels/elementwise.hpp"
#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {
/// dx must grow by dy times the slope at every element, in float within roundings of what the slope is made of.
template <class T, class Kernel, class Slope>
void check(Kernel&& kernel, Slope&& slope) {
  for (const Index cols : awkward) {
    CAPTURE(cols);
    Matrix<T> at(3, cols, 1, 2);
    const Matrix<T> dy(3, cols, 2, 5);
    Matrix<T> dx(3, cols, 3);
    const Matrix<T> before = dx;
    for (Index i = 0; i < 3; ++i)
      for (Index j = 0; j < cols; ++j) at(i, j) *= T(6);
    kernel(3, cols, static_cast<const T*>(at.data()), at.ld, dy.data(), dy.ld, dx.data(), dx.ld);
    bool all_close = true;
    for (Index i = 0; i < 3; ++i)
      for (Index j = 0; j < cols; ++j) {
        const double expected = before.at(i, j) + dy.at(i, j) * slope(at.at(i, j));
        all_close = all_close && std::abs(dx.at(i, j) - expected) <= 4 * tolerance<T> * (1 + std::abs(at.at(i, j)));
      }
    CHECK(all_close);
    CHECK(dx.storage != before.storage);
    CHECK(dx.gaps_are_intact());
  }
}
const double pi = std::acos(-1.0);
}  // namespace

TEST_CASE_TEMPLATE("gradients of activations are added, at every size", T, float, double) {
  check<T>([](auto... a) { kernels::relu_backward(a...); }, [](double x) { return x > 0 ? 1.0 : 0.0; });
  check<T>([](auto... a) { kernels::sigmoid_backward(a...); }, [](double y) { return y * (1 - y); });
  check<T>([](auto... a) { kernels::tanh_backward(a...); }, [](double y) { return 1 - y * y; });
  check<T>([](auto... a) { kernels::silu_backward(a...); }, [](double x) {
    const double s = 1 / (1 + std::exp(-x));
    return s + x * s * (1 - s);
  });
  check<T>([](auto... a) { kernels::gelu_erf_backward(a...); }, [](double x) {
    return (1 + std::erf(x / std::sqrt(2.0))) / 2 + x * std::exp(-x * x / 2) / std::sqrt(2 * pi);
  });
  check<T>([](auto... a) { kernels::gelu_tanh_backward(a...); }, [](double x) {
    const double inner = std::sqrt(2 / pi) * (x + 0.044715 * x * x * x), t = std::tanh(inner);
    return (1 + t) / 2 + x / 2 * (1 - t * t) * std::sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x);
  });
  check<T>([](auto... a) { kernels::add_product(a...); }, [](double x) { return x; });
}
