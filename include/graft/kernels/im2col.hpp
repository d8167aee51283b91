#pragma once

#include <algorithm>

#include "conv_geometry.hpp"
#include "isa.hpp"

namespace graft::kernels {
inline namespace GRAFT_BUILD {

namespace detail {
// The element of an axis of `size` that stands for index i, or -1 for a zero.
inline std::ptrdiff_t padded_index(std::ptrdiff_t i, std::ptrdiff_t size, PaddingMode mode) {
  if (i >= 0 && i < size) return i;
  switch (mode) {
    case PaddingMode::zeros:
      return -1;
    case PaddingMode::reflect:
      return i < 0 ? -i : 2 * (size - 1) - i;
    case PaddingMode::replicate:
      return i < 0 ? 0 : size - 1;
    case PaddingMode::circular:
      return i < 0 ? i + size : i - size;
  }
  return -1;
}

// What `count` neighbouring outputs of one line, from output column `first`, read through one element of the kernel: output j
// at start + j * stride, which is inside of the line of `size` elements from `inside` on up to `behind`.
struct LineReach {
  std::ptrdiff_t size, stride, start, inside, behind;
};
inline LineReach line_reach(const ConvGeometry& g, std::ptrdiff_t kernel_column, std::ptrdiff_t first, std::ptrdiff_t count) {
  const std::ptrdiff_t size = g.input[2], stride = g.stride[2];
  const std::ptrdiff_t start = first * stride - g.padding_before[2] + kernel_column * g.dilation[2];
  const auto steps_up_to = [&](std::ptrdiff_t limit) {  // outputs that read below `limit`
    return limit <= start ? 0 : std::min(count, (limit - start + stride - 1) / stride);
  };
  return {size, stride, start, steps_up_to(0), steps_up_to(size)};
}

// Writes what they read, zeros of the padding too.
template <class T>
void im2col_line(const ConvGeometry& g, const T* line, std::ptrdiff_t kernel_column, std::ptrdiff_t first,
                 std::ptrdiff_t count, T* to) {
  const auto [size, stride, start, inside, behind] = line_reach(g, kernel_column, first, count);
  const auto at_border = [&](std::ptrdiff_t j) {
    const std::ptrdiff_t i = padded_index(start + j * stride, size, g.padding_mode);
    to[j] = i < 0 ? T(0) : line[i];
  };
  for (std::ptrdiff_t j = 0; j < inside; ++j) at_border(j);
  if (stride == 1 && behind > inside)
    std::copy(line + start + inside, line + start + behind, to + inside);
  else
    for (std::ptrdiff_t j = inside; j < behind; ++j) to[j] = line[start + j * stride];
  for (std::ptrdiff_t j = behind; j < count; ++j) at_border(j);
}
}  // namespace detail

/// The columns that a convolution multiplies: columns (channels * kernel…, count), row-major with leading
/// dimension `ld`, for the output positions [first, first + count). x: `channels` channels of one sample,
/// contiguous.
template <class T>
void im2col(const ConvGeometry& g, std::ptrdiff_t channels, const T* x, std::ptrdiff_t first,
            std::ptrdiff_t count, T* columns, std::ptrdiff_t ld) {
  const ConvGeometry::Axes size = g.output();
  for (std::ptrdiff_t c = 0; c < channels; ++c)
    for (std::ptrdiff_t kd = 0; kd < g.kernel[0]; ++kd)
      for (std::ptrdiff_t kh = 0; kh < g.kernel[1]; ++kh)
        for (std::ptrdiff_t kw = 0; kw < g.kernel[2]; ++kw, columns += ld)
          for (std::ptrdiff_t done = 0; done < count;) {
            const std::ptrdiff_t position = first + done, column = position % size[2];
            const std::ptrdiff_t row = position / size[2] % size[1], plane = position / size[2] / size[1];
            const std::ptrdiff_t here = std::min(count - done, size[2] - column);
            const std::ptrdiff_t d = detail::padded_index(
                plane * g.stride[0] - g.padding_before[0] + kd * g.dilation[0], g.input[0], g.padding_mode);
            const std::ptrdiff_t h = detail::padded_index(
                row * g.stride[1] - g.padding_before[1] + kh * g.dilation[1], g.input[1], g.padding_mode);
            if (d < 0 || h < 0)
              std::fill(columns + done, columns + done + here, T(0));
            else
              detail::im2col_line(g, x + ((c * g.input[0] + d) * g.input[1] + h) * g.input[2], kw, column,
                                  here, columns + done);
            done += here;
          }
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
