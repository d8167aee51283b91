#pragma once

#include <algorithm>

#include "../modules/parallel_product.hpp"
#include "adapter.hpp"

namespace graft::detail {

/// Calls add(x, y, workspace) for the rows of an update of `work` multiply-adds, where the host has threads in pieces, each
/// with memory of its own: no row has other bits for it.
template <class T, class F>
void in_pieces_of_rows(double work, const SiteInput<T>& x, Out<T> y, Workspace* workspace, const F& add) {
  constexpr Index unit = 12;  // whole tiles of every instruction set
  const Index n = y.rows(), pieces = std::min(pieces_of(workspace, work), (n + unit - 1) / unit);
  if (pieces <= 1) return add(x, y, workspace);
  const auto memory = workspace->for_pieces(pieces);
  for_each_failing_piece(workspace, pieces, [&](Index i) {
    const Index begin = piece_begin(i, pieces, n, unit), rows = piece_begin(i + 1, pieces, n, unit) - begin;
    add(x.part(begin, rows), rows_of(y, begin, rows), memory[std::size_t(i)].get());
  });
}

/// The multiply-adds of an update of y (n, out) over x (n, in), whose ranks are r together.
template <class T>
[[nodiscard]] double work_of_update(Index r, const SiteInput<T>& x, const Out<T>& y) {
  return double(y.rows()) * double(r) * double(x.rows.cols() + y.cols());
}

/// An adapter's update of a linear layer, in such pieces. What reads the base weight does so once, for all rows.
template <class T>
void update_in_pieces(const AdapterState<T>& state, const SiteInput<T>& x, Out<T> y, double weight, const BaseWeight<T>& base,
                      Workspace* workspace) {
  const double work = state.reads_base() ? 0 : work_of_update<T>(state.rank(), x, y);
  in_pieces_of_rows<T>(work, x, y, workspace, [&](const SiteInput<T>& some, Out<T> to, Workspace* own) {
    state.update(some, to, weight, base, own);
  });
}

}  // namespace graft::detail
