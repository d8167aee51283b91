#pragma once

#include "../kernels/column_sums.hpp"
#include "../tensor/gradients.hpp"
#include "linear.hpp"
#include "parallel_backward.hpp"

namespace graft {

/// dx += dy·W, dW += dyᵀ·x, db += the sum of dy's rows.
template <class W>
template <class T>
void ops::Linear<W>::vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>&, std::span<const In<T>> x,
                         std::span<const Out<T>> dx) const {
  if (dx[0].data()) detail::parallel_product_backward<T>(weight, in, dy, dx[0], batch.workspace);
  const Index whole = whole_rows ? whole_rows : out;
  if (trained.weight) {
    const Out<T> dw = gradients.at<T>(weight - first_row * in, whole, in);
    detail::parallel_weight_backward<T>(dy, x[0], rows_of(dw, first_row, out), batch.workspace);
  }
  if (trained.bias && bias) {
    const Out<T> db = gradients.at<T>(bias - first_row, 1, whole);
    kernels::add_column_sums<T>(dy.rows(), out, dy.data(), dy.outerStride(), const_cast<T*>(db.data()) + first_row);
  }
}

}  // namespace graft
