#pragma once

#include <array>

#include "attention_vjp.hpp"
#include "multihead_attention.hpp"

namespace graft {

/// The gradients of q, k and v are the thirds of dx.
template <class T>
void ops::PackedAttention::vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& y,
                               std::span<const In<T>> x, std::span<const Out<T>> dx) const {
  if (!dx[0].data()) return;
  const Index rows = dy.rows(), width = dy.cols();
  T* const to = const_cast<T*>(dx[0].data());
  const auto third = [&](Index i) { return in<T>(x[0].data() + i * width, rows, width, x[0].outerStride()); };
  const auto third_of_dx = [&](Index i) { return out<T>(to + i * width, rows, width, dx[0].outerStride()); };
  const std::array<In<T>, 3> parts{third(0), third(1), third(2)};
  const std::array<Out<T>, 3> parts_of_dx{third_of_dx(0), third_of_dx(1), third_of_dx(2)};
  Attention{options}.vjp<T>(batch, gradients, dy, y, std::span<const In<T>>(parts), std::span<const Out<T>>(parts_of_dx));
}

/// As of an attention that sees everything.
template <class T>
void ops::AttentionAcross::vjp(const BatchView& batch, Gradients&, const In<T>& dy, const In<T>&, std::span<const In<T>> x,
                               std::span<const Out<T>> dx) const {
  detail::attention_backward<T>({.heads = heads, .kv_heads = heads, .causal = false}, batch, dy, x, dx);
}

}  // namespace graft
