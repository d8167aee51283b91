#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include "layer_traits.hpp"
#include "parameters.hpp"
#include "random_fill.hpp"
#include "visit.hpp"

namespace graft {

namespace detail {
/// Draws through a scalar Eigen expression: for members that are not Parameters.
template <class E>
void draw_uniform(E& values, const Seed& seed, double bound) {
  using T = typename E::Scalar;
  for_each_uniform(seed, values.size(), [&](Index i, double u) {
    values.coeffRef(i / values.cols(), i % values.cols()) = T((2 * u - 1) * bound);
  });
}

template <class E>
void draw_normal(E& values, const Seed& seed) {
  using T = typename E::Scalar;
  ParameterData drawn(Dtype::f64, {values.rows(), values.cols()});
  fill_normal(drawn, seed, 1);
  const auto* numbers = reinterpret_cast<const double*>(drawn.data());
  for (Index i = 0; i < values.size(); ++i) values.coeffRef(i / values.cols(), i % values.cols()) = T(numbers[i]);
}

/// torch's default of a norm.
template <class Norm>
void start_at_identity(Norm& norm) {
  if constexpr (requires { norm.weight.untyped(); }) fill_constant(norm.weight.untyped(), 1);
  if constexpr (requires { norm.bias.untyped(); })
    if (norm.bias.size()) fill_constant(norm.bias.untyped(), 0);
}

/// torch's defaults of a layer: weights and biases U(±1/√fan_in), embeddings N(0, 1) with a zero padding row.
template <class L>
void initialise_layer(L& layer, std::string_view path, std::uint64_t seed) {
  if constexpr (traits_of<L>::kind == LayerKind::parameter) return;  // torch has no default for a bare parameter
  if constexpr (requires { traits_of<L>::initialise(layer, path, seed); }) return traits_of<L>::initialise(layer, path, seed);
  if constexpr (traits_of<L>::kind == LayerKind::norm) return start_at_identity(layer);
  const LayerFacts facts = facts_of(layer);
  const std::string weight = std::string(path) + ".weight", bias = std::string(path) + ".bias";
  const Index fan_in = facts.kind == LayerKind::conv ? facts.in / facts.conv.groups * facts.conv.kernel.size() : facts.in;
  const double bound = fan_in > 0 ? 1 / std::sqrt(double(fan_in)) : 0;
  if constexpr (requires { layer.weight.untyped(); }) {
    if (facts.kind == LayerKind::embedding) {
      fill_normal(layer.weight.untyped(), {seed, weight}, 1);
      if constexpr (requires { layer.options.padding_idx; })
        if (layer.options.padding_idx) layer.weight.view().row(*layer.options.padding_idx).setConstant({});
    } else {
      fill_uniform(layer.weight.untyped(), {seed, weight}, bound);
    }
    if constexpr (requires { layer.bias.untyped(); })
      if (layer.bias.size()) fill_uniform(layer.bias.untyped(), {seed, bias}, bound);
  } else if constexpr (has_weight<L>) {
    if constexpr (WritableView<decltype(weight_of(layer))>) {
      auto&& values = weight_of(layer);
      if (facts.kind == LayerKind::embedding) draw_normal(values, {seed, weight});
      else draw_uniform(values, {seed, weight}, bound);
    }
    if constexpr (has_bias_access<L>)
      if constexpr (WritableView<decltype(bias_of(layer))>)
        with_bias(layer, [&](auto& values) { draw_uniform(values, {seed, bias}, bound); });
  }
}

struct Initialiser {
  std::uint64_t seed;

  template <class Node>
  void operator()(std::string_view path, Node& node) const {
    if constexpr (std::is_const_v<Node> || enable_parameter<Node>) return;
    else if constexpr (enable_site<Node>) initialise_layer(node.base_layer(), path, seed);
    else if constexpr (has_layer_traits<Node>) initialise_layer(node, path, seed);
    else if constexpr (requires { node.weight.untyped(); node.eps; }) start_at_identity(node);  // a norm of the user's
  }
};
}  // namespace detail

/// Fills a model's base layers with torch's default distributions, each value by (seed, path, index): the same
/// whatever else the model holds. Constructors leave zeros. Adapters are not touched,
/// nor are const members.
template <class M>
void initialise(M& model, std::uint64_t seed) {
  visit(model, detail::Initialiser{seed});
}

}  // namespace graft
