#pragma once

#include <algorithm>
#include <type_traits>

#include "../kernels/weight_backward.hpp"
#include "parallel_product.hpp"

namespace graft::detail {

template <class T, class W>
void add_backward_rows(const W* w, Index ldw, const In<T>& dy, Out<T> dx, T* scratch) {
  kernels::product_nt_backward<T, W>(dy.rows(), dy.cols(), dx.cols(), dy.data(), dy.outerStride(), w, ldw, dx.data(),
                                     dx.outerStride(), true, scratch);
}
template <class View>
  requires(!std::is_pointer_v<View>)
void add_backward_rows(const View& w, Index ldw, const In<float>& dy, Out<float> dx, float* scratch) {
  kernels::product_nn_view(dy.rows(), dx.cols(), dy.cols(), dy.data(), dy.outerStride(), w, ldw, dx.data(), dx.outerStride(),
                           true, 1.0f, scratch);
}

/// dx += dy·W, the gradient of x of y = x·Wᵀ, in pieces on the host's threads where the workspace has some. `w`: a pointer
/// to scalars, or a view, (out, in) with rows ldw columns apart. Every element has the bits that it has in one piece.
template <class T, class W>
void parallel_product_backward(const W& w, Index ldw, const In<T>& dy, Out<T> dx, Workspace* workspace) {
  constexpr Index columns_unit = 64, rows_unit = 24;  // lines of dx, whole registers and tiles
  const Index n = dy.rows(), out = dy.cols(), in = dx.cols();
  if (n == 0 || in == 0 || out == 0) return;
  const bool by_rows = !std::is_pointer_v<W> || n > in;  // a view's columns are in blocks
  const Index count = by_rows ? n : in, unit = by_rows ? rows_unit : columns_unit;
  const Index wanted = std::min(pieces_of(workspace, double(out) * double(in) * double(n + 4)), (count + unit - 1) / unit);
  const Index pieces = std::max(wanted, Index{1}), each = kernels::panel_scratch<T>(out, in);
  const Scratch<T> scratch(workspace, pieces * each);
  for_each_piece(workspace, pieces, [&](Index i) {
    const Index begin = piece_begin(i, pieces, count, unit), here = piece_begin(i + 1, pieces, count, unit) - begin;
    T* const own = scratch.data() + i * each;
    if constexpr (std::is_pointer_v<W>)
      if (!by_rows)
        return add_backward_rows(w + begin, ldw, dy, graft::out<T>(dx.data() + begin, n, here, dx.outerStride()), own);
    add_backward_rows(w, ldw, rows_of(dy, begin, here), rows_of(dx, begin, here), own);
  });
}

/// dw += dyᵀ·x, the gradient of the weight, in such pieces: rows of dw. For one that is stored (in, out), dy and x change
/// places.
template <class T>
void parallel_weight_backward(const In<T>& dy, const In<T>& x, Out<T> dw, Workspace* workspace) {
  constexpr Index unit = 24;
  const Index n = dy.rows(), out = dy.cols(), in = x.cols();
  if (n == 0 || in == 0 || out == 0) return;
  const Index wanted = std::min(pieces_of(workspace, double(out) * double(in) * double(n + 4)), (out + unit - 1) / unit);
  const Index pieces = std::max(wanted, Index{1}), each = kernels::product_tn_backward_scratch<T>(n, out, in);
  const Scratch<T> scratch(workspace, pieces * each);
  for_each_piece(workspace, pieces, [&](Index i) {
    const Index begin = piece_begin(i, pieces, out, unit), here = piece_begin(i + 1, pieces, out, unit) - begin;
    kernels::product_tn_backward<T>(n, here, in, dy.data() + begin, dy.outerStride(), x.data(), x.outerStride(),
                                    dw.data() + begin * dw.outerStride(), dw.outerStride(), scratch.data() + i * each);
  });
}

}  // namespace graft::detail
