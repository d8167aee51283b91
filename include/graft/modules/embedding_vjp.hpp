#pragma once

#include <type_traits>

#include "../kernels/elementwise.hpp"
#include "../tensor/gradients.hpp"
#include "embedding.hpp"
#include "user_layer_vjp.hpp"

namespace graft {
namespace detail {

/// Adds the rows of dy (n, dim) to the gradient dw (num, dim) of the rows that the ids name. The row of padding_idx gets
/// nothing; with scale_grad_by_freq a row's gradients are divided by how often its id stands here. As in torch, which
/// renormalises the table itself before it looks up, max_norm's factor has no part in it. @pre look_up has taken these ids
template <class T>
void look_up_vjp(const EmbeddingOptions& options, const Ids& ids, const In<T>& dy, Out<T> dw, Workspace* workspace) {
  const Scratch<Index> counts(workspace, options.scale_grad_by_freq ? dw.rows() : 0);
  if (options.scale_grad_by_freq) {
    for (Index i = 0; i < ids.size(); ++i) counts.data()[ids[i]] = 0;
    for (Index i = 0; i < ids.size(); ++i) ++counts.data()[ids[i]];
  }
  for (Index i = 0; i < ids.size(); ++i) {
    if (options.padding_idx == ids[i]) continue;
    const T factor = options.scale_grad_by_freq ? T(1) / T(counts.data()[ids[i]]) : T(1);
    kernels::add_scaled<T>(1, dw.cols(), factor, dy.data() + i * dy.outerStride(), 0, dw.data() + ids[i] * dw.outerStride(), 0);
  }
}

/// The same for a user's table, as its layer_traits show it.
template <class L, class T>
void user_look_up_vjp(const L& layer, const Ids& ids, Gradients& gradients, const In<T>& dy) {
  const StoredValues table = stored_weight(layer);
  if (!table.data) cannot_train<L>("weight");
  Out<T> dw = gradients.at<T>(table.data, table.rows, table.cols);
  T factor(1);
  if constexpr (requires { traits_of<L>::embed_scale(layer); }) factor = T(traits_of<L>::embed_scale(layer));
  for (Index i = 0; i < ids.size(); ++i)
    for (Index c = 0; c < dy.cols(); ++c) (table.is_turned ? dw(c, ids[i]) : dw(ids[i], c)) += factor * dy(i, c);
}
}  // namespace detail

/// Adds to `gradients` the gradient by an embedding's table, given that by the rows that were looked up, dy (n, dim).
/// A user's table is that of `layer_traits<L>::weight`. @throws TrainingError where that does not lie in one piece
template <class L, class T>
void embedding_vjp(const L& layer, const Ids& ids, const BatchView& batch, Gradients& gradients, const In<T>& dy) {
  static_assert(detail::traits_of<L>::kind == LayerKind::embedding, "graft: this is the vjp of an embedding");
  static_assert(std::is_same_v<T, detail::layer_scalar<L>>, "graft: this layer's activations have another scalar");
  if constexpr (detail::is_embedding<L>)
    detail::look_up_vjp<T>(layer.options, ids, dy, gradients.at<T>(layer.weight.untyped()), batch.workspace);
  else detail::user_look_up_vjp(layer, ids, gradients, dy);
}

}  // namespace graft
