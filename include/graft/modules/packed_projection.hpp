#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base_weight.hpp"
#include "linear.hpp"
#include "random_fill.hpp"

namespace graft {

/// Several linear layers over one input, with one weight: the rows of `in_proj_weight` (out, in) are those of the first,
/// then those of the second, and so on. It is what an attention computes queries, keys and values with.
template <class T = float, class Storage = dense>
struct PackedProjection {
  Parameter<T, Storage> in_proj_weight, in_proj_bias;

  PackedProjection(Index in, Index out, bool has_bias) : in_proj_weight(Shape{out, in}), in_proj_bias(Shape{has_bias ? out : 0}) {}
  /// The product with all of its rows.
  [[nodiscard]] auto op() const {
    return ops::Linear<T>{in_proj_weight.view().data(), in_proj_weight.rows(), in_proj_weight.cols(), detail::bias_data(in_proj_bias),
                          {in_proj_weight.requires_grad(), detail::trains_bias(in_proj_bias)}};
  }
  GRAFT_MODULE(in_proj_weight, in_proj_bias)
};

template <class T, class Storage>
struct layer_traits<PackedProjection<T, Storage>> {
  using Layer = PackedProjection<T, Storage>;
  using scalar = T;
  static constexpr LayerKind kind = LayerKind::linear;
  static constexpr bool packed = true;
  static Index in_features(const Layer& layer) { return layer.in_proj_weight.cols(); }
  static Index out_features(const Layer& layer) { return layer.in_proj_weight.rows(); }
  static bool has_bias(const Layer& layer) { return layer.in_proj_bias.size() != 0; }
  static decltype(auto) weight(auto& layer) { return layer.in_proj_weight.view(); }
  static std::uint64_t weight_version(const Layer& layer) { return layer.in_proj_weight.version(); }
  static auto bias(auto& layer) { return layer.in_proj_bias.view().row(0); }
  static auto& bias_parameter(auto& layer) { return layer.in_proj_bias; }
  /// y (n, count) from the rows [begin, begin + count) of the weight.
  static void forward_rows_into(const Layer& layer, Index begin, const In<compute_scalar<T>>& x, Out<compute_scalar<T>> y,
                                Workspace* workspace) {
    auto op = layer.op();
    op.keep_rows(begin, y.cols());
    detail::run_op<compute_scalar<T>>(op, x, y, workspace);
  }
  /// As torch's MultiheadAttention: Xavier's uniform weight, no bias.
  static void initialise(Layer& layer, std::string_view path, std::uint64_t seed) {
    const double sum = double(in_features(layer) + out_features(layer));
    fill_uniform(layer.in_proj_weight.untyped(), {seed, std::string(path) + ".in_proj_weight"}, sum > 0 ? std::sqrt(6 / sum) : 0);
    if (has_bias(layer)) fill_constant(layer.in_proj_bias.untyped(), 0);
  }
};

namespace detail {
/// Some rows of a packed projection, as a linear layer of their own.
template <class P>
struct ProjectionSlice {
  const P* whole;
  Index begin, count;
};
template <class L>
inline constexpr bool is_projection_slice = false;
template <class P>
inline constexpr bool is_projection_slice<ProjectionSlice<P>> = true;

/// The weight of a slice is that of the whole, of which rows stand in a result.
template <class P>
[[nodiscard]] BaseWeight<layer_scalar<P>> base_weight_of(const ProjectionSlice<P>& slice) {
  return base_weight_of(*slice.whole).from_row(slice.begin);
}
}  // namespace detail

template <class P>
struct layer_traits<detail::ProjectionSlice<P>> {
  using Layer = detail::ProjectionSlice<P>;
  using traits = detail::traits_of<P>;
  using scalar = typename traits::scalar;
  using T = compute_scalar<scalar>;
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const Layer& layer) { return traits::in_features(*layer.whole); }
  static Index out_features(const Layer& layer) { return layer.count; }
  static void forward_into(const Layer& layer, const In<T>& x, Out<T> y, Workspace* workspace) {
    if constexpr (requires { traits::forward_rows_into(*layer.whole, layer.begin, x, y, workspace); }) {
      traits::forward_rows_into(*layer.whole, layer.begin, x, y, workspace);
    } else {
      auto&& weight = detail::weight_of(*layer.whole);
      y.noalias() = x * weight.middleRows(layer.begin, layer.count).transpose();
      detail::with_bias(*layer.whole, [&](const auto& bias) {
        for (Index i = 0; i < y.rows(); ++i)
          for (Index c = 0; c < y.cols(); ++c) y(i, c) += T(bias.coeff(layer.begin + c));
      });
    }
  }
};

namespace ops {
/// The product with rows of a packed projection, without adapters.
template <class P>
struct ProjectionRows {
  detail::ProjectionSlice<P> slice;

  [[nodiscard]] Index cols(const auto& x) const {
    const Index in = detail::traits_of<P>::in_features(*slice.whole);
    return Linear<layer_scalar_type>{nullptr, slice.count, in}.cols(x);
  }
  template <class T>
  void forward(const BatchView& batch, Out<T> y, std::span<const In<T>> x) const {
    layer_traits<detail::ProjectionSlice<P>>::forward_into(slice, x[0], y, batch.workspace);
  }
  [[nodiscard]] bool trainable(const BatchView&) const;
  template <class T>
  void vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& y, std::span<const In<T>> x,
           std::span<const Out<T>> dx) const;

 private:
  using layer_scalar_type = typename detail::traits_of<P>::scalar;
};
}  // namespace ops

/// What an attention's `attend` projects with while it has no adapters: project(x, begin, count) is x with the rows
/// [begin, begin + count) of the packed weight, (n, count) of x's kind.
template <class P>
struct BaseProjection {
  const P& layer;
  auto operator()(const auto& x, Index begin, Index count) const {
    return detail::custom_linear(ops::ProjectionRows<P>{{&layer, begin, count}}, x);
  }
};
template <class P>
BaseProjection(const P&) -> BaseProjection<P>;

}  // namespace graft
