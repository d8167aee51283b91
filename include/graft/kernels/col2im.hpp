#pragma once

#include "im2col.hpp"

namespace graft::kernels {
inline namespace GRAFT_BUILD {

namespace detail {
// What im2col_line read goes back: `count` neighbouring outputs of one line.
template <class T>
void col2im_line(const ConvGeometry& g, const T* from, std::ptrdiff_t kernel_column, std::ptrdiff_t first, std::ptrdiff_t count,
                 T* line) {
  const auto [size, stride, start, inside, behind] = line_reach(g, kernel_column, first, count);
  const auto at_border = [&](std::ptrdiff_t j) {
    const std::ptrdiff_t i = padded_index(start + j * stride, size, g.padding_mode);
    if (i >= 0) line[i] += from[j];
  };
  for (std::ptrdiff_t j = 0; j < inside; ++j) at_border(j);
  if (stride == 1)
    for (std::ptrdiff_t j = inside; j < behind; ++j) line[start + j] += from[j];
  else
    for (std::ptrdiff_t j = inside; j < behind; ++j) line[start + j * stride] += from[j];
  for (std::ptrdiff_t j = behind; j < count; ++j) at_border(j);
}
}  // namespace detail

/// The transpose of im2col: every element of columns (channels * kernel…, count), of the output positions
/// [first, first + count), is added to that of dx which im2col reads it from. What it reads from nowhere, a zero of the
/// padding, is dropped. dx: `channels` channels of one sample, contiguous.
template <class T>
void col2im(const ConvGeometry& g, std::ptrdiff_t channels, const T* columns, std::ptrdiff_t ld, std::ptrdiff_t first,
            std::ptrdiff_t count, T* dx) {
  const ConvGeometry::Axes size = g.output();
  for (std::ptrdiff_t c = 0; c < channels; ++c)
    for (std::ptrdiff_t kd = 0; kd < g.kernel[0]; ++kd)
      for (std::ptrdiff_t kh = 0; kh < g.kernel[1]; ++kh)
        for (std::ptrdiff_t kw = 0; kw < g.kernel[2]; ++kw, columns += ld)
          for (std::ptrdiff_t done = 0, here; done < count; done += here) {
            const std::ptrdiff_t position = first + done, column = position % size[2];
            const std::ptrdiff_t row = position / size[2] % size[1], plane = position / size[2] / size[1];
            here = std::min(count - done, size[2] - column);
            const std::ptrdiff_t d = detail::padded_index(plane * g.stride[0] - g.padding_before[0] + kd * g.dilation[0],
                                                          g.input[0], g.padding_mode);
            const std::ptrdiff_t h = detail::padded_index(row * g.stride[1] - g.padding_before[1] + kh * g.dilation[1],
                                                          g.input[1], g.padding_mode);
            if (d < 0 || h < 0) continue;
            detail::col2im_line(g, columns + done, kw, column, here, dx + ((c * g.input[0] + d) * g.input[1] + h) * g.input[2]);
          }
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
