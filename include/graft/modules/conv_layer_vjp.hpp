#pragma once

#include <algorithm>
#include <string>
#include <type_traits>

#include "../core/type_name.hpp"
#include "base_weight.hpp"
#include "conv_vjp.hpp"
#include "user_layer_vjp.hpp"

namespace graft::detail {

/// A layer whose traits know its gradient: `vjp(layer, dy, x, row, dx)` adds to dx.
template <class L, class T>
concept HasOwnConvVjp = requires(const L& layer, const In<T>& view, const Shape& row, Out<T> dx) {
  traits_of<L>::vjp(layer, view, view, row, dx);
};

/// dx += the gradient of x through a weight that is read some outputs at a time.
template <class T>
void conv_backward_through(const BaseWeight<T>& weight, const kernels::ConvGeometry& geometry, const In<T>& dy, Out<T> dx,
                           Workspace* workspace) {
  if (const T* const data = weight.data()) return conv_backward_input<T, T>(geometry, data, dy, dx, workspace);
  constexpr Index most = 128;
  const Index out = geometry.out / geometry.groups, k = geometry.weight_columns(), width = geometry.output_positions();
  const Scratch<T> rows(workspace, std::min(out, most) * k);
  for (Index group = 0; group < geometry.groups; ++group)
    for (Index begin = group * out, count; begin < (group + 1) * out; begin += count) {
      count = std::min((group + 1) * out - begin, most);
      weight.copy_rows(begin, graft::out<T>(rows.data(), count, k));
      const ConvPart part(geometry, begin, begin + count);
      const In<T> dy_here = in<T>(dy.data() + begin * width, dy.rows(), count * width, dy.outerStride());
      const Out<T> dx_here = graft::out<T>(dx.data() + part.channel * geometry.input_positions(), dx.rows(),
                                           part.geometry.in * geometry.input_positions(), dx.outerStride());
      conv_backward_input<T, T>(part.geometry, rows.data(), dy_here, dx_here, workspace);
    }
}

template <class L>
[[noreturn]] void no_conv_backward() {
  fail<TrainingError>("nobody knows the gradient of a " + std::string(type_name<L>()) + " by its input",
                      "its layer_traits have neither a vjp nor a weight",
                      "add weight(layer), (out, in/groups · kernel…), or static void vjp(const L& layer, const In<T>& dy, const In<T>& x, "
                      "const Shape& row, Out<T> dx), which adds to dx");
}

/// The gradients of a weight and a bias, where they lie as the layer stores them. Null data: unwanted.
template <class T>
void conv_backward_stored(const kernels::ConvGeometry& geometry, const StoredValues& weight, const StoredValues& bias,
                          Gradients& gradients, const In<T>& dy, const In<T>& x, Workspace* workspace) {
  if (!weight.data && !bias.data) return;
  const Index out = geometry.out, k = geometry.weight_columns();
  T* const db = bias.data ? gradients.at<T>(bias.data, 1, bias.cols).data() : nullptr;
  T* const dw = weight.data ? gradients.at<T>(weight.data, weight.rows, weight.cols).data() : nullptr;
  if (!weight.is_turned) return conv_backward_parameters<T>(geometry, dy, x, dw, db, workspace);
  const Scratch<T> upright(workspace, out * k);
  std::fill_n(upright.data(), out * k, T(0));
  conv_backward_parameters<T>(geometry, dy, x, upright.data(), db, workspace);
  graft::out<T>(dw, k, out) += graft::in<T>(upright.data(), out, k).transpose();
}
}  // namespace graft::detail

namespace graft {

/// The gradients of the base product of a layer of kind conv: dx (n, channels · spatial…), and those of the weight and bias
/// that are `trained` or that the layer itself marks so, are added to. dx.data() null: nobody wants it.
///
/// graft's own layers know theirs. Of others `layer_traits<L>::vjp(layer, dy, x, row, dx)` adds to dx, or else the weight
/// that the traits show does. Such a weight can be trained where it lies in one piece: its gradient is known by where it begins
/// and has the layout that the layer stores, (in/groups · kernel…, out) for a column-major (out, in/groups · kernel…).
/// @throws TrainingError, before anything is added, where the traits show too little.
template <class L, class T>
void conv_vjp(const L& layer, const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& x,
              const Shape& row, Out<T> dx, Trained trained) {
  using traits = detail::traits_of<L>;
  if constexpr (requires { traits::op(layer).trained; } && !detail::HasOwnConvVjp<L, T>) {
    auto op = traits::op(layer);
    op.trained.weight |= trained.weight;
    op.trained.bias |= trained.bias;
    op.template vjp<T>(batch, gradients, dy, x, row, dx);
  } else {
    const kernels::ConvGeometry geometry = detail::conv_geometry(detail::facts_of(layer).conv, row);
    const detail::StoredValues none, weight = trained.weight ? detail::stored_weight(layer) : none,
                                     bias = trained.bias ? detail::stored_bias(layer) : none;
    if (trained.weight && !weight.data) detail::cannot_train<L>("weight");
    if (trained.bias && !bias.data && detail::has_bias_now(layer)) detail::cannot_train<L>("bias");
    if (dx.data()) {
      if constexpr (detail::HasOwnConvVjp<L, T>) {
        traits::vjp(layer, dy, x, row, dx);
      } else {
        const BaseWeight<T> base = detail::base_weight_of(layer);
        if (!base.is_readable()) detail::no_conv_backward<L>();
        detail::conv_backward_through<T>(base, geometry, dy, dx, batch.workspace);
      }
    }
    detail::conv_backward_stored<T>(geometry, weight, bias, gradients, dy, x, batch.workspace);
  }
}

}  // namespace graft
