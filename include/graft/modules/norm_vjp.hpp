#pragma once

#include "../kernels/normalise_backward.hpp"
#include "../tensor/gradients.hpp"
#include "norm.hpp"

namespace graft {

template <class W, bool Centred>
template <class T>
void ops::Normalise<W, Centred>::vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>&,
                                     std::span<const In<T>> x, std::span<const Out<T>> dx) const {
  T* const dw = trained.weight ? gradients.at<T>(weight, 1, features).data() : nullptr;
  T* const db = trained.bias && bias ? gradients.at<T>(bias, 1, features).data() : nullptr;
  const Scratch<T> scratch(batch.workspace, kernels::norm_backward_scratch(dy.rows()));
  T* const to = const_cast<T*>(dx[0].data());
  for (Index c = 0; c < dy.cols(); c += features)
    kernels::norm_backward<Centred, T, W>(dy.rows(), features, x[0].data() + c, x[0].outerStride(), weight, eps, dy.data() + c,
                                          dy.outerStride(), to ? to + c : nullptr, dx[0].outerStride(), dw, db, scratch.data());
}

}  // namespace graft
