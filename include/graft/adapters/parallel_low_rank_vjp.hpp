#pragma once

#include <algorithm>

#include "../kernels/backward.hpp"
#include "../modules/parallel_product.hpp"

namespace graft::detail {

/// kernels::low_rank_backward in pieces on the host's threads, where the workspace has some: rows of dx, then columns of the
/// gradients of A (r, in) and B (out, r), turned around. Every element has the bits that it has in one piece.
template <class T>
void parallel_low_rank_vjp(Index r, const In<T>& x, const T* a, const T* b, const T* e, T scale, const In<T>& g,
                           const kernels::LowRankGradients<T>& to, Workspace* workspace) {
  using Halves = kernels::LowRankBackward<T>;
  constexpr Index rows_unit = 24, columns_unit = 64;  // whole tiles; lines of memory
  const Index n = g.rows(), in = x.cols(), out = g.cols();
  if (n == 0 || r == 0 || (!to.dA && !to.dB && !to.de && !to.dx)) return;
  const auto units_of = [](Index count, Index unit) { return (count + unit - 1) / unit; };
  const Index most = pieces_of(workspace, double(n) * double(r) * double(in + out));
  const Index row_pieces = std::clamp(units_of(n, rows_unit), Index{1}, most);
  const Index units_of_a = to.dA ? units_of(in, columns_unit) : 0, units = units_of_a + (to.dB ? units_of(out, columns_unit) : 0);
  const Index column_pieces = std::clamp(units, Index{1}, most);

  const Index of_rows = Halves::rows_scratch(n, r);
  const Index of_columns = Halves::columns_scratch(n, std::min(units_of(units, column_pieces) * columns_unit, std::max(in, out)), r);
  const Index shared = Halves::memory_size(n, out, r);
  const Scratch<T> memory(workspace, shared + std::max(row_pieces * of_rows, column_pieces * of_columns));
  T* const own = memory.data() + shared;
  const Halves halves{n, in, out, r, x.data(), x.outerStride(), a, b, e, scale, g.data(), g.outerStride(), nullptr, to, memory.data()};
  halves.turn();
  for_each_piece(workspace, row_pieces, [&](Index i) {
    const Index begin = piece_begin(i, row_pieces, n, rows_unit);
    halves.rows(begin, piece_begin(i + 1, row_pieces, n, rows_unit) - begin, own + i * of_rows);
  });
  halves.add_de();
  if (units == 0) return;
  for_each_piece(workspace, column_pieces, [&](Index i) {
    const Index first = piece_begin(i, column_pieces, units, 1), last = piece_begin(i + 1, column_pieces, units, 1);
    T* const scratch = own + i * of_columns;
    if (const Index begin = first * columns_unit, end = std::min(std::min(last, units_of_a) * columns_unit, in); begin < end)
      halves.columns_of_a(begin, end - begin, scratch);
    if (const Index begin = (std::max(first, units_of_a) - units_of_a) * columns_unit,
        end = std::min((std::max(last, units_of_a) - units_of_a) * columns_unit, out);
        begin < end)
      halves.columns_of_b(begin, end - begin, scratch);
  });
}

}  // namespace graft::detail
