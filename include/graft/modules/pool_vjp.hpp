#pragma once

#include "../kernels/pool_backward.hpp"
#include "pool.hpp"

namespace graft {

/// The largest of every window is found again in x.
template <bool Max>
template <class T>
void ops::Pool2d<Max>::vjp(const BatchView&, Gradients&, const In<T>& dy, const In<T>& x, const Shape& row, Out<T> dx) const {
  if (!dx.data()) return;
  const kernels::PoolGeometry pool = geometry(row);
  for (Index i = 0; i < dy.rows(); ++i) {
    const T* const from = dy.data() + i * dy.outerStride();
    T* const to = dx.data() + i * dx.outerStride();
    if constexpr (Max) kernels::max_pool2d_backward<T>(pool, x.data() + i * x.outerStride(), from, to);
    else kernels::avg_pool2d_backward<T>(pool, from, to);
  }
}

}  // namespace graft
