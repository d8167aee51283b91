#pragma once

#include "../kernels/attention_backward.hpp"
#include "../kernels/elementwise.hpp"
#include "attention.hpp"

namespace graft {

/// dx += dy, turned back.
template <class T>
void ops::Rotary::vjp(const BatchView& batch, Gradients&, const In<T>& dy, const In<T>&, std::span<const In<T>>,
                      std::span<const Out<T>> dx) const {
  if (!dx[0].data()) return;
  constexpr Index most = 16;  // rows that are turned at once
  const Index d = options.head_dim, cols = dy.cols(), stride = dx[0].outerStride();
  T* const to = const_cast<T*>(dx[0].data());
  const Scratch<T> turned(batch.workspace, std::min(most, dy.rows()) * cols);
  const auto turn = [&](Index from, Index rows, const T* table) {
    for (Index i = 0; i < rows; i += most) {
      const Index count = std::min(most, rows - i), row = from + i;
      kernels::rotary<T>(count, cols / d, d, table + i * d, dy.data() + row * dy.outerStride(), dy.outerStride(), turned.data(), cols);
      kernels::add<T>(count, cols, to + row * stride, stride, turned.data(), cols, to + row * stride, stride);
    }
  };
  for_each_piece<T>(batch, dy.rows(), turn, true);
}

namespace detail {
/// dq, dk, dv += the gradients of one sequence's attention, in pieces of heads on the host's threads. The views begin with
/// its rows; null data: unwanted.
template <class T>
void attention_backward(const kernels::AttentionShape& shape, const In<T>& q, const In<T>& k, const In<T>& v, const In<T>& dy,
                        const Out<T>& dq, const Out<T>& dk, const Out<T>& dv, Workspace* workspace) {
  const auto at = [](const Out<T>& x, Index column) { return x.data() ? const_cast<T*>(x.data()) + column : nullptr; };
  const double work = 5 * double(shape.rows) * double(shape.keys) * double(q.cols());
  const auto go_back = [&](const kernels::AttentionShape& part, Index head, Index kv_head, T* scratch) {
    const kernels::AttentionGradients<T> to{at(dq, head),     dq.outerStride(),  at(dk, kv_head),
                                            dk.outerStride(), at(dv, kv_head), dv.outerStride()};
    kernels::attention_backward<T>(part, q.data() + head, q.outerStride(), k.data() + kv_head, k.outerStride(), v.data() + kv_head,
                                   v.outerStride(), dy.data() + head, dy.outerStride(), to, scratch);
  };
  for_each_head<T>(shape, work, kernels::attention_backward_scratch(shape), workspace, go_back);
}
/// The same for every sequence of a batch to itself.
template <class T>
void attention_backward(const AttentionOptions& options, const BatchView& batch, const In<T>& dy, std::span<const In<T>> x,
                        std::span<const Out<T>> dx) {
  if (!dx[0].data() && !dx[1].data() && !dx[2].data()) return;
  for (const Sequence& sequence : batch.sequences) {
    if (!sequence.rows) continue;
    const auto here = [&](const auto& all) { return all.data() ? rows_of(all, sequence.begin, sequence.rows) : all; };
    const kernels::AttentionShape shape{.rows = sequence.rows, .keys = sequence.rows, .heads = options.heads,
                                        .kv_heads = options.kv_heads, .head_dim = dy.cols() / options.heads,
                                        .causal = options.causal, .scale = options.scale};
    attention_backward<T>(shape, here(x[0]), here(x[1]), here(x[2]), here(dy), here(dx[0]), here(dx[1]), here(dx[2]),
                          batch.workspace);
  }
}
}  // namespace detail

/// The weights of the rows that see one another are made anew, a few rows at a time.
template <class T>
void ops::Attention::vjp(const BatchView& batch, Gradients&, const In<T>& dy, const In<T>&, std::span<const In<T>> x,
                         std::span<const Out<T>> dx) const {
  check_recorded(batch);
  detail::attention_backward<T>(options, batch, dy, x, dx);
}

/// Row i of dy belongs to the i-th sequence that has rows.
template <class T>
void ops::Last::vjp(const BatchView& batch, Gradients&, const In<T>& dy, const In<T>&, std::span<const In<T>>,
                    std::span<const Out<T>> dx) const {
  if (!dx[0].data()) return;
  Out<T> to = dx[0];
  Index next = 0;
  for (const Sequence& sequence : batch.sequences)
    if (sequence.rows) to.row(sequence.begin + sequence.rows - 1) += dy.row(next++);
}
template <class T>
void ops::MeanPool::vjp(const BatchView& batch, Gradients&, const In<T>& dy, const In<T>&, std::span<const In<T>>,
                        std::span<const Out<T>> dx) const {
  if (!dx[0].data()) return;
  Out<T> to = dx[0];
  Index next = 0;
  for (const Sequence& sequence : batch.sequences) {
    if (!sequence.rows) continue;
    const auto share = dy.row(next++) / T(sequence.rows);
    for (Index i = 0; i < sequence.rows; ++i) to.row(sequence.begin + i) += share;
  }
}

}  // namespace graft
