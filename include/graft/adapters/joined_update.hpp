#pragma once

#include <cstddef>
#include <new>
#include <span>

#include "../core/compile_once.hpp"
#include "../kernels/low_rank.hpp"
#include "parallel_update.hpp"

namespace graft::detail {

/// y = (y + the terms' updates over x, one after the other) · columns, in one pass over y; columns (out), or null for ones.
template <class T>
void add_terms(std::span<const kernels::LowRankTerm<T>> terms, const In<T>& x, const T* columns, Out<T> y, Workspace* workspace) {
  constexpr std::size_t few = 64;  // a row of a small rank: the workspace would cost as much as the update of a small layer
  const Scratch<T, few> scratch(workspace, kernels::low_rank_updates_scratch<T>(x.rows(), terms));
  kernels::low_rank_updates<T>(x.rows(), x.cols(), y.cols(), terms, x.data(), x.outerStride(), columns, y.data(), y.outerStride(),
                               scratch.data());
}

/// Adds the updates of adapters at a linear layer to y, in the order of the calls: neighbours that are low-rank terms
/// together, the others each by its own `update`. The bits are those of adding each alone.
template <class T>
class JoinedUpdate {
 public:
  /// x (n, in), y (n, out); `base` as adapters see the layer's weight.
  JoinedUpdate(const SiteInput<T>& x, Out<T> y, const BaseWeight<T>& base, Workspace* workspace)
      : x_(x), y_(y), base_(base), workspace_(workspace) {}

  void add(const AdapterState<T>& state, double weight) {
    if (!state.has_update()) return;
    if (count_ >= most_together) finish();
    const Index threads = threads_of(workspace_);
    const Index least = threads > 1 ? (y_.rows() + threads - 1) / threads : y_.rows();  // rows of a piece
    const Index more = state.terms_of_update(least, y_.cols(), weight, base_, first_term() + count_);
    count_ += more;
    if (more && !state.reads_base()) return;
    if (more) {
      const Scratch<T> memory(workspace_, y_.cols());
      return finish(state.columns_of_update(weight, base_, memory.data(), workspace_));
    }
    finish();
    update_in_pieces<T>(state, x_, y_, weight, base_, workspace_);
  }
  /// Adds what waits for more of its kind, and then multiplies y's columns: to be called after the last adapter.
  void finish(const T* columns = nullptr) {
    if (count_ == 0) return;
    const std::span<const kernels::LowRankTerm<T>> terms(first_term(), std::size_t(count_));
    Index ranks = 0;
    for (const kernels::LowRankTerm<T>& term : terms) ranks += term.r;
    in_pieces_of_rows<T>(work_of_update<T>(ranks, x_, y_), x_, y_, workspace_, [&](const SiteInput<T>& x, Out<T> y, Workspace* own) {
      add_terms<T>(terms, x.rows, columns, y, own);
    });
    count_ = 0;
  }

 private:
  static constexpr Index most_together = 8;  // more gain little, and they wait on the stack
  static constexpr Index most_waiting = most_together + AdapterState<T>::most_terms - 1;

  [[nodiscard]] kernels::LowRankTerm<T>* first_term() {
    return std::launder(reinterpret_cast<kernels::LowRankTerm<T>*>(memory_));
  }

  const SiteInput<T>& x_;
  Out<T> y_;
  const BaseWeight<T>& base_;
  Workspace* workspace_;
  // bytes, since a small layer would feel the filling of terms that no adapter writes
  alignas(kernels::LowRankTerm<T>) std::byte memory_[most_waiting * sizeof(kernels::LowRankTerm<T>)];
  Index count_ = 0;
};
GRAFT_SHARED_CLASS(JoinedUpdate<float>)

}  // namespace graft::detail
