#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>

#include "../core/error.hpp"
#include "isa.hpp"

namespace graft::kernels {

/// The geometry of a two-dimensional pooling of one sample; torch's, with ceil_mode false.
struct PoolGeometry {
  std::ptrdiff_t channels = 1, height = 1, width = 1;
  std::ptrdiff_t kernel_height = 1, kernel_width = 1;
  std::ptrdiff_t stride_height = 1, stride_width = 1;
  std::ptrdiff_t padding_height = 0, padding_width = 0;  ///< on both sides, at most half the kernel

  [[nodiscard]] std::ptrdiff_t output_height() const {
    return (height + 2 * padding_height - kernel_height) / stride_height + 1;
  }
  [[nodiscard]] std::ptrdiff_t output_width() const {
    return (width + 2 * padding_width - kernel_width) / stride_width + 1;
  }
  /// Throws a ShapeError unless a pooling of this geometry exists.
  void check() const {
    if (kernel_height < 1 || kernel_width < 1 || stride_height < 1 || stride_width < 1 ||
        padding_height < 0 || padding_width < 0)
      fail<ShapeError>("a pooling has a kernel or stride below 1, or a negative padding",
                       "it would read nothing or walk backwards", "use positive sizes");
    if (2 * padding_height > kernel_height || 2 * padding_width > kernel_width)
      fail<ShapeError>("a pooling's padding is larger than half its kernel",
                       "a window could lie in the padding alone", "use at most half the kernel");
    if (height + 2 * padding_height < kernel_height || width + 2 * padding_width < kernel_width)
      fail<ShapeError>("a pooling's kernel " + std::to_string(kernel_height) + " x " +
                           std::to_string(kernel_width) + " is larger than its padded input",
                       "no position of the kernel fits", "use a larger input or a smaller kernel");
  }
};

inline namespace GRAFT_BUILD {

namespace detail {
// The part of a window that lies in the input: rows [top, bottom) and columns [left, right) of a channel.
struct PoolWindow {
  std::ptrdiff_t channel, top, bottom, left, right;
};
// f(i, window) for every output i, in order.
template <class F>
void for_each_window(const PoolGeometry& g, F&& f) {
  const std::ptrdiff_t out_height = g.output_height(), out_width = g.output_width();
  for (std::ptrdiff_t c = 0; c < g.channels; ++c)
    for (std::ptrdiff_t i = 0; i < out_height; ++i)
      for (std::ptrdiff_t j = 0; j < out_width; ++j) {
        const std::ptrdiff_t top = i * g.stride_height - g.padding_height;
        const std::ptrdiff_t left = j * g.stride_width - g.padding_width;
        f((c * out_height + i) * out_width + j,
          PoolWindow{c, std::max<std::ptrdiff_t>(top, 0), std::min(top + g.kernel_height, g.height), std::max<std::ptrdiff_t>(left, 0),
                     std::min(left + g.kernel_width, g.width)});
      }
}
// f(place in x) for every element of a window, in order.
template <class F>
void for_each_element(const PoolGeometry& g, const PoolWindow& window, F&& f) {
  for (std::ptrdiff_t h = window.top; h < window.bottom; ++h)
    for (std::ptrdiff_t w = window.left; w < window.right; ++w) f((window.channel * g.height + h) * g.width + w);
}
// Folds every window with `take`, from `start`; put(index, value) receives the outputs.
template <class T, class Start, class Take, class Put>
void pool(const PoolGeometry& g, const T* x, Start start, Take take, Put put) {
  for_each_window(g, [&](std::ptrdiff_t i, const PoolWindow& window) {
    T value = start;
    for_each_element(g, window, [&](std::ptrdiff_t place) { value = take(value, x[place]); });
    put(i, value);
  });
}
}  // namespace detail

/// y (channels, output height, output width) = the largest of each window of x (channels, height, width);
/// padding never wins, NaN always does. The geometry has been checked.
template <class T>
void max_pool2d(const PoolGeometry& g, const T* x, T* y) {
  detail::pool(
      g, x, -std::numeric_limits<T>::infinity(), [](T a, T b) { return b > a || b != b ? b : a; },
      [&](std::ptrdiff_t i, T value) { y[i] = value; });
}
/// The same with the mean of each window; padding counts as zeros (torch's count_include_pad).
template <class T>
void avg_pool2d(const PoolGeometry& g, const T* x, T* y) {
  const T count = T(g.kernel_height * g.kernel_width);
  detail::pool(
      g, x, T(0), [](T a, T b) { return a + b; }, [&](std::ptrdiff_t i, T value) { y[i] = value / count; });
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
