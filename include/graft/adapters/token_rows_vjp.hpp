#pragma once

#include <algorithm>

#include "../kernels/products.hpp"
#include "../kernels/transpose.hpp"
#include "looked_up.hpp"
#include "token_rows.hpp"
#include "update_gradient.hpp"

namespace graft::detail {

/// g (n, dim) is the gradient by an embedding's result: where a trained token's row was written over, it becomes that row's,
/// and 0. A row that is longer than max_norm is scaled down as torch does it: no gradient goes through that.
template <class T>
void replace_embedded_vjp(const TokenRows& tokens, const LayerFacts& facts, const Ids& ids, Out<T> g, Gradients& gradients,
                          Workspace* workspace) {
  T* const d_rows = gradient_of<T>(tokens.rows(), gradients);
  const LookUps looked_up(ids, facts, workspace);
  for (Index i = 0; i < ids.size(); ++i) {
    const Index place = tokens.find(ids[i]);
    if (place < 0) continue;
    const T factor = T(facts.embed_scale * looked_up.factor(i));
    for (Index c = 0; c < g.cols(); ++c) {
      if (d_rows) d_rows[place * g.cols() + c] += factor * g(i, c);
      g(i, c) = T(0);
    }
  }
}

/// g (n, out) is the gradient by a linear head's result: where a trained token's column was written over, it becomes that of
/// the token's row and of x, and 0.
template <class T>
void replace_logits_vjp(const TokenRows& tokens, const In<T>& x, Out<T> g, Out<T> dx, Gradients& gradients, Workspace* workspace) {
  const Index count = Index(tokens.ids().size()), n = x.rows(), in = x.cols();
  if (count == 0 || n == 0) return;
  const Scratch<T> memory(workspace, 2 * n * count);
  T *const logits = memory.data(), *const turned = logits + n * count;  // the gradient by x·Dᵀ
  std::fill_n(logits, n * count, T(0));  // of an id that is listed twice one row counts
  for (Index i = 0; i < n; ++i)
    for (const Index place : tokens.places()) {
      T& here = g(i, tokens.id_at(place));
      logits[i * count + place] = here;
      here = T(0);
    }
  const T* const none = nullptr;
  if (T* const d_rows = gradient_of<T>(tokens.rows(), gradients)) {
    kernels::transpose(n, count, logits, count, turned, n);
    kernels::product_nn<T, T>(count, in, n, turned, n, x.data(), x.outerStride(), none, d_rows, in, true);
  }
  if (dx.data())
    kernels::product_nn<T, T>(n, in, count, logits, count, tokens.row<T>(0), in, none, dx.data(), dx.outerStride(), true);
}

}  // namespace graft::detail
