#pragma once

#include "../modules/conv_layer_vjp.hpp"
#include "../tensor/gradients.hpp"
#include "site_steps.hpp"

namespace graft::detail {

/// The vjp of any layer: adds to dx the gradient by x, given that by the result, dy, and to `gradients` those of the layer's
/// own parameters that want one, or that `trained` names. dx.data() null: nobody wants it.
template <class L, class T>
void base_vjp(const L& layer, Trained trained, const SiteInput<T>& x, const In<T>& dy, Out<T> dx, Workspace* workspace,
              Gradients& gradients) {
  const BatchView batch{{}, {}, {}, workspace};
  if constexpr (traits_of<L>::kind == LayerKind::conv) {
    return conv_vjp(layer, batch, gradients, dy, dy, x.rows, x.row_shape, dx, trained);
  } else {
  (void)trained, (void)x, (void)batch, (void)gradients;
  if (!dx.data()) return;
  const BaseWeight<T> base = base_weight_of(layer);
  Matrix<T> w(dy.cols(), dx.cols());
  base.copy_rows(base.first_row(), out(w));
  dx += dy * w;
  }
}
template <class L>
[[nodiscard]] Trained base_trains(const L&) {
  return {};
}
template <class T, class L>
[[nodiscard]] T* bias_gradient(const L&, bool, Gradients&) {
  return nullptr;
}

}  // namespace graft::detail
