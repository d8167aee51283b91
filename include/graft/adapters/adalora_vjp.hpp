#pragma once

#include "../kernels/conv_backward.hpp"
#include "adalora.hpp"
#include "parallel_low_rank_vjp.hpp"
#include "update_gradient.hpp"

namespace graft {

/// AdaLoRA's regulariser and its allocator are no part of this: they are the trainer's.
template <class T>
template <class>
void AdaLora::State<T>::update_vjp(const UpdateGradient<T>& to) const {
  const Index r = rank();
  if (r == 0) return;
  const SiteInput<T>& x = to.dropped ? to.dropped->x : to.x;
  const Out<T>& dx = to.dropped ? to.dropped->dx : to.dx;
  const T kappa = kappa_of(to.weight);
  const detail::Values<T> a(a_, to.workspace), b(b_, to.workspace), e(e_, to.workspace);
  T* const d_a = detail::gradient_of<T>(a_, to.gradients);
  T* const d_b = detail::gradient_of<T>(b_, to.gradients);
  T* const d_e = detail::gradient_of<T>(e_, to.gradients);
  if (facts_.kind == LayerKind::linear) {
    const kernels::LowRankGradients<T> gradients{d_a, d_b, d_e, const_cast<T*>(dx.data()), dx.outerStride()};
    detail::parallel_low_rank_vjp<T>(r, x.rows, a.data(), b.data(), e.data(), kappa, in<T>(to.g), gradients, to.workspace);
    return;
  }
  kernels::ConvGeometry geometry = detail::conv_geometry(facts_.conv, x.row_shape);
  geometry.padding_mode = PaddingMode::zeros;
  kernels::LowRankConvGradients<T> gradients{.dA = d_a, .dB = d_b, .de = d_e};
  const Scratch<T> scratch(to.workspace, kernels::low_rank_conv_backward_scratch(geometry, r));
  for (Index i = 0; i < x.rows.rows(); ++i) {
    gradients.dx = dx.data() ? const_cast<T*>(dx.data()) + i * dx.outerStride() : nullptr;
    kernels::low_rank_conv_backward<T>(geometry, r, x.rows.data() + i * x.rows.outerStride(), a.data(), b.data(), e.data(), kappa,
                                       to.g.data() + i * to.g.outerStride(), gradients, scratch.data());
  }
}

}  // namespace graft
