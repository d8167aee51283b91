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

/// The two halves of low_rank_backward, for callers who cut them into pieces: rows, which give dx and the factors that the
/// gradients of A and B are made of; then, of all rows, columns of A and of B turned around. Every element has the bits
/// that it has in one piece. The sizes are those of low_rank_backward.
template <class T>
struct LowRankBackward {
  std::ptrdiff_t n, in, out, r;
  const T* x;
  std::ptrdiff_t ldx;
  const T *A, *B, *e;
  T scale;
  const T* g;
  std::ptrdiff_t ldg;
  const T* u;
  LowRankGradients<T> to;
  T* memory;  ///< memory_size(): what the halves hand over

  [[nodiscard]] static constexpr std::ptrdiff_t memory_size(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t r) {
    return r * out + 3 * r * n;
  }
  /// Of a piece.
  [[nodiscard]] static constexpr std::ptrdiff_t rows_scratch(std::ptrdiff_t rows, std::ptrdiff_t r) {
    return 2 * r * std::min(rows, detail::backward_rows);
  }
  [[nodiscard]] static constexpr std::ptrdiff_t columns_scratch(std::ptrdiff_t n, std::ptrdiff_t columns, std::ptrdiff_t r) {
    return 2 * r * columns + panel_scratch<T>(std::min(n, detail::backward_rows), columns);
  }

  /// Before all rows.
  void turn() const {
    if (needs_down()) transpose(out, r, B, r, turned_b(), out);
  }
  void rows(std::ptrdiff_t begin, std::ptrdiff_t count, T* scratch) const {
    for (std::ptrdiff_t i = begin; i < begin + count; i += detail::backward_rows)
      some_rows(i, std::min(begin + count - i, detail::backward_rows), scratch);
  }
  /// After all rows.
  void add_de() const {
    for (std::ptrdiff_t j = 0; to.de && j < r; ++j) {
      double sum = 0;
      for (std::ptrdiff_t i = 0; i < n; ++i) sum += double(turned_products()[j * n + i]);
      to.de[j] += T(sum);
    }
  }
  void columns_of_a(std::ptrdiff_t begin, std::ptrdiff_t count, T* scratch) const {
    for_each_block([&](std::ptrdiff_t i, std::ptrdiff_t rows) {
      detail::product_nn_either(r, count, rows, turned_down() + i, n, x + i * ldx + begin, ldx, to.dA + begin, in, true, scratch);
    });
  }
  void columns_of_b(std::ptrdiff_t begin, std::ptrdiff_t count, T* scratch) const {
    T *const turned = scratch, *const sums = turned + r * count, *const panels = sums + r * count;
    for_each_block([&](std::ptrdiff_t i, std::ptrdiff_t rows) {
      detail::product_nn_either(r, count, rows, turned_u() + i, n, g + i * ldg + begin, ldg, turned, count, i > 0, panels);
    });
    transpose(r, count, turned, count, sums, r);
    T* const dB = to.dB + begin * r;
    add(1, count * r, dB, 0, sums, 0, dB, 0);
  }

 private:
  [[nodiscard]] bool needs_down() const { return to.dA || to.dx || to.de; }
  [[nodiscard]] T* turned_b() const { return memory; }                     // (r, out)
  [[nodiscard]] T* turned_u() const { return memory + r * out; }           // times scale and e, (r, n)
  [[nodiscard]] T* turned_down() const { return turned_u() + r * n; }      // g B, times scale and e
  [[nodiscard]] T* turned_products() const { return turned_down() + r * n; }  // scale * (g B) * u
  void for_each_block(const auto& f) const {
    for (std::ptrdiff_t i = 0; i < n; i += detail::backward_rows) f(i, std::min(n - i, detail::backward_rows));
  }
  void some_rows(std::ptrdiff_t i, std::ptrdiff_t rows, T* scratch) const {
    const T* const none = nullptr;
    T *const down = scratch, *const own_u = down + r * rows;
    const T *const x_here = x + i * ldx, *const u_here = u ? u + i * r : own_u;
    if (!u && (to.dB || to.de)) product_nt(rows, r, in, x_here, ldx, A, in, none, own_u, r, false);
    if (needs_down()) product_nt(rows, r, out, g + i * ldg, ldg, turned_b(), out, none, down, r, false);
    if (to.de)
      for (std::ptrdiff_t j = 0; j < r; ++j)
        for (std::ptrdiff_t k = 0; k < rows; ++k) turned_products()[j * n + i + k] = scale * down[k * r + j] * u_here[k * r + j];
    if (to.dB) {
      transpose(rows, r, u_here, r, turned_u() + i, n);
      for (std::ptrdiff_t j = 0; j < r; ++j) {
        const T factor = e ? scale * e[j] : scale;
        for (std::ptrdiff_t k = 0; k < rows; ++k) turned_u()[j * n + i + k] *= factor;
      }
    }
    if (!to.dA && !to.dx) return;
    detail::scale_low_rank(rows, r, e, scale, down);
    if (to.dA) transpose(rows, r, down, r, turned_down() + i, n);
    if (to.dx) product_nn(rows, in, r, down, r, A, in, none, to.dx + i * to.lddx, to.lddx, true);
  }
};

/// The number of T that low_rank_backward needs as scratch.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t low_rank_backward_scratch(std::ptrdiff_t n, std::ptrdiff_t in, std::ptrdiff_t out,
                                                                 std::ptrdiff_t r) {
  using Halves = LowRankBackward<T>;
  return Halves::memory_size(n, out, r) + std::max(Halves::rows_scratch(n, r), Halves::columns_scratch(n, std::max(in, out), r));
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
  const LowRankBackward<T> halves{n, in, out, r, x, ldx, A, B, e, scale, g, ldg, u, to, scratch};
  T* const own = scratch + halves.memory_size(n, out, r);
  halves.turn();
  halves.rows(0, n, own);
  halves.add_de();
  if (to.dA) halves.columns_of_a(0, in, own);
  if (to.dB) halves.columns_of_b(0, out, own);
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
