#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <type_traits>

#include "../kernels/products.hpp"
#include "../tensor/matrix.hpp"
#include "../tensor/workspace.hpp"

namespace graft::detail {

/// The multiply-adds that a piece must have to pay for a thread: some ten microseconds.
inline constexpr double work_of_piece = 1 << 20;

[[nodiscard]] inline Index threads_of(const Workspace* workspace) { return workspace ? workspace->parallel_for().threads() : 1; }
/// Into how many pieces the workspace's host may cut `work` multiply-adds.
[[nodiscard]] inline Index pieces_of(const Workspace* workspace, double work) {
  const Index threads = threads_of(workspace);
  return threads < 2 ? 1 : std::clamp(Index(std::min(work / work_of_piece, 1e6)), Index{1}, threads);
}
/// Where piece i of `pieces` begins in `count`: whole units, as even as these allow.
[[nodiscard]] constexpr Index piece_begin(Index i, Index pieces, Index count, Index unit) {
  return std::min(count, (count + unit - 1) / unit * i / pieces * unit);
}
/// Calls f(i) for all pieces, where there is more than one on the host's threads.
template <class F>
void for_each_piece(Workspace* workspace, Index pieces, const F& f) {
  if (pieces > 1) return workspace->parallel_for()(pieces, f);
  f(Index{0});
}

/// The same for pieces that may throw, as those do that take memory: the first error is thrown when all have ended.
template <class F>
void for_each_failing_piece(Workspace* workspace, Index pieces, const F& f) {
#if defined(__cpp_exceptions)
  std::atomic<bool> has_failed{false};
  std::exception_ptr error;
  for_each_piece(workspace, pieces, [&](Index i) {
    try {
      f(i);
    } catch (...) {
      if (!has_failed.exchange(true)) error = std::current_exception();
    }
  });
  if (error) std::rethrow_exception(error);
#else
  for_each_piece(workspace, pieces, f);
#endif
}

/// The rows of a weight of scalars from `o` on; of a view those are its own.
template <class W>
const W* weight_row(const W* w, Index o, Index ld) {
  return w + o * ld;
}
template <class View>
  requires(!std::is_pointer_v<View>)
View weight_row(const View& w, Index o, Index ld) {
  return w.row(o, ld);
}
template <class T, class W>
void product_rows(const W* w, Index ldw, Index out, const In<T>& x, const T* bias, Out<T> y, bool adds, T* scratch) {
  kernels::product_nt<T, W>(x.rows(), out, x.cols(), x.data(), x.outerStride(), w, ldw, bias, y.data(), y.outerStride(), adds, scratch);
}
template <class View>
  requires(!std::is_pointer_v<View>)
void product_rows(const View& w, Index ldw, Index out, const In<float>& x, const float* bias, Out<float> y, bool adds, float* scratch) {
  kernels::product_nt_view(x.rows(), out, x.cols(), x.data(), x.outerStride(), w, ldw, bias, y.data(), y.outerStride(), adds, scratch);
}

/// y = x·Wᵀ + b by graft's kernel, or where it `adds` y += that, in pieces on the host's threads where the workspace has
/// some: columns of y where it is broad, so that a weight is read once, rows of y where it is tall. `w`: a pointer to
/// scalars, or a view, (out, in) with rows ldw columns apart. Every element has the bits that it has in one piece.
template <class T, class W>
void parallel_product(const W& w, Index ldw, const In<T>& x, const T* bias, Out<T> y, Workspace* workspace, bool adds = false) {
  using Weight = std::remove_const_t<std::remove_pointer_t<W>>;
  // 16 columns: whole tiles, and no cache line of y that two threads write; 12 rows: whole tiles of every instruction set
  constexpr Index columns_unit = 16, rows_unit = 12;
  const Index n = x.rows(), out = y.cols(), in = x.cols(), ldx = x.outerStride();
  const bool by_rows = n > out;
  const Index count = by_rows ? n : out, unit = by_rows ? rows_unit : columns_unit;
  // reading a weight once costs as much as multiplying four rows with it
  const Index pieces = std::min(pieces_of(workspace, double(out) * double(in) * double(n + 4)), (count + unit - 1) / unit);
  if (pieces <= 1) {
    const Scratch<T> scratch(workspace, kernels::product_nt_scratch<T, Weight>(n, in, ldx, ldw));
    return product_rows(w, ldw, out, x, bias, y, adds, scratch.data());
  }
  const auto rows_in = [&](Index i) { return piece_begin(i + 1, pieces, count, unit) - piece_begin(i, pieces, count, unit); };
  Index each = 0;
  for (Index i = 0; i < (by_rows ? pieces : 1); ++i)
    each = std::max(each, Index(kernels::product_nt_scratch<T, Weight>(by_rows ? rows_in(i) : n, in, ldx, ldw)));
  const Scratch<T> scratch(workspace, pieces * each);
  for_each_piece(workspace, pieces, [&](Index i) {
    const Index begin = piece_begin(i, pieces, count, unit), here = rows_in(i);
    T* const own = scratch.data() + i * each;
    if (by_rows) product_rows(w, ldw, out, rows_of(x, begin, here), bias, rows_of(y, begin, here), adds, own);
    else
      product_rows(weight_row(w, begin, ldw), ldw, here, x, bias ? bias + begin : nullptr,
                   graft::out<T>(y.data() + begin, n, here, y.outerStride()), adds, own);
  });
}

/// y = x·W for a weight that is stored (in, out), in such pieces.
template <class T, class W>
void parallel_product_nn(const W* w, Index ldw, const In<T>& x, Out<T> y, Workspace* workspace) {
  constexpr Index columns_unit = 64, rows_unit = 24;  // lines of y, whole registers and tiles
  const Index n = x.rows(), out = y.cols(), in = x.cols();
  const bool by_rows = n > out;
  const Index count = by_rows ? n : out, unit = by_rows ? rows_unit : columns_unit;
  const Index wanted = std::min(pieces_of(workspace, double(out) * double(in) * double(n + 4)), (count + unit - 1) / unit);
  const Index pieces = std::max(wanted, Index{1});
  for_each_piece(workspace, pieces, [&](Index i) {
    const Index begin = piece_begin(i, pieces, count, unit), here = piece_begin(i + 1, pieces, count, unit) - begin;
    const Index row = by_rows ? begin : 0, column = by_rows ? 0 : begin;
    kernels::product_nn<T, W>(by_rows ? here : n, by_rows ? out : here, in, x.data() + row * x.outerStride(), x.outerStride(), w + column,
                              ldw, nullptr, y.data() + row * y.outerStride() + column, y.outerStride(), false);
  });
}

}  // namespace graft::detail
