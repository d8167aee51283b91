#pragma once

#include <cstddef>
#include <string>

#include "../kernels/conv_geometry.hpp"
#include "layer_traits.hpp"

namespace graft::detail {

/// A convolution over rows of shape (channels, spatial…), as the kernels want it.
/// @throws ShapeError for rows that the convolution does not take.
[[nodiscard]] inline kernels::ConvGeometry conv_geometry(const ConvShape& conv, const Shape& row) {
  const std::size_t axes = conv.kernel.rank();
  if (row.rank() != axes + 1 || row[0] != conv.in)
    fail<ShapeError>("a " + std::to_string(axes) + "-d convolution of " + std::to_string(conv.in) + " channels got rows of " + to_string(row),
                     "its rows are (channels, spatial…), one row per sample", "pass an (n, channels, spatial…) tensor");
  kernels::ConvGeometry geometry;
  geometry.in = conv.in;
  geometry.out = conv.out;
  geometry.groups = conv.groups;
  geometry.padding_mode = conv.padding_mode;
  for (std::size_t axis = 0; axis < axes; ++axis) {
    const std::size_t to = axis + 3 - axes;
    geometry.input[to] = row[axis + 1];
    geometry.kernel[to] = conv.kernel[axis];
    geometry.stride[to] = conv.stride[axis];
    geometry.dilation[to] = conv.dilation[axis];
    geometry.padding_before[to] = geometry.padding_after[to] = conv.same ? 0 : conv.padding[axis];
  }
  if (conv.same) geometry.pad_same();
  geometry.check();
  return geometry;
}

/// The shape of a row of the result: (out, spatial…).
[[nodiscard]] inline Shape conv_row_shape(const ConvShape& conv, const Shape& row) {
  const auto size = conv_geometry(conv, row).output();
  Shape result{conv.out};
  for (std::size_t axis = 3 - conv.kernel.rank(); axis < 3; ++axis) result.push_back(size[axis]);
  return result;
}

}  // namespace graft::detail
