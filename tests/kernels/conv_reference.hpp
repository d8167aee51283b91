#pragma once

#include "graft/kernels/conv_geometry.hpp"
#include "reference.hpp"

namespace reference {

using graft::PaddingMode;
using graft::kernels::ConvGeometry;

/// The element that an index beyond an axis stands for, step by step as torch.nn.functional.pad documents it.
inline Index element_or_zero(Index i, Index size, PaddingMode mode) {
  while (i < 0 || i >= size) {
    if (mode == PaddingMode::zeros) return -1;
    if (mode == PaddingMode::reflect) i = i < 0 ? -i : 2 * (size - 1) - i;
    if (mode == PaddingMode::replicate) i = i < 0 ? 0 : size - 1;
    if (mode == PaddingMode::circular) i = (i + size) % size;
  }
  return i;
}

/// Where in a channel output position (d, h, w) reads through kernel element (a, b, c), or -1 for a zero.
inline Index place_through(const ConvGeometry& g, ConvGeometry::Axes output, ConvGeometry::Axes element) {
  Index at = 0;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const Index i = element_or_zero(
        output[axis] * g.stride[axis] - g.padding_before[axis] + element[axis] * g.dilation[axis],
        g.input[axis], g.padding_mode);
    if (i < 0) return -1;
    at = at * g.input[axis] + i;
  }
  return at;
}
/// What it reads there.
template <class T>
double read_through(const ConvGeometry& g, const T* channel, ConvGeometry::Axes output,
                    ConvGeometry::Axes element) {
  const Index at = place_through(g, output, element);
  return at < 0 ? 0 : double(channel[at]);
}

/// Calls f(index, {a, b, c}) for every place of a box, the last axis fastest.
template <class F>
void for_each_place(ConvGeometry::Axes size, F&& f) {
  Index index = 0;
  for (Index a = 0; a < size[0]; ++a)
    for (Index b = 0; b < size[1]; ++b)
      for (Index c = 0; c < size[2]; ++c) f(index++, ConvGeometry::Axes{a, b, c});
}

/// Geometries of one to three axes with every option; `groups` divides all channels.
inline std::vector<ConvGeometry> geometries() {
  std::vector<ConvGeometry> all;
  for (const PaddingMode mode :
       {PaddingMode::zeros, PaddingMode::reflect, PaddingMode::replicate, PaddingMode::circular})
    for (const Index groups : {1, 2}) {
      ConvGeometry g;
      g.in = 4;
      g.out = 6;
      g.groups = groups;
      g.padding_mode = mode;
      g.input = {1, 1, 13};
      all.push_back(g);  // pointwise
      g.kernel = {1, 1, 3};
      all.push_back(g);
      g.padding_before = {0, 0, 2};
      g.padding_after = {0, 0, 1};
      all.push_back(g);
      g.stride = {1, 1, 2};
      g.dilation = {1, 1, 3};
      all.push_back(g);
      g.input = {1, 9, 7};
      g.kernel = {1, 3, 2};
      g.stride = {1, 2, 1};
      g.dilation = {1, 1, 2};
      g.padding_before = g.padding_after = {0, 2, 3};
      all.push_back(g);
      g.stride = {1, 1, 3};
      all.push_back(g);
      g.input = {3, 5, 4};
      g.kernel = {2, 3, 3};
      g.stride = {1, 2, 1};
      g.dilation = {2, 1, 1};
      g.padding_before = {1, 0, 2};
      g.padding_after = {2, 1, 0};
      all.push_back(g);
      g.input = {1, 33, 31};  // several blocks of positions
      g.kernel = {1, 3, 3};
      g.stride = g.dilation = {1, 1, 1};
      g.padding_before = g.padding_after = {0, 1, 1};
      all.push_back(g);
    }
  return all;
}

}  // namespace reference
