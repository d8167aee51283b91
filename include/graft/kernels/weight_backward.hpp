#pragma once

#include "backward.hpp"
#include "column_sums.hpp"

/// The gradient of a linear layer's weight, y = x W^T, where it is trained too.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

namespace detail {
// So many rows of dW are passed over at a time: scratch is bounded in out.
inline constexpr std::ptrdiff_t backward_outputs = 256;
}  // namespace detail

/// The number of T that product_tn_backward needs as scratch: bounded in all three.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t product_tn_backward_scratch(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in) {
  const std::ptrdiff_t rows = std::min(n, detail::backward_rows);
  return std::min(out, detail::backward_outputs) * rows + panel_scratch<T>(rows, in);
}

/// dW += g^T x: the gradient of W of y = x W^T. g (n, out), x (n, in), dW (out, in); scratch:
/// product_tn_backward_scratch<T>(n, out, in) T. For a weight that is stored (in, out), g and x change places. An element
/// of dW has the same bits whatever others are in the call.
template <class T>
void product_tn_backward(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const T* g, std::ptrdiff_t ldg, const T* x,
                         std::ptrdiff_t ldx, T* dw, std::ptrdiff_t lddw, T* scratch) {
  const std::ptrdiff_t most_rows = std::min(n, detail::backward_rows), most_outputs = std::min(out, detail::backward_outputs);
  T* const turned = scratch;  // g^T (outputs, rows)
  T* const panels = turned + most_rows * most_outputs;
  for (std::ptrdiff_t i = 0; i < n; i += most_rows) {
    const std::ptrdiff_t rows = std::min(n - i, most_rows);
    for (std::ptrdiff_t o = 0; o < out; o += most_outputs) {
      const std::ptrdiff_t outputs = std::min(out - o, most_outputs);
      transpose(rows, outputs, g + i * ldg + o, ldg, turned, rows);
      detail::product_nn_either(outputs, in, rows, turned, rows, x + i * ldx, ldx, dw + o * lddw, lddw, true, panels);
    }
  }
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
