#pragma once

#include "ia3.hpp"
#include "update_gradient.hpp"

namespace graft {

template <class T>
template <class>
void Ia3::State<T>::before_vjp(const FactorGradient<T>& to) const {
  if (!is_feedforward_) return;
  if (T* const d_l = detail::gradient_of<T>(l_, to.gradients)) detail::add_channel_dots<T>(in<T>(to.g), to.x, channels_, to.weight, d_l);
  scale(to.g, T(to.weight));
}
template <class T>
template <class>
void Ia3::State<T>::after_vjp(const FactorGradient<T>& to) const {
  if (is_feedforward_) return;
  if (T* const d_l = detail::gradient_of<T>(l_, to.gradients)) detail::add_channel_dots<T>(in<T>(to.g), to.x, channels_, to.weight, d_l);
  scale(to.g, T(to.weight));
}

}  // namespace graft
