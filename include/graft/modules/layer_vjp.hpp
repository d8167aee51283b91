#pragma once

#include <concepts>
#include <span>
#include <type_traits>

#include "embedding_vjp.hpp"
#include "linear_slice.hpp"
#include "linear_vjp.hpp"
#include "norm_vjp.hpp"
#include "packed_projection.hpp"
#include "parameter_layer_vjp.hpp"
#include "user_layer_vjp.hpp"

namespace graft {
namespace detail {

/// A layer whose op knows its gradients: graft's own.
template <class L>
concept HasTrainedOp = requires(const L& layer) {
  { layer.op().trained } -> std::convertible_to<Trained>;
};

template <class T, class Op>
void add_vjp(Op op, const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& x, Out<T> dx, Trained trained) {
  op.trained.weight = op.trained.weight || trained.weight;
  op.trained.bias = op.trained.bias || trained.bias;
  const Out<T> to[] = {dx};
  const In<T>& unread = dy;  // no layer's op reads its result
  op.template vjp<T>(batch, gradients, dy, unread, std::span(&x, 1), std::span<const Out<T>>(to));
}

/// The vjp of some outputs of a linear layer, of the rows [begin, begin + dy.cols()) of its weight.
template <class L, class T>
void linear_rows_vjp(const L& layer, Index begin, const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& x,
                     Out<T> dx, Trained trained) {
  if constexpr (is_projection_slice<L>) {
    linear_rows_vjp(*layer.whole, layer.begin + begin, batch, gradients, dy, x, dx, trained);
  } else if constexpr (is_linear_slice<L>) {
    linear_rows_vjp(layer.whole(), layer.begin() + begin, batch, gradients, dy, x, dx, trained);
  } else if constexpr (HasTrainedOp<L>) {
    auto op = layer.op();
    if constexpr (requires { op.keep_rows(begin, begin); }) {
      op.keep_rows(begin, dy.cols());
      add_vjp<T>(op, batch, gradients, dy, x, dx, trained);
    } else {
      with_all_outputs<T>(begin, traits_of<L>::out_features(layer), dy, batch.workspace,
                          [&](const In<T>& whole) { add_vjp<T>(op, batch, gradients, whole, x, dx, trained); });
    }
  } else {
    user_linear_vjp(layer, begin, batch, gradients, dy, x, dx, trained);
  }
}
}  // namespace detail

/// Which of a layer's own parameters want gradients: those of graft's layers, and of a user's the one that
/// `layer_traits<L>::bias_parameter` shows.
template <class L>
[[nodiscard]] Trained trained_of(const L& layer) {
  if constexpr (detail::is_projection_slice<L>) return trained_of(*layer.whole);
  else if constexpr (detail::is_linear_slice<L>) return trained_of(layer.whole());
  else if constexpr (detail::HasTrainedOp<L>) return layer.op().trained;
  else if constexpr (detail::is_parameter<L>) return {layer.requires_grad(), false};
  else if constexpr (detail::is_embedding<L>) return {layer.weight.requires_grad(), false};
  else if constexpr (requires { detail::traits_of<L>::bias_parameter(layer).requires_grad(); })
    return {false, detail::trains_bias(detail::traits_of<L>::bias_parameter(layer))};
  else return {};
}
template <class L>
[[nodiscard]] bool trains(const L& layer) {
  const Trained trained = trained_of(layer);
  return trained.weight || trained.bias;
}

/// linear_vjp for a parameter whose rows have experts.
template <class L, class T>
void expert_vjp(const L& layer, const ExpertIds& experts, const BatchView& batch, Gradients& gradients, const In<T>& dy,
                const In<T>& x, Out<T> dx, Trained trained) {
  detail::add_vjp<T>(detail::expert_op(layer, experts), batch, gradients, dy, x, dx, trained);
}

/// The VJP of a layer of kind linear, norm or parameter. Adds to dx (n, in) the gradient by x of the layer's result, given
/// that by the result, dy (n, out), and to `gradients` those by weight and bias where `trained` says so, or they themselves
/// require one. dx.data() null: nobody wants it.
///
/// A layer that is not graft's needs one of these in its `layer_traits`: `weight(layer)`, a view (out, in) of any layout, or
///
///     static void vjp(const L& layer, const In<T>& dy, const In<T>& x, Out<T> dx);  // dx += the gradient by x
///
/// Its weight can be trained where it lies in one piece; the gradient is known by where the weight begins and has the layout
/// that the layer stores: (in, out) for a column-major (out, in). @throws TrainingError where that is not so
template <class L, class T>
void linear_vjp(const L& layer, const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& x, Out<T> dx,
                Trained trained) {
  constexpr LayerKind kind = detail::traits_of<L>::kind;
  static_assert(kind == LayerKind::linear || kind == LayerKind::norm || kind == LayerKind::parameter,
                "graft: this is the vjp of a linear layer, a norm or a parameter");
  static_assert(std::is_same_v<T, detail::layer_scalar<L>>, "graft: this layer's activations have another scalar");
  const Trained own = trained_of(layer), all{own.weight || trained.weight, own.bias || trained.bias};
  if constexpr (kind == LayerKind::parameter) expert_vjp(layer, ExpertIds(), batch, gradients, dy, x, dx, all);
  else if constexpr (kind == LayerKind::linear) detail::linear_rows_vjp(layer, Index(0), batch, gradients, dy, x, dx, all);
  else if constexpr (detail::HasTrainedOp<L>) detail::add_vjp<T>(layer.op(), batch, gradients, dy, x, dx, all);
  else detail::user_norm_vjp(layer, dy, x, dx, all);
}

}  // namespace graft
