#pragma once

#include "pool.hpp"

/// Gradients of poolings of one sample: dy (channels, output height, output width) is the gradient of the loss by the result,
/// and dx (channels, height, width) is added to.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// Each of dy goes to the largest of its window of x: of equal ones to the first, of NaNs to the last, as in torch.
template <class T>
void max_pool2d_backward(const PoolGeometry& g, const T* x, const T* dy, T* dx) {
  detail::for_each_window(g, [&](std::ptrdiff_t i, const detail::PoolWindow& window) {
    std::ptrdiff_t largest = (window.channel * g.height + window.top) * g.width + window.left;
    detail::for_each_element(g, window, [&](std::ptrdiff_t place) {
      if (x[place] > x[largest] || x[place] != x[place]) largest = place;
    });
    dx[largest] += dy[i];
  });
}
/// Each of dy goes to its window in equal parts, of which the padding has its share.
template <class T>
void avg_pool2d_backward(const PoolGeometry& g, const T* dy, T* dx) {
  const T count = T(g.kernel_height * g.kernel_width);
  detail::for_each_window(g, [&](std::ptrdiff_t i, const detail::PoolWindow& window) {
    const T part = dy[i] / count;
    detail::for_each_element(g, window, [&](std::ptrdiff_t place) { dx[place] += part; });
  });
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
