#pragma once

#include "ia3.hpp"
#include "update_gradient.hpp"

namespace graft {

namespace detail {
/// d_l (channels) += weight · the sum of g ∘ x over rows and positions.
template <class T>
void add_factor_gradient(const FactorGradient<T>& to, Index channels, T* d_l) {
  const Index positions = to.g.cols() / channels;
  for (Index c = 0; c < channels; ++c) {
    double sum = 0;
    for (Index i = 0; i < to.g.rows(); ++i)
      for (Index p = c * positions; p < (c + 1) * positions; ++p) sum += double(to.g(i, p)) * double(to.x(i, p));
    d_l[c] += T(to.weight * sum);
  }
}
}  // namespace detail

template <class T>
template <class>
void Ia3::State<T>::before_vjp(const FactorGradient<T>& to) const {
  if (!is_feedforward_) return;
  if (T* const d_l = detail::gradient_of<T>(l_, to.gradients)) detail::add_factor_gradient(to, channels_, d_l);
  scale(to.g, T(to.weight));
}
template <class T>
template <class>
void Ia3::State<T>::after_vjp(const FactorGradient<T>& to) const {
  if (is_feedforward_) return;
  if (T* const d_l = detail::gradient_of<T>(l_, to.gradients)) detail::add_factor_gradient(to, channels_, d_l);
  scale(to.g, T(to.weight));
}

}  // namespace graft
