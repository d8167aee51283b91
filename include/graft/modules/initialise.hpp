#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include "../tensor/init.hpp"
#include "layer_traits.hpp"
#include "parameters.hpp"
#include "visit.hpp"

namespace graft {

namespace detail {
/// Draws through a scalar Eigen expression: for members that are not Parameters.
template <class E>
void draw_uniform(E& values, const Seed& seed, double bound) {
  using T = typename E::Scalar;
  for_each_random(seed, values.size(), [&](Index i, auto u) {
    values(i / values.cols(), i % values.cols()) = T((2 * u[0] - 1) * bound);
  });
}

/// torch's defaults of a layer: weights and biases U(±1/√fan_in), embeddings N(0, 1) with a zero padding row.
template <class L>
void initialise_layer(L& layer, std::string_view path, std::uint64_t seed) {
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
    auto&& view = traits_of<L>::weight(layer);
    if (facts.kind == LayerKind::embedding) {
      ParameterData values(Dtype::f64, {view.rows(), view.cols()});
      fill_normal(values, {seed, weight}, 1);
      const auto* drawn = reinterpret_cast<const double*>(values.data());
      using T = typename std::remove_cvref_t<decltype(view)>::Scalar;
      for (Index i = 0; i < view.size(); ++i) view(i / view.cols(), i % view.cols()) = T(drawn[i]);
    } else {
      draw_uniform(view, {seed, weight}, bound);
    }
    with_bias(layer, [&](auto& values) {
      using T = typename std::remove_cvref_t<decltype(values)>::Scalar;
      for_each_random({seed, bias}, values.size(), [&](Index i, auto u) { values(i) = T((2 * u[0] - 1) * bound); });
    });
  }
}

struct Initialiser {
  std::uint64_t seed;

  template <class Node>
  void operator()(std::string_view path, Node& node) const {
    if constexpr (enable_site<Node>) initialise_layer(node.base_layer(), path, seed);
    else if constexpr (has_layer_traits<Node>) initialise_layer(node, path, seed);
    else if constexpr (requires { node.weight.untyped(); node.eps; }) {  // norms start at the identity
      fill_constant(node.weight.untyped(), 1);
      if constexpr (requires { node.bias.untyped(); })
        if (node.bias.size()) fill_constant(node.bias.untyped(), 0);
    }
  }
};
}  // namespace detail

/// Fills a model's base layers with torch's default distributions, each value by (seed, path, index): the same
/// whatever else the model holds. Constructors leave zeros. Adapters are not touched.
template <class M>
void initialise(M& model, std::uint64_t seed) {
  visit(model, detail::Initialiser{seed});
}

}  // namespace graft
