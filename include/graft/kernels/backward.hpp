#pragma once

#include "low_rank.hpp"
#include "panel_product.hpp"

/// Gradients of a linear layer with a low-rank update, the weight frozen: g (n, out) is the gradient of the loss by the
/// result. Nothing is allocated, and no gradient of the weight is formed.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

namespace detail {
// From so many rows on, copying the other operand into panels costs less than walking down it does.
inline constexpr std::ptrdiff_t panels_pay = 12;
// So many rows of x and g are passed over at a time: scratch is bounded in n.
inline constexpr std::ptrdiff_t backward_rows = 512;

template <class T, class W>
void product_nn_either(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const T* x, std::ptrdiff_t ldx, const W* w,
                       std::ptrdiff_t ldw, T* y, std::ptrdiff_t ldy, bool accumulate, T* scratch) {
  if (n < panels_pay) product_nn(n, out, in, x, ldx, w, ldw, static_cast<const T*>(nullptr), y, ldy, accumulate);
  else product_nn_panels(n, out, in, x, ldx, w, ldw, y, ldy, accumulate, T(1), scratch);
}
}  // namespace detail

/// dx (+)= g W: the gradient of x of y = x W^T. w (out, in), dx (n, in); scratch: panel_scratch<T>(out, in) T. A weight
/// that is stored (in, out) takes product_nt. A row of dx has the same bits whatever other rows are in the call.
template <class T, class W>
void product_nt_backward(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const T* g, std::ptrdiff_t ldg, const W* w,
                         std::ptrdiff_t ldw, T* dx, std::ptrdiff_t lddx, bool accumulate, T* scratch) {
  detail::product_nn_either(n, in, out, g, ldg, w, ldw, dx, lddx, accumulate, scratch);
}

/// Where low_rank_backward adds: null for a gradient that is not wanted. All but dx are contiguous.
template <class T>
struct LowRankGradients {
  T* dA = nullptr;  ///< (r, in)
  T* dB = nullptr;  ///< (out, r)
  T* de = nullptr;  ///< (r): AdaLoRA's E
  T* dx = nullptr;  ///< (n, in)
  std::ptrdiff_t lddx = 0;
};

/// The number of T that low_rank_backward needs as scratch: bounded in n.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t low_rank_backward_scratch(std::ptrdiff_t n, std::ptrdiff_t in, std::ptrdiff_t out,
                                                                 std::ptrdiff_t r) {
  const std::ptrdiff_t rows = std::min(n, detail::backward_rows);
  return 2 * r * out + 3 * r * rows + panel_scratch<T>(rows, std::max(in, out));
}

/// Adds the gradients of y = scale * ((x A^T) * e) B^T:
///   dB += scale * g^T (u * e),  dA += (scale * (g B) * e)^T x,  dx += (scale * (g B) * e) A,  de += scale * sum of (g B) * u
/// with u = x A^T. x (n, in), g (n, out), A (r, in) and B (out, r) contiguous, e (r) or null for ones; u (n, r)
/// contiguous, as the forward had it before scale and e, or null: then it is computed anew where it is needed.
/// scratch: low_rank_backward_scratch<T>(n, in, out, r) T.
template <class T>
void low_rank_backward(std::ptrdiff_t n, std::ptrdiff_t in, std::ptrdiff_t out, std::ptrdiff_t r, const T* x,
                       std::ptrdiff_t ldx, const T* A, const T* B, const T* e, T scale, const T* g, std::ptrdiff_t ldg,
                       const T* u, const LowRankGradients<T>& to, T* scratch) {
  if (n <= 0 || r <= 0) return;
  const T* const none = nullptr;
  const std::ptrdiff_t most = std::min(n, detail::backward_rows);
  T* const turned_b = scratch;               // B^T (r, out)
  T* const turned_db = turned_b + r * out;   // dB^T (r, out)
  T* const down = turned_db + r * out;       // g B, then the gradient of u (rows, r)
  T* const own_u = down + r * most;          // (rows, r)
  T* const turned = own_u + r * most;        // of either, (r, rows)
  T* const panels = turned + r * most;
  const bool needs_down = to.dA || to.dx || to.de;
  if (needs_down) transpose(out, r, B, r, turned_b, out);
  for (std::ptrdiff_t i = 0; i < n; i += most) {
    const std::ptrdiff_t rows = std::min(n - i, most);
    const T *x_here = x + i * ldx, *g_here = g + i * ldg, *u_here = u ? u + i * r : own_u;
    if (!u && (to.dB || to.de)) product_nt(rows, r, in, x_here, ldx, A, in, none, own_u, r, false);
    if (needs_down) product_nt(rows, r, out, g_here, ldg, turned_b, out, none, down, r, false);
    if (to.de)
      for (std::ptrdiff_t k = 0; k < rows; ++k)
        for (std::ptrdiff_t j = 0; j < r; ++j) to.de[j] += scale * down[k * r + j] * u_here[k * r + j];
    if (to.dB) {
      transpose(rows, r, u_here, r, turned, rows);
      for (std::ptrdiff_t j = 0; j < r; ++j) {
        const T factor = e ? scale * e[j] : scale;
        for (std::ptrdiff_t k = 0; k < rows; ++k) turned[j * rows + k] *= factor;
      }
      detail::product_nn_either(r, out, rows, turned, rows, g_here, ldg, turned_db, out, i > 0, panels);
    }
    if (!to.dA && !to.dx) continue;
    detail::scale_low_rank(rows, r, e, scale, down);
    if (to.dA) {
      transpose(rows, r, down, r, turned, rows);
      detail::product_nn_either(r, in, rows, turned, rows, x_here, ldx, to.dA, in, true, panels);
    }
    if (to.dx) product_nn(rows, in, r, down, r, A, in, none, to.dx + i * to.lddx, to.lddx, true);
  }
  if (!to.dB) return;
  transpose(r, out, turned_db, out, turned_b, r);
  add(1, out * r, to.dB, 0, turned_b, 0, to.dB, 0);
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
