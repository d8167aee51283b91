#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "products.hpp"

/// DoRA's norms of W + s * B A without the sum: for every row of W at once, or every column, and for every s.
/// Gram form: |W + s D|^2 is a quadratic in s, of which three numbers per row are kept.
namespace graft::kernels {
inline namespace GRAFT_BUILD {

/// The squared norm of each row o as rest[o] + slope[o] * (s - nearest[o])^2: it is shortest at s = nearest[o], where
/// its square is rest[o]. Nothing cancels in it, so it is as accurate at any s as its three numbers are.
struct NormParts {
  double *rest, *slope, *nearest;
};

/// |W + s D|
[[nodiscard]] inline double norm_at(const NormParts& parts, std::ptrdiff_t o, double s) {
  const double distance = s - parts.nearest[o];
  return std::sqrt(parts.rest[o] + parts.slope[o] * distance * distance);
}

/// factors[o] = magnitude[o] / |W + s D|: exactly 1 where the magnitude is that norm, and 1 where the norm is 0.
template <class T>
void magnitude_factors(std::ptrdiff_t count, const NormParts& parts, double s, const T* magnitude, T* factors) {
  for (std::ptrdiff_t o = 0; o < count; ++o) {
    const T norm = T(norm_at(parts, o, s));
    factors[o] = norm == T(0) ? T(1) : magnitude[o] / norm;
  }
}

/// Rows of so many elements that are read at once: they stay in the second-level cache for the second reading.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t norm_rows(std::ptrdiff_t width) {
  return std::clamp<std::ptrdiff_t>(262144 / std::ptrdiff_t(sizeof(T)) / std::max<std::ptrdiff_t>(width, 1) / 6 * 6, 6, 96);
}

namespace detail {
// Where so little is left of a square, the Gram form has lost digits: the row is then summed again, in double.
inline constexpr double norm_cancellation = 1.0 / 4, update_cancellation = 1.0 / 16;
inline constexpr std::ptrdiff_t norm_columns = 256;

template <class T>
struct WideVector;
template <>
struct WideVector<float> {
  typedef float type __attribute__((vector_size(64)));
};
template <>
struct WideVector<double> {
  typedef double type __attribute__((vector_size(64)));
};

template <class T>
[[nodiscard]] double sum_of_squares(std::ptrdiff_t count, const T* x) {
  using Wide = typename WideVector<T>::type;
  constexpr std::ptrdiff_t size = 64 / sizeof(T), run = 64 * size;  // so long a sum keeps float's digits
  double sum = 0;
  std::ptrdiff_t i = 0;
  while (i + size <= count) {
    Wide squares{};
    for (const std::ptrdiff_t end = std::min(count, i + run); i + size <= end; i += size) {
      Wide v;
      std::memcpy(&v, x + i, sizeof v);
      squares += v * v;
    }
    for (std::ptrdiff_t lane = 0; lane < size; ++lane) sum += double(squares[lane]);
  }
  for (; i < count; ++i) sum += double(x[i]) * double(x[i]);
  return sum;
}

/// The quadratic w + 2 s g + s^2 d; `own` is d without what cancels in it. False where digits were lost.
inline bool settle(const NormParts& parts, std::ptrdiff_t o, double w, double g, double d, double own) {
  parts.rest[o] = w;
  parts.slope[o] = d;
  parts.nearest[o] = 0;
  if (own == 0) return true;
  if (d < update_cancellation * own) return false;
  parts.nearest[o] = -g / d;
  parts.rest[o] = w - g * g / d;
  return !(parts.rest[o] < norm_cancellation * w);
}

/// For each of `width` elements of row o of W and of D = B A, f(W, D) in double. b (r): the row of B; A (r, width).
template <class T, class F>
void for_each_formed(std::ptrdiff_t width, std::ptrdiff_t r, const T* w, std::ptrdiff_t step, const T* b, const T* A,
                     std::ptrdiff_t lda, F f) {
  double formed[norm_columns];
  for (std::ptrdiff_t i = 0; i < width; i += norm_columns) {
    const std::ptrdiff_t cols = std::min(width - i, norm_columns);
    std::fill(formed, formed + cols, 0.0);
    for (std::ptrdiff_t j = 0; j < r; ++j)
      for (std::ptrdiff_t c = 0; c < cols; ++c) formed[c] += double(b[j]) * double(A[j * lda + i + c]);
    for (std::ptrdiff_t c = 0; c < cols; ++c) f(double(w[(i + c) * step]), formed[c]);
  }
}

/// The three numbers of a row that was summed in double, element by element, in two readings.
struct FormedNorm {
  double product = 0, slope = 0, rest = 0;
  [[nodiscard]] double nearest() const { return slope > 0 ? -product / slope : 0; }
  void add_first(double w, double d) {
    product += w * d;
    slope += d * d;
  }
  void add_second(double w, double d, double at) { rest += (w + at * d) * (w + at * d); }
  void store(const NormParts& parts, std::ptrdiff_t o) const {
    parts.rest[o] = rest;
    parts.slope[o] = slope;
    parts.nearest[o] = nearest();
  }
};

/// Sums over r of B's row o with a row of a product and of the Gram matrix.
template <class T>
[[nodiscard]] bool settle_row(const NormParts& parts, std::ptrdiff_t o, std::ptrdiff_t r, double w, const T* b, double g,
                              const T* b_gram, const T* gram) {
  double d = 0, own = 0;
  for (std::ptrdiff_t j = 0; j < r; ++j) {
    d += double(b_gram[j]) * double(b[j]);
    own += double(b[j]) * double(b[j]) * double(gram[j * r + j]);
  }
  return settle(parts, o, w, g, d, own);
}
}  // namespace detail

/// The number of T that row_norms needs as scratch.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t row_norms_scratch(std::ptrdiff_t width, std::ptrdiff_t r) {
  return r * r + 2 * r * norm_rows<T>(width);
}

