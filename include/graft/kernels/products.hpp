#pragma once

#include <algorithm>
#include <type_traits>

#include "reduce.hpp"

/// Dense products over plain memory. `n` rows of activations, `in` features in, `out` features out; every
/// matrix is row-major with a leading dimension (elements from one row to the next). T is float or double; a
/// weight W is T, or with T = float also bf16 or f16, widened in registers. Results depend on the row, the
/// weight and the instruction set alone: a row has the same bits whatever other rows are in the call.
namespace graft::kernels {
inline namespace GRAFT_ISA {

namespace detail {
// Contractions are summed block by block: a block of x and of w then stays in the first-level cache. The
// borders must not depend on n, nor may they move when zeros follow (attention over a longer cache).
template <class T>
inline constexpr std::ptrdiff_t dot_block = 3072 / sizeof(T);
inline constexpr std::ptrdiff_t broadcast_block = 512;
inline constexpr std::ptrdiff_t rows_per_tile = GRAFT_VECTOR_BYTES == 64 ? 6 : 3;

// One register of k: the operand with fewer rows stays in registers, the other passes through one.
template <int M, int N, class V, class A, class B>
GRAFT_INLINE void dot_step(V (&sums)[M][N], A&& x, B&& w) {
  if constexpr (M < N) {
    V a[M];
    GRAFT_UNROLL for (int m = 0; m < M; ++m) a[m] = x(m);
    GRAFT_UNROLL for (int j = 0; j < N; ++j) {
      const V b = in_register(w(j));
      GRAFT_UNROLL for (int m = 0; m < M; ++m) sums[m][j] = multiply_add(a[m], b, sums[m][j]);
    }
  } else {
    V b[N];
    GRAFT_UNROLL for (int j = 0; j < N; ++j) b[j] = w(j);
    GRAFT_UNROLL for (int m = 0; m < M; ++m) {
      const V a = in_register(x(m));
      GRAFT_UNROLL for (int j = 0; j < N; ++j) sums[m][j] = multiply_add(a, b[j], sums[m][j]);
    }
  }
}

template <int N, class T>
GRAFT_INLINE void finish_row(std::ptrdiff_t cols, const T* dots, const T* bias, T* y, bool accumulate) {
  const auto finish = [&](std::ptrdiff_t count) {
    if (bias && accumulate)
      for (std::ptrdiff_t j = 0; j < count; ++j) y[j] += dots[j] + bias[j];
    else if (bias)
      for (std::ptrdiff_t j = 0; j < count; ++j) y[j] = dots[j] + bias[j];
    else if (accumulate)
      for (std::ptrdiff_t j = 0; j < count; ++j) y[j] += dots[j];
    else
      for (std::ptrdiff_t j = 0; j < count; ++j) y[j] = dots[j];
  };
  if (cols == N)
    finish(N);
  else
    finish(cols);
}

// rows x cols dots of length k, rows <= M, cols <= N. Both operands are contiguous along k, so nothing is
// packed. Rows and columns that do not exist repeat the last one and are not stored.
template <int M, int N, class T, class W>
[[gnu::noinline]] void dot_tile(std::ptrdiff_t rows, std::ptrdiff_t cols, std::ptrdiff_t k, const T* x,
                                std::ptrdiff_t ldx, const W* w, std::ptrdiff_t ldw, const T* bias, T* y,
                                std::ptrdiff_t ldy, bool accumulate) {
  const T* xs[M];
  const W* ws[N];
  GRAFT_UNROLL for (int m = 0; m < M; ++m) xs[m] = x + std::min<std::ptrdiff_t>(m, rows - 1) * ldx;
  GRAFT_UNROLL for (int j = 0; j < N; ++j) ws[j] = w + std::min<std::ptrdiff_t>(j, cols - 1) * ldw;
  Vector<T> sums[M][N]{};
  std::ptrdiff_t i = 0;
  for (; i + lanes<T> <= k; i += lanes<T>)
    dot_step<M, N>(
        sums, [&](int m) { return load(xs[m] + i); }, [&](int j) { return load(ws[j] + i); });
  if (i < k)
    dot_step<M, N>(
        sums, [&](int m) { return load(xs[m] + i, k - i); }, [&](int j) { return load(ws[j] + i, k - i); });
  T dots[M][N];
  GRAFT_UNROLL for (int m = 0; m < M; ++m) GRAFT_UNROLL for (int j = 0; j < N; j += 4)
      sums_of_4(sums[m][j], sums[m][j + 1], sums[m][j + 2], sums[m][j + 3], dots[m] + j);
  for (std::ptrdiff_t m = 0; m < rows; ++m) finish_row<N>(cols, dots[m], bias, y + m * ldy, accumulate);
}

template <class T, class W>
void dot_tiles(std::ptrdiff_t n, std::ptrdiff_t cols, std::ptrdiff_t k, const T* x, std::ptrdiff_t ldx,
               const W* w, std::ptrdiff_t ldw, const T* bias, T* y, std::ptrdiff_t ldy, bool accumulate) {
  for (std::ptrdiff_t i = 0; i < n;) {
    const std::ptrdiff_t rows = std::min(n - i, rows_per_tile);
    const std::ptrdiff_t step = rows == 1 ? 8 : 4;
    for (std::ptrdiff_t o = 0; o < cols; o += step) {
      const std::ptrdiff_t here = std::min(cols - o, step);
      const auto tile = [&]<int M, int N>() {
        dot_tile<M, N>(rows, here, k, x + i * ldx, ldx, w + o * ldw, ldw, bias ? bias + o : nullptr,
                       y + i * ldy + o, ldy, accumulate);
      };
      if (rows == 1)
        tile.template operator()<1, 8>();
      else if (rows == 2)
        tile.template operator()<2, 4>();
      else if constexpr (rows_per_tile == 3)
        tile.template operator()<3, 4>();
      else if (rows <= 4)
        tile.template operator()<4, 4>();
      else
        tile.template operator()<6, 4>();
    }
    i += rows;
  }
}

// rows x cols sums over k of x[i,k] w[k,o], rows <= M, cols <= N registers; k in order, one chain per
// element.
template <int M, int N, class T, class W>
[[gnu::noinline]] void broadcast_tile(std::ptrdiff_t rows, std::ptrdiff_t cols, std::ptrdiff_t k, const T* x,
                                      std::ptrdiff_t ldx, const W* w, std::ptrdiff_t ldw, const T* bias, T* y,
                                      std::ptrdiff_t ldy, bool accumulate, T scale) {
  const T* xs[M];
  GRAFT_UNROLL for (int m = 0; m < M; ++m) xs[m] = x + std::min<std::ptrdiff_t>(m, rows - 1) * ldx;
  Vector<T> sums[M][N]{};
  if (cols == N * lanes<T>) {
    for (std::ptrdiff_t i = 0; i < k; ++i, w += ldw) {
      Vector<T> b[N];
      GRAFT_UNROLL for (int j = 0; j < N; ++j) b[j] = load(w + j * lanes<T>);
      GRAFT_UNROLL for (int m = 0; m < M; ++m) {
        const Vector<T> a = broadcast(xs[m][i]);
        GRAFT_UNROLL for (int j = 0; j < N; ++j) sums[m][j] = multiply_add(a, b[j], sums[m][j]);
      }
    }
  } else {
    for (std::ptrdiff_t i = 0; i < k; ++i, w += ldw) {
      Vector<T> b[N];
      GRAFT_UNROLL for (int j = 0; j < N; ++j) {
        const std::ptrdiff_t left = cols - j * lanes<T>;
        b[j] = left >= lanes<T> ? load(w + j * lanes<T>)
               : left > 0       ? load(w + j * lanes<T>, left)
                                : Vector<T>{};
      }
      GRAFT_UNROLL for (int m = 0; m < M; ++m) {
        const Vector<T> a = broadcast(xs[m][i]);
        GRAFT_UNROLL for (int j = 0; j < N; ++j) sums[m][j] = multiply_add(a, b[j], sums[m][j]);
      }
    }
  }
  const Vector<T> factor = broadcast(scale);
  GRAFT_UNROLL for (int m = 0; m < M; ++m) if (m < rows) {
    GRAFT_UNROLL for (int j = 0; j < N; ++j) {
      const std::ptrdiff_t left = std::min(cols - j * lanes<T>, lanes<T>);
      if (left > 0) {
        T* p = y + m * ldy + j * lanes<T>;
        Vector<T> start{};
        if (accumulate) start = load_some(p, left);
        if (bias) start += load_some(bias + j * lanes<T>, left);
        store_some(p, multiply_add(factor, sums[m][j], start), left);
      }
    }
  }
}

inline constexpr std::ptrdiff_t streamed_rows = 8, streamed_cols = 256, streamed_steps = 8;

// The same sums for few rows: w is read in long runs, the sums wait on the stack. Without it, a tile walks
// down w in narrow strips, from page to page. rows <= streamed_rows, cols <= streamed_cols.
template <class T, class W>
void broadcast_stream(std::ptrdiff_t rows, std::ptrdiff_t cols, std::ptrdiff_t k, const T* x,
                      std::ptrdiff_t ldx, const W* w, std::ptrdiff_t ldw, const T* bias, T* y,
                      std::ptrdiff_t ldy, bool accumulate, T scale) {
  T sums[streamed_rows][streamed_cols];
  std::ptrdiff_t i = 0;
  const auto step = [&]<int Steps>() {
    for (std::ptrdiff_t m = 0; m < rows; ++m) {
      Vector<T> a[Steps];
      GRAFT_UNROLL for (int s = 0; s < Steps; ++s) a[s] = broadcast(x[m * ldx + i + s]);
      for_each_register<T>(cols, [&](std::ptrdiff_t o, std::ptrdiff_t count) {
        Vector<T> sum = i == 0 ? Vector<T>{} : load_some(sums[m] + o, count);
        GRAFT_UNROLL for (int s = 0; s < Steps; ++s) sum =
            multiply_add(a[s], load_some(w + (i + s) * ldw + o, count), sum);
        store_some(sums[m] + o, sum, count);
      });
    }
    i += Steps;
  };
  while (i + streamed_steps <= k) step.template operator()<streamed_steps>();
  while (i < k) step.template operator()<1>();
  const Vector<T> factor = broadcast(scale);
  for (std::ptrdiff_t m = 0; m < rows; ++m)
    for_each_register<T>(cols, [&](std::ptrdiff_t o, std::ptrdiff_t count) {
      Vector<T> start{};
      if (accumulate) start = load_some(y + m * ldy + o, count);
      if (bias) start += load_some(bias + o, count);
      store_some(y + m * ldy + o, multiply_add(factor, load_some(sums[m] + o, count), start), count);
    });
}

template <class T, class W>
void broadcast_tiles(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t k, const T* x, std::ptrdiff_t ldx,
                     const W* w, std::ptrdiff_t ldw, const T* bias, T* y, std::ptrdiff_t ldy, bool accumulate,
                     T scale) {
  constexpr bool many_registers = GRAFT_VECTOR_BYTES == 64;
  const bool long_rows = ldw * std::ptrdiff_t(sizeof(W)) > 4096;
  const bool streamed = n <= (long_rows ? streamed_rows : 3);
  // All rows of one strip of columns before the next strip: the strip of w stays in cache.
  const std::ptrdiff_t strip = streamed ? streamed_cols : 12 * lanes<T>;
  for (std::ptrdiff_t o0 = 0; o0 < out; o0 += strip) {
    const std::ptrdiff_t cols = std::min(out - o0, strip);
    const T* start = bias ? bias + o0 : nullptr;
    if (streamed) {
      broadcast_stream(n, cols, k, x, ldx, w + o0, ldw, start, y + o0, ldy, accumulate, scale);
      continue;
    }
    for (std::ptrdiff_t i = 0, rows; i < n; i += rows) {
      rows = std::min<std::ptrdiff_t>(n - i, many_registers ? 8 : 4);
      const auto tiles = [&]<int M, int N>() {
        for (std::ptrdiff_t o = 0; o < cols; o += N * lanes<T>)
          broadcast_tile<M, N>(rows, std::min(cols - o, N * lanes<T>), k, x + i * ldx, ldx, w + o0 + o, ldw,
                               start ? start + o : nullptr, y + i * ldy + o0 + o, ldy, accumulate, scale);
      };
      if constexpr (!many_registers)
        tiles.template operator()<4, 3>();
      else if (rows <= 4)
        tiles.template operator()<4, 4>();
      else
        tiles.template operator()<8, 3>();
    }
  }
}

template <class T>
void start_rows(std::ptrdiff_t n, std::ptrdiff_t out, const T* bias, T* y, std::ptrdiff_t ldy,
                bool accumulate) {
  for (std::ptrdiff_t i = 0; i < n; ++i)
    for (std::ptrdiff_t o = 0; o < out; ++o)
      y[i * ldy + o] = (accumulate ? y[i * ldy + o] : T(0)) + (bias ? bias[o] : T(0));
}
template <class T, class W>
inline constexpr bool fits = std::is_same_v<T, W> || (std::is_same_v<T, float> && sizeof(W) == 2);
}  // namespace detail

/// y[i,o] (+)= bias[o] + sum over k < in of x[i,k] * w[o,k]: the linear layer.
/// x (n, in), w (out, in), bias (out) or null, y (n, out). With `accumulate` y is added to, else written; y
/// must not overlap x or w.
template <class T, class W>
void product_nt(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const T* x, std::ptrdiff_t ldx,
                const W* w, std::ptrdiff_t ldw, const T* bias, T* y, std::ptrdiff_t ldy, bool accumulate) {
  static_assert(detail::fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  if (in <= 0) return detail::start_rows(n, out, bias, y, ldy, accumulate);
  // Few rows: w is read once, from front to back. Many rows: a block of w is used by all of them.
  const std::ptrdiff_t block = n <= detail::rows_per_tile ? (n == 1 ? 8 : 4) : 64;
  for (std::ptrdiff_t o = 0; o < out; o += block)
    for (std::ptrdiff_t k = 0; k < in; k += detail::dot_block<T>)
      detail::dot_tiles(n, std::min(out - o, block), std::min(in - k, detail::dot_block<T>), x + k, ldx,
                        w + o * ldw + k, ldw, bias && k == 0 ? bias + o : nullptr, y + o, ldy,
                        accumulate || k > 0);
}

/// y[i,o] (+)= bias[o] + scale * sum over k < in of x[i,k] * w[k,o]: the linear layer whose weight is stored
/// (in, out), as transformers' Conv1D does, and products with a matrix that has been transposed.
/// x (n, in), w (in, out), bias (out) or null, y (n, out). The sum takes k in order, in blocks from the
/// front, so zeros behind the end of a row of x change nothing. y must not overlap x or w.
template <class T, class W>
void product_nn(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const T* x, std::ptrdiff_t ldx,
                const W* w, std::ptrdiff_t ldw, const T* bias, T* y, std::ptrdiff_t ldy, bool accumulate,
                T scale = T(1)) {
  static_assert(detail::fits<T, W>, "graft: a weight has the activations' scalar, or is narrow under float");
  if (in <= 0) return detail::start_rows(n, out, bias, y, ldy, accumulate);
  for (std::ptrdiff_t k = 0; k < in; k += detail::broadcast_block)
    detail::broadcast_tiles(n, out, std::min(in - k, detail::broadcast_block), x + k, ldx, w + k * ldw, ldw,
                            k == 0 ? bias : nullptr, y, ldy, accumulate || k > 0, scale);
}

}  // namespace GRAFT_ISA
}  // namespace graft::kernels
