#pragma once

#include <span>
#include <string>

#include "../kernels/elementwise.hpp"
#include "../kernels/normalise.hpp"
#include "op.hpp"

namespace graft {

/// The two formulas of gelu: torch's exact one, and its approximate = "tanh".
enum class Gelu { erf, tanh };

namespace ops {
/// Keeps the shape of its first operand; two operands must agree.
struct Elementwise {
  [[nodiscard]] static Shape shape(std::span<const Shape> x) {
    for (const Shape& other : x)
      if (other != x[0])
        fail<ShapeError>("an op on rows of " + to_string(x[0]) + " and " + to_string(other),
                         "elements are paired one by one", "bring both to one shape");
    return x[0];
  }
};

#define GRAFT_VJP                                                                                         \
  template <class T>                                                                                      \
  void vjp(const BatchView&, Gradients&, const In<T>& dy, const In<T>& y, std::span<const In<T>> x,       \
           std::span<const Out<T>> dx) const;
#define GRAFT_UNARY_OP(Name, kernel)                                                                      \
  struct Name : Elementwise {                                                                             \
    template <class T>                                                                                    \
    void forward(const BatchView&, Out<T> y, std::span<const In<T>> x) const {                            \
      kernels::kernel<T>(y.rows(), y.cols(), x[0].data(), x[0].outerStride(), y.data(), y.outerStride()); \
    }                                                                                                     \
    GRAFT_VJP                                                                                             \
  };
GRAFT_UNARY_OP(Relu, relu)
GRAFT_UNARY_OP(Silu, silu)
GRAFT_UNARY_OP(Tanh, tanh)
GRAFT_UNARY_OP(Sigmoid, sigmoid)
GRAFT_UNARY_OP(GeluErf, gelu_erf)
GRAFT_UNARY_OP(GeluTanh, gelu_tanh)
#undef GRAFT_UNARY_OP

#define GRAFT_BINARY_OP(Name, kernel)                                                                       \
  struct Name : Elementwise {                                                                               \
    template <class T>                                                                                      \
    void forward(const BatchView&, Out<T> y, std::span<const In<T>> x) const {                              \
      kernels::kernel<T>(y.rows(), y.cols(), x[0].data(), x[0].outerStride(), x[1].data(),                  \
                         x[1].outerStride(), y.data(), y.outerStride());                                    \
    }                                                                                                       \
    GRAFT_VJP                                                                                               \
  };
GRAFT_BINARY_OP(Add, add)
GRAFT_BINARY_OP(Mul, multiply)
#undef GRAFT_BINARY_OP

struct Scale : Elementwise {
  explicit Scale(double c) : factor(c) {}
  double factor;
  template <class T>
  void forward(const BatchView&, Out<T> y, std::span<const In<T>> x) const {
    kernels::scale<T>(y.rows(), y.cols(), T(factor), x[0].data(), x[0].outerStride(), y.data(), y.outerStride());
  }
  GRAFT_VJP
};

struct Softmax : Elementwise {
  template <class T>
  void forward(const BatchView&, Out<T> y, std::span<const In<T>> x) const {
    kernels::softmax<T>(y.rows(), y.cols(), x[0].data(), x[0].outerStride(), y.data(), y.outerStride());
  }
  GRAFT_VJP
};

/// Columns of x, then columns of y.
struct Concat {
  [[nodiscard]] Index cols(const auto& x) const { return x[0].cols() + x[1].cols(); }
  template <class T>
  void forward(const BatchView&, Out<T> y, std::span<const In<T>> x) const {
    y.leftCols(x[0].cols()) = x[0];
    y.rightCols(x[1].cols()) = x[1];
  }
  GRAFT_VJP
};

/// Columns [begin, begin + count).
struct Slice {
  Index begin, count;
  [[nodiscard]] Index cols(const auto& x) const {
    if (begin < 0 || count < 0 || begin + count > x[0].cols())
      fail<ShapeError>("columns " + std::to_string(begin) + " to " + std::to_string(begin + count) + " of " +
                           std::to_string(x[0].cols()),
                       "a slice lies inside its rows", "slice(x, begin, count)");
    return count;
  }
  template <class T>
  void forward(const BatchView&, Out<T> y, std::span<const In<T>> x) const {
    y = x[0].middleCols(begin, count);
  }
  GRAFT_VJP
};

/// Rows forget their shape; the bytes stay.
struct Flatten {
  static constexpr bool flattens = true;
  [[nodiscard]] static Shape shape(std::span<const Shape> x) { return Shape{x[0].size()}; }
  template <class T>
  void forward(const BatchView&, Out<T> y, std::span<const In<T>> x) const {
    y = x[0];
  }
  GRAFT_VJP
};
#undef GRAFT_VJP
}  // namespace ops

/// x + y, element by element.
auto add(const auto& x, const auto& y) { return custom(ops::Add{}, x, y); }
/// x ∘ y, element by element.
auto mul(const auto& x, const auto& y) { return custom(ops::Mul{}, x, y); }
/// c · x.
auto scale(const auto& x, double c) { return custom(ops::Scale(c), x); }
/// The columns of x and then those of y.
auto concat(const auto& x, const auto& y) { return custom(ops::Concat{}, x, y); }
/// `count` columns of x from `begin` on.
auto slice(const auto& x, Index begin, Index count) { return custom(ops::Slice{begin, count}, x); }
auto relu(const auto& x) { return custom(ops::Relu{}, x); }
auto silu(const auto& x) { return custom(ops::Silu{}, x); }
auto gelu(const auto& x, Gelu form = Gelu::erf) {
  return form == Gelu::erf ? custom(ops::GeluErf{}, x) : custom(ops::GeluTanh{}, x);
}
auto tanh(const auto& x) { return custom(ops::Tanh{}, x); }
auto sigmoid(const auto& x) { return custom(ops::Sigmoid{}, x); }
/// Over all features of a row.
auto softmax(const auto& x) { return custom(ops::Softmax{}, x); }
/// (n, channels, spatial…) → (n, features).
auto flatten(const auto& x) { return custom(ops::Flatten{}, x); }

}  // namespace graft