/// Parts of |W_o + s (B A)_o| for the rows of W (rows, width). A (r, width), B (rows, r). `read(begin, count)` answers
/// a pointer to rows [begin, begin + count) of W, contiguous, of which it is asked for norm_rows<T>(width) at most.
template <class T, class Read>
void row_norms(std::ptrdiff_t rows, std::ptrdiff_t width, std::ptrdiff_t r, Read read, const T* A, const T* B,
               const NormParts& parts, T* scratch) {
  const T* none = nullptr;
  const std::ptrdiff_t step = norm_rows<T>(width);
  T* gram = scratch;
  T* w_a = gram + r * r;
  T* b_gram = w_a + step * r;
  product_nt(r, r, width, A, width, A, width, none, gram, r, false);
  for (std::ptrdiff_t begin = 0; begin < rows; begin += step) {
    const std::ptrdiff_t count = std::min(rows - begin, step);
    const T* w = read(begin, count);
    product_nt(count, r, width, w, width, A, width, none, w_a, r, false);
    product_nt(count, r, r, B + begin * r, r, gram, r, none, b_gram, r, false);
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      const T* b = B + (begin + i) * r;
      double g = 0;
      for (std::ptrdiff_t j = 0; j < r; ++j) g += double(w_a[i * r + j]) * double(b[j]);
      const double squares = detail::sum_of_squares(width, w + i * width);
      if (detail::settle_row(parts, begin + i, r, squares, b, g, b_gram + i * r, gram)) continue;
      detail::FormedNorm formed;
      detail::for_each_formed(width, r, w + i * width, 1, b, A, width, [&](double v, double d) { formed.add_first(v, d); });
      const double at = formed.nearest();
      detail::for_each_formed(width, r, w + i * width, 1, b, A, width, [&](double v, double d) { formed.add_second(v, d, at); });
      formed.store(parts, begin + i);
    }
  }
}

/// The number of T that column_norms needs as scratch, and of double.
template <class T>
[[nodiscard]] constexpr std::ptrdiff_t column_norms_scratch(std::ptrdiff_t width, std::ptrdiff_t r) {
  return r * r + 2 * r * width;
}
[[nodiscard]] constexpr std::ptrdiff_t column_norms_sums(std::ptrdiff_t width, std::ptrdiff_t r) { return (r + 1) * width; }

/// The same for the columns of W (rows, width): of an embedding's weight, or of one that is stored transposed.
/// Column o of W goes with row o of B A: A (r, rows), B (width, r).
template <class T, class Read>
void column_norms(std::ptrdiff_t rows, std::ptrdiff_t width, std::ptrdiff_t r, Read read, const T* A, const T* B,
                  const NormParts& parts, T* scratch, double* sums) {
  const T* none = nullptr;
  const std::ptrdiff_t step = norm_rows<T>(width);
  T* gram = scratch;
  T* a_w = gram + r * r;
  T* b_gram = a_w + r * width;
  double* squares = sums;
  double* products = sums + width;
  std::fill(sums, sums + column_norms_sums(width, r), 0.0);
  product_nt(r, r, rows, A, rows, A, rows, none, gram, r, false);
  product_nt(width, r, r, B, r, gram, r, none, b_gram, r, false);
  const auto for_each_part = [&](auto f) {
    for (std::ptrdiff_t begin = 0; begin < rows; begin += step) {
      const std::ptrdiff_t count = std::min(rows - begin, step);
      f(begin, count, read(begin, count));
    }
  };
  for_each_part([&](std::ptrdiff_t begin, std::ptrdiff_t count, const T* w) {
    product_nn(r, width, count, A + begin, rows, w, width, none, a_w, width, false);
    for (std::ptrdiff_t i = 0; i < r * width; ++i) products[i] += double(a_w[i]);
    for (std::ptrdiff_t i = 0; i < count; ++i)
      for (std::ptrdiff_t o = 0; o < width; ++o) squares[o] += double(w[i * width + o]) * double(w[i * width + o]);
  });
  // one after the other, each with readings of its own: they are rare
  for (std::ptrdiff_t o = 0; o < width; ++o) {
    const T* b = B + o * r;
    double g = 0;
    for (std::ptrdiff_t j = 0; j < r; ++j) g += products[j * width + o] * double(b[j]);
    if (detail::settle_row(parts, o, r, squares[o], b, g, b_gram + o * r, gram)) continue;
    detail::FormedNorm formed;
    for_each_part([&](std::ptrdiff_t begin, std::ptrdiff_t count, const T* w) {
      detail::for_each_formed(count, r, w + o, width, b, A + begin, rows, [&](double v, double d) { formed.add_first(v, d); });
    });
    const double at = formed.nearest();
    for_each_part([&](std::ptrdiff_t begin, std::ptrdiff_t count, const T* w) {
      detail::for_each_formed(count, r, w + o, width, b, A + begin, rows,
                              [&](double v, double d) { formed.add_second(v, d, at); });
    });
    formed.store(parts, o);
  }
}

}  // namespace GRAFT_BUILD
}  // namespace graft::kernels
