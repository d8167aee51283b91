#pragma once

#include <type_traits>

#include "../modules/conv_layer_vjp.hpp"
#include "../modules/embedding_vjp.hpp"
#include "../modules/layer_vjp.hpp"
#include "../tensor/gradients.hpp"
#include "site_steps.hpp"

namespace graft::detail {

/// Which of a layer's own parameters want gradients.
template <class L>
[[nodiscard]] Trained base_trains(const L& layer) {
  if constexpr (requires { traits_of<L>::op(layer).trained; }) return traits_of<L>::op(layer).trained;
  else return trained_of(layer);
}

/// The vjp of any layer: adds to dx the gradient by x, given that by the result, dy, and to `gradients` those of the layer's
/// own parameters that want one, or that `trained` names. dx.data() null: nobody wants it.
template <class L, class T>
void base_vjp(const L& layer, Trained trained, const SiteInput<T>& x, const In<T>& dy, Out<T> dx, Workspace* workspace,
              Gradients& gradients) {
  constexpr LayerKind kind = traits_of<L>::kind;
  const BatchView batch{{}, {}, {}, workspace};
  const Trained own = base_trains(layer);
  trained = {trained.weight || own.weight, trained.bias || own.bias};
  if (dy.rows() == 0 || (!dx.data() && !trained.weight && !trained.bias)) return;
  if constexpr (kind == LayerKind::conv) conv_vjp(layer, batch, gradients, dy, x.rows, x.row_shape, dx, trained);
  else if constexpr (kind == LayerKind::parameter) expert_vjp(layer, x.experts, batch, gradients, dy, x.rows, dx, trained);
  else if constexpr (kind != LayerKind::embedding) linear_vjp(layer, batch, gradients, dy, x.rows, dx, trained);
  else if (trained.weight) embedding_vjp(layer, x.ids, batch, gradients, dy);
}

/// Where the gradient of a layer's own bias is added, (out): null where there is none, or where it is neither marked nor
/// `trained`.
template <class T, class L>
[[nodiscard]] T* bias_gradient(const L& layer, bool trained, Gradients& gradients) {
  if constexpr (is_projection_slice<L>) {
    T* const whole = bias_gradient<T>(*layer.whole, trained, gradients);
    return whole ? whole + layer.begin : nullptr;
  } else if constexpr (is_linear_slice<L>) {
    T* const whole = bias_gradient<T>(layer.whole(), trained, gradients);
    return whole ? whole + layer.begin() : nullptr;
  } else {
    if (!trained && !base_trains(layer).bias) return nullptr;
    const StoredValues bias = stored_bias(layer);
    return bias.data ? gradients.at<T>(bias.data, 1, bias.cols).data() : nullptr;
  }
}

}  // namespace graft::detail
