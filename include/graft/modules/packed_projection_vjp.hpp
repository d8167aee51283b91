#pragma once

#include "layer_vjp.hpp"

namespace graft {

template <class P>
bool ops::ProjectionRows<P>::trainable(const BatchView&) const {
  return trains(slice);
}
template <class P>
template <class T>
void ops::ProjectionRows<P>::vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>&,
                                 std::span<const In<T>> x, std::span<const Out<T>> dx) const {
  linear_vjp(slice, batch, gradients, dy, x[0], dx[0], Trained{});
}

}  // namespace graft
