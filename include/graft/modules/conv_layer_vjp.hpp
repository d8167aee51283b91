#pragma once

#include <algorithm>
#include <string>
#include <type_traits>

#include "../core/type_name.hpp"
#include "base_weight.hpp"
#include "conv_vjp.hpp"

namespace graft::detail {

/// Where a layer keeps its weight, if row after row in torch's layout: what its gradient is known by. Null where it is
/// computed, stored otherwise or not shown.
template <class L>
[[nodiscard]] const void* weight_memory(const L& layer) {
  if constexpr (has_weight<const L>) {
    decltype(auto) weight = weight_of(layer);
    using View = std::remove_cvref_t<decltype(weight)>;
    if constexpr (requires { weight.data(); weight.outerStride(); } && is_lasting_view<decltype(weight_of(layer))>)
      if (View::IsRowMajor && weight.innerStride() == 1 && weight.outerStride() == weight.cols()) return weight.data();
  }
  return nullptr;
}
/// The same of its bias.
template <class L>
[[nodiscard]] const void* bias_memory(const L& layer) {
  const void* memory = nullptr;
  if constexpr (has_bias_access<const L>) {
    if constexpr (is_lasting_view<decltype(bias_of(layer))>)
      with_bias(layer, [&](const auto& bias) {
        if constexpr (requires { bias.data(); }) memory = bias.innerStride() == 1 ? bias.data() : nullptr;
      });
  }
  return memory;
}

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
[[noreturn]] void no_conv_gradient(const std::string& of, const std::string& why, const std::string& fix) {
  fail<TrainingError>("the " + of + " of a " + std::string(type_name<L>()) + " has no gradient", why, fix);
}
}  // namespace graft::detail

namespace graft {

/// The gradients of the base product of a layer of kind conv: dx (n, channels · spatial…), and those of the weight and bias
/// that are `trained` or that the layer itself marks so, are added to. dx.data() null: nobody wants it.
///
/// graft's own layers know theirs. Of others `layer_traits<L>::vjp(layer, dy, x, row, dx)` adds to dx, or else the weight
/// that the traits show does.
/// @throws TrainingError, before anything is added, where the traits show too little.
template <class L, class T>
void conv_vjp(const L& layer, const BatchView& batch, Gradients& gradients, const In<T>& dy, [[maybe_unused]] const In<T>& y,
              const In<T>& x, const Shape& row, Out<T> dx, Trained trained) {
  using traits = detail::traits_of<L>;
  if constexpr (requires { traits::op(layer).trained; } && !detail::HasOwnConvVjp<L, T>) {
    auto op = traits::op(layer);
    op.trained.weight |= trained.weight;
    op.trained.bias |= trained.bias;
    op.template vjp<T>(batch, gradients, dy, x, row, dx);
  } else {
    const kernels::ConvGeometry geometry = detail::conv_geometry(detail::facts_of(layer).conv, row);
    const BaseWeight<T> weight = detail::base_weight_of(layer);
    const void* const weight_at = trained.weight ? detail::weight_memory(layer) : nullptr;
    const void* const bias_at = trained.bias ? detail::bias_memory(layer) : nullptr;
    if (trained.weight && !weight_at)
      detail::no_conv_gradient<L>("weight", "a gradient is found by the memory of its parameter, row after row in torch's layout",
                                  "let layer_traits::weight(layer) return a row-major Eigen::Map or a reference, (out, in/groups · kernel…)");
    if (trained.bias && !bias_at && weight.has_bias())
      detail::no_conv_gradient<L>("bias", "a gradient is found by the memory of its parameter",
                                  "let layer_traits::bias(layer) return a reference to a vector, a pointer to one or an Eigen::Map");
    if (dx.data()) {
      if constexpr (detail::HasOwnConvVjp<L, T>) {
        traits::vjp(layer, dy, x, row, dx);
      } else {
        if (!weight.is_readable())
          detail::no_conv_gradient<L>("input", "its layer_traits neither show its weight nor know its gradient",
                                      "add weight(layer), (out, in/groups · kernel…), or vjp(layer, dy, x, row, dx), which adds to dx");
        detail::conv_backward_through<T>(weight, geometry, dy, dx, batch.workspace);
      }
    }
    if (!weight_at && !bias_at) return;
    T* const dw = weight_at ? gradients.at<T>(weight_at, geometry.out, geometry.weight_columns()).data() : nullptr;
    T* const db = bias_at ? gradients.at<T>(bias_at, 1, geometry.out).data() : nullptr;
    detail::conv_backward_parameters<T>(geometry, dy, x, dw, db, batch.workspace);
  }
}

}  // namespace graft
