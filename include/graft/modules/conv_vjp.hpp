#pragma once

#include "../kernels/conv_backward.hpp"
#include "../tensor/gradients.hpp"
#include "conv.hpp"

namespace graft {

namespace detail {
/// Some of a convolution's outputs as a convolution of their own: whole groups, or outputs of a single group.
struct ConvPart {
  kernels::ConvGeometry geometry;
  Index channel;  // of x that it begins with

  ConvPart(const kernels::ConvGeometry& whole, Index begin, Index end) : geometry(whole) {
    const Index out = whole.out / whole.groups, in = whole.in / whole.groups;
    geometry.groups = std::max((end - begin) / out, Index{1});
    geometry.in = geometry.groups * in;
    geometry.out = end - begin;
    channel = begin / out * in;
  }
};

/// dx += the gradient of x of the convolution of every row of x, in pieces of whole rows on the host's threads.
template <class T, class W>
void conv_backward_input(const kernels::ConvGeometry& geometry, const W* weight, const In<T>& dy, Out<T> dx, Workspace* workspace) {
  const double work = double(geometry.out) * double(geometry.weight_columns()) * double(geometry.output_positions());
  const Index rows = dy.rows(), pieces = std::max(std::min(pieces_of(workspace, work * double(rows)), rows), Index{1});
  const Index each = kernels::conv_backward_scratch(geometry);
  const Scratch<T> scratch(workspace, pieces * each);
  for_each_piece(workspace, pieces, [&](Index piece) {
    const Index end = piece_begin(piece + 1, pieces, rows, 1);
    for (Index i = piece_begin(piece, pieces, rows, 1); i < end; ++i)
      kernels::conv_backward<T, W>(geometry, nullptr, weight, dy.data() + i * dy.outerStride(),
                                   {nullptr, nullptr, dx.data() + i * dx.outerStride()}, scratch.data() + piece * each);
  });
}

/// dw (out, in / groups · kernel…) and db (out) += the gradients of weight and bias over all rows, in pieces of outputs on
/// the host's threads. Null: unwanted.
template <class T>
void conv_backward_parameters(const kernels::ConvGeometry& geometry, const In<T>& dy, const In<T>& x, T* dw, T* db, Workspace* workspace) {
  const Index k = geometry.weight_columns(), positions = geometry.output_positions();
  const Index unit = geometry.groups == 1 ? 16 : geometry.out / geometry.groups, units = (geometry.out + unit - 1) / unit;
  const double work = double(geometry.out) * double(k) * double(dy.rows() * positions);
  const Index pieces = std::max(std::min(pieces_of(workspace, work), units), Index{1}), each = kernels::conv_backward_scratch(geometry);
  const Scratch<T> scratch(workspace, pieces * each);
  for_each_piece(workspace, pieces, [&](Index piece) {
    const Index begin = piece_begin(piece, pieces, geometry.out, unit), end = piece_begin(piece + 1, pieces, geometry.out, unit);
    if (begin == end) return;
    const ConvPart part(geometry, begin, end);
    for (Index i = 0; i < dy.rows(); ++i)
      kernels::conv_backward<T, T>(part.geometry, x.data() + i * x.outerStride() + part.channel * geometry.input_positions(), nullptr,
                                   dy.data() + i * dy.outerStride() + begin * positions,
                                   {dw ? dw + begin * k : nullptr, db ? db + begin : nullptr, nullptr}, scratch.data() + piece * each);
  });
}
}  // namespace detail

/// Every sample through the transpose of its columns.
template <class W>
template <class T>
void ops::Conv<W>::vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& x, const Shape& row, Out<T> dx) const {
  static_assert(std::is_same_v<T, compute_scalar<W>>,
                "graft: this layer's activations have another scalar: double for a double weight, else float");
  const kernels::ConvGeometry geometry = detail::conv_geometry(conv, row);
  if (dx.data()) detail::conv_backward_input<T, W>(geometry, weight, dy, dx, batch.workspace);
  if (!trainable(batch)) return;
  T* const dw = trained.weight ? gradients.at<T>(weight, geometry.out, geometry.weight_columns()).data() : nullptr;
  T* const db = trained.bias && bias ? gradients.at<T>(bias, 1, geometry.out).data() : nullptr;
  detail::conv_backward_parameters<T>(geometry, dy, x, dw, db, batch.workspace);
}

}  // namespace graft
