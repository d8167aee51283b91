#pragma once

#include <string>
#include <type_traits>

#include "../core/python_float.hpp"
#include "../core/error.hpp"
#include "../tensor/rows.hpp"
#include "describe.hpp"
#include "ops.hpp"

namespace graft {

// Modules without parameters, under torch's names, so that a model has the tree of the one it mirrors. What
// `extra_repr()` returns stands in the parentheses of its line in that tree, in any module.

/// max(x, 0).
struct ReLU {
  auto operator()(const auto& x) const { return relu(x); }
  GRAFT_MODULE()
};

/// x · sigmoid(x).
struct SiLU {
  auto operator()(const auto& x) const { return silu(x); }
  GRAFT_MODULE()
};

/// x · Φ(x), or its approximation by tanh.
struct GELU {
  GELU(Gelu approximation = Gelu::erf) : form(approximation) {}

  Gelu form;

  auto operator()(const auto& x) const { return gelu(x, form); }
  [[nodiscard]] std::string extra_repr() const { return form == Gelu::erf ? "approximate='none'" : "approximate='tanh'"; }
  GRAFT_MODULE()
};

struct Tanh {
  auto operator()(const auto& x) const { return graft::tanh(x); }
  GRAFT_MODULE()
};

/// 1 / (1 + exp(−x)).
struct Sigmoid {
  auto operator()(const auto& x) const { return sigmoid(x); }
  GRAFT_MODULE()
};

namespace detail {
/// A value of its own: an expression would outlive what it refers to.
template <class X>
auto same_value(const X& x) {
  if constexpr (MatrixLike<X>) return Matrix<typename X::Scalar>(x);
  else return x;
}
}  // namespace detail

/// x.
struct Identity {
  auto operator()(const auto& x) const { return detail::same_value(x); }
  GRAFT_MODULE()
};

/// A dropout of the base model, which is never in training mode: x. An adapter's own is `lora_dropout`.
struct Dropout {
  /// @throws ConfigError unless p is in [0, 1].
  explicit Dropout(double probability = 0.5) : p(probability) {
    if (!(p >= 0 && p <= 1))
      fail<ConfigError>("a dropout of p = " + detail::python_float(p), "p is the probability that an element is dropped",
                        "choose it from 0 to 1");
  }

  double p;

  auto operator()(const auto& x) const { return detail::same_value(x); }
  [[nodiscard]] std::string extra_repr() const { return "p=" + detail::python_float(p) + ", inplace=False"; }
  GRAFT_MODULE()
};

}  // namespace graft
