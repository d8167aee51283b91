#pragma once

#include "../kernels/elementwise_backward.hpp"
#include "../kernels/normalise_backward.hpp"
#include "ops.hpp"

namespace graft {
namespace detail {
/// to += factor · x.
template <class T>
void add_to(const Out<T>& to, const In<T>& x, T factor = T(1)) {
  kernels::add_scaled<T>(x.rows(), x.cols(), factor, x.data(), x.outerStride(), const_cast<T*>(to.data()), to.outerStride());
}
template <class T>
[[nodiscard]] In<T> columns_of(const In<T>& x, Index begin, Index count) {
  return in<T>(x.data() + begin, x.rows(), count, x.outerStride());
}
}  // namespace detail

/// By a kernel that is given the forward's x or y.
#define GRAFT_VJP(Name, kernel, at)                                                                              \
  template <class T>                                                                                             \
  void ops::Name::vjp(const BatchView&, Gradients&, const In<T>& dy, const In<T>& y, std::span<const In<T>> x,   \
                      std::span<const Out<T>> dx) const {                                                        \
    (void)x, (void)y;                                                                                            \
    if (dx[0].data())                                                                                            \
      kernels::kernel<T>(dy.rows(), dy.cols(), at.data(), at.outerStride(), dy.data(), dy.outerStride(),         \
                         const_cast<T*>(dx[0].data()), dx[0].outerStride());                                     \
  }
GRAFT_VJP(Relu, relu_backward, x[0])
GRAFT_VJP(Silu, silu_backward, x[0])
GRAFT_VJP(Tanh, tanh_backward, y)
GRAFT_VJP(Sigmoid, sigmoid_backward, y)
GRAFT_VJP(GeluErf, gelu_erf_backward, x[0])
GRAFT_VJP(GeluTanh, gelu_tanh_backward, x[0])
GRAFT_VJP(Softmax, softmax_backward, y)
#undef GRAFT_VJP

template <class T>
void ops::Add::vjp(const BatchView&, Gradients&, const In<T>& dy, const In<T>&, std::span<const In<T>>,
                   std::span<const Out<T>> dx) const {
  for (const Out<T>& to : dx)
    if (to.data()) detail::add_to(to, dy);
}
template <class T>
void ops::Mul::vjp(const BatchView&, Gradients&, const In<T>& dy, const In<T>&, std::span<const In<T>> x,
                   std::span<const Out<T>> dx) const {
  for (std::size_t i = 0; i < 2; ++i)
    if (dx[i].data())
      kernels::add_product<T>(dy.rows(), dy.cols(), x[1 - i].data(), x[1 - i].outerStride(), dy.data(), dy.outerStride(),
                              const_cast<T*>(dx[i].data()), dx[i].outerStride());
}
template <class T>
void ops::Scale::vjp(const BatchView&, Gradients&, const In<T>& dy, const In<T>&, std::span<const In<T>>,
                     std::span<const Out<T>> dx) const {
  if (dx[0].data()) detail::add_to(dx[0], dy, T(factor));
}
template <class T>
void ops::Concat::vjp(const BatchView&, Gradients&, const In<T>& dy, const In<T>&, std::span<const In<T>> x,
                      std::span<const Out<T>> dx) const {
  const Index first = x[0].cols();
  if (dx[0].data()) detail::add_to(dx[0], detail::columns_of(dy, 0, first));
  if (dx[1].data()) detail::add_to(dx[1], detail::columns_of(dy, first, dy.cols() - first));
}
template <class T>
void ops::Slice::vjp(const BatchView&, Gradients&, const In<T>& dy, const In<T>&, std::span<const In<T>>,
                     std::span<const Out<T>> dx) const {
  if (!dx[0].data()) return;
  detail::add_to(graft::out<T>(const_cast<T*>(dx[0].data()) + begin, dy.rows(), count, dx[0].outerStride()), dy);
}
template <class T>
void ops::Flatten::vjp(const BatchView&, Gradients&, const In<T>& dy, const In<T>&, std::span<const In<T>>,
                       std::span<const Out<T>> dx) const {
  if (dx[0].data()) detail::add_to(dx[0], dy);
}

}  // namespace graft
