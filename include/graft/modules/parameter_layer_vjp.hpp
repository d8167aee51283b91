#pragma once

#include <string>

#include "../tensor/gradients.hpp"
#include "parallel_backward.hpp"
#include "parameter_layer.hpp"

namespace graft {
namespace detail {
/// dx += dy·Wᵉ, dwᵉ += dyᵀ·x for the rows of one expert; w and dw as they are stored, null where nobody wants them.
template <class T, class W>
void add_expert_vjp(bool transposed, const W* w, Index ld, T* dw, Index lddw, const In<T>& dy, const In<T>& x, Out<T> dx,
                    Workspace* workspace) {
  if (dx.data()) {
    if (transposed) parallel_product<T>(w, ld, dy, static_cast<const T*>(nullptr), dx, workspace, true);
    else parallel_product_backward<T>(w, ld, dy, dx, workspace);
  }
  if (!dw) return;
  if (transposed) parallel_weight_backward<T>(x, dy, graft::out<T>(dw, x.cols(), dy.cols(), lddw), workspace);
  else parallel_weight_backward<T>(dy, x, graft::out<T>(dw, dy.cols(), x.cols(), lddw), workspace);
}
}  // namespace detail

template <class W>
template <class T>
void ops::ExpertLinear<W>::vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>&,
                               std::span<const In<T>> x, std::span<const Out<T>> dx) const {
  T* dw = nullptr;
  if (trained.weight) {
    if (ld != stack.cols() && stack.count() * stack.rows() > 1)
      fail<TrainingError>("a weight of shape " + to_string(stack.stored) + " whose rows are " + std::to_string(ld) +
                              " apart is to be trained",
                          "a gradient has the layout of its parameter, and that must lie in one piece",
                          "let its layer_traits show a weight without gaps, or set its requires_grad to false");
    dw = gradients.at<T>(weight, stack.stored.rows(), stack.stored.cols()).data();
  }
  const bool wants_dx = dx[0].data() != nullptr;
  const Index n = dy.rows(), in = x[0].cols(), out = dy.cols(), size = stack.rows() * stack.cols();
  const auto add = [&](Index e, const In<T>& g, const In<T>& rows, Out<T> to) {
    detail::add_expert_vjp<T>(stack.transposed, weight + e * stack.rows() * ld, ld, dw ? dw + e * size : nullptr, stack.cols(), g,
                              rows, to, batch.workspace);
  };
  const Scratch<T> memory(batch.workspace, experts.is_by_row() ? n * (out + 2 * in) : 0);
  detail::for_each_expert_of(experts, stack.experts, n, batch.workspace, [&](Index e, const Index* mine, Index count) {
    const Out<T> nothing = graft::out<T>(nullptr, count, in);
    if (detail::are_neighbours(mine, count)) {
      const Index begin = mine ? mine[0] : 0;
      return add(e, rows_of(dy, begin, count), rows_of(x[0], begin, count), wants_dx ? rows_of(dx[0], begin, count) : nothing);
    }
    Out<T> g = graft::out<T>(memory.data(), count, out), rows = graft::out<T>(g.data() + count * out, count, in),
           to = graft::out<T>(rows.data() + count * in, count, in);
    detail::gather_rows(mine, count, dy, g);
    detail::gather_rows(mine, count, x[0], rows);
    if (wants_dx) detail::gather_rows(mine, count, graft::in<T>(dx[0]), to);
    add(e, graft::in<T>(g), graft::in<T>(rows), wants_dx ? to : nothing);
    for (Index i = 0; wants_dx && i < count; ++i) copy_rows(graft::in<T>(rows_of(to, i, 1)), rows_of(dx[0], mine[i], 1));
  });
}

}  // namespace graft
