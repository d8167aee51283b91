#pragma once

#include <algorithm>

#include "../kernels/column_sums.hpp"
#include "../kernels/elementwise.hpp"
#include "../tensor/gradients.hpp"
#include "adapter.hpp"

namespace graft {

/// What an update saw where dropout acts, in the place of x.
template <class T>
struct DroppedInput {
  SiteInput<T> x;    ///< with elements dropped, and the others the larger
  In<T> product;     ///< the base's with it, without its bias; null data unless the adapter reads the base
  Out<T> dx;         ///< the gradient by that x, added to; null data where nobody wants it
  Out<T> d_product;  ///< the gradient by that product, to be written; null data where there is no product
};

/// The gradient of an adapter's update at rows of one selection, as `update_vjp` of its state is asked for it.
///
/// Parameters of the state get theirs where they want one: `gradient_of`. A state that reads the base is given what is null
/// for all others. Members that a state may have besides: `update_wants_result()`, without which `y` is always there.
template <class T>
struct UpdateGradient {
  const SiteInput<T>& x;  ///< what came in, after the steps before the base product
  In<T> y;                ///< (n, out) as it stood before the update; null data where nobody wants it
  Out<T> g;               ///< (n, out) the gradient by the result; the state makes it that by y, and leaves it where y is only added to
  Out<T> dx;              ///< (n, in) the gradient by x, to be added to; null data where nobody wants it, and at an embedding
  double weight;          ///< of the selection
  const BaseWeight<T>& base;
  T* d_bias;              ///< (out) to be added to: the gradient by the base's bias that is not in g; null where nobody wants it
  const DroppedInput<T>* dropped;  ///< null without dropout
  Gradients& gradients;
  Workspace* workspace;
};

/// The same of a step that changes the input, `before_vjp`, or the result, `after_vjp`. A state that takes no such step does
/// nothing. `after_wants_result()` is to such a step what `update_wants_result()` is to an update.
template <class T>
struct FactorGradient {
  In<T> x;  ///< (n, width) before the step; null data where nobody wants it
  Out<T> g;  ///< (n, width) the gradient by y; the state makes it that by x
  double weight;
  Gradients& gradients;
  Workspace* workspace;
};

namespace detail {
/// Where a parameter's gradient is added, contiguous; null where it wants none.
template <class T>
[[nodiscard]] T* gradient_of(const ParameterData& parameter, Gradients& gradients) {
  if (!parameter.requires_grad() || parameter.shape().size() == 0) return nullptr;
  return gradients.at<T>(parameter).data();
}

/// to[c] += scale · what add(first column, count, sums) adds to sums, for all columns: some at a time, which need no memory.
template <class T, class Add>
void add_scaled_sums(Index columns, double scale, T* to, const Add& add) {
  constexpr Index some = 128;
  for (Index c = 0; c < columns; c += some) {
    const Index count = std::min(columns - c, some);
    T sums[some] = {};
    add(c, count, sums);
    for (Index k = 0; k < count; ++k) to[c + k] += T(scale * double(sums[k]));
  }
}
/// to[c] += scale · the sum of g (n, channels · positions) over rows and the channel's positions. Of a norm the features
/// repeat with every position.
template <class T>
void add_channel_sums(const In<T>& g, Index channels, double scale, T* to, bool is_repeated = false) {
  const Index n = g.rows(), positions = channels ? g.cols() / channels : 0, stride = g.outerStride();
  if (positions == 1)
    return add_scaled_sums<T>(channels, scale, to, [&](Index c, Index count, T* sums) {
      kernels::add_column_sums<T>(n, count, g.data() + c, stride, sums);
    });
  for (Index c = 0; c < channels; ++c) {
    double sum = 0;
    for (Index i = 0; i < n; ++i) {
      const T* row = g.data() + i * stride + (is_repeated ? c : c * positions);
      for (Index p = 0; p < positions; ++p) sum += double(row[is_repeated ? p * channels : p]);
    }
    to[c] += T(scale * sum);
  }
}
/// to[c] += scale · the sum of g ∘ v, both (n, channels · positions), over rows and the channel's positions.
template <class T>
void add_channel_dots(const In<T>& g, const In<T>& v, Index channels, double scale, T* to) {
  const Index n = g.rows(), positions = channels ? g.cols() / channels : 0;
  if (positions == 1)
    return add_scaled_sums<T>(channels, scale, to, [&](Index c, Index count, T* sums) {
      kernels::add_column_dots<T>(n, count, g.data() + c, g.outerStride(), v.data() + c, v.outerStride(), sums);
    });
  for (Index c = 0; c < channels; ++c) {
    double sum = 0;
    for (Index i = 0; i < n; ++i)
      for (Index p = c * positions; p < (c + 1) * positions; ++p) sum += double(g(i, p)) * double(v(i, p));
    to[c] += T(scale * sum);
  }
}
/// y (n, channels · positions) -= the base's bias.
template <class T>
void subtract_bias(const BaseWeight<T>& base, Index channels, Out<T> y, Workspace* workspace) {
  if (!base.has_bias()) return;
  const Scratch<T> bias(workspace, channels);
  base.copy_bias(bias.data());
  const Index positions = y.cols() / channels;
  for (Index i = 0; i < y.rows(); ++i) {
    T* row = y.data() + i * y.outerStride();
    if (positions == 1) kernels::add_scaled<T>(1, channels, T(-1), bias.data(), 0, row, 0);
    else
      for (Index c = 0; c < channels; ++c, row += positions)
        for (Index p = 0; p < positions; ++p) row[p] -= bias.data()[c];
  }
}
}  // namespace detail

}  // namespace graft
