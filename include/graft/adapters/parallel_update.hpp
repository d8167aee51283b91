#pragma once

#include <algorithm>

#include "../modules/parallel_product.hpp"
#include "adapter.hpp"

namespace graft::detail {

/// An adapter's update of a linear layer, where the host has threads in pieces of rows: no row has other bits for it. What
/// reads the base weight does so once, for all rows.
template <class T>
void update_in_pieces(const AdapterState<T>& state, const SiteInput<T>& x, Out<T> y, double weight, const BaseWeight<T>& base,
                      Workspace* workspace) {
  constexpr Index unit = 12;  // whole tiles of every instruction set
  const Index n = y.rows();
  Index pieces = 1;
  if (threads_of(workspace) > 1 && !state.reads_base())
    pieces = std::min(pieces_of(workspace, double(n) * double(state.rank()) * double(x.rows.cols() + y.cols())), (n + unit - 1) / unit);
  if (pieces <= 1) return state.update(x, y, weight, base, workspace);
  const auto memory = workspace->for_pieces(pieces);
  for_each_failing_piece(workspace, pieces, [&](Index i) {
    const Index begin = piece_begin(i, pieces, n, unit), rows = piece_begin(i + 1, pieces, n, unit) - begin;
    state.update(x.part(begin, rows), rows_of(y, begin, rows), weight, base, memory[std::size_t(i)].get());
  });
}

}  // namespace graft::detail
