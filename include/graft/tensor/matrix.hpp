#pragma once

#include <cstddef>
#include <cstring>
#include <type_traits>

#include <Eigen/Core>

#include "shape.hpp"

namespace graft {

static_assert(std::is_same_v<Index, Eigen::Index>,
              "graft: Eigen's index type is not std::ptrdiff_t: build without EIGEN_DEFAULT_DENSE_INDEX_TYPE");

/// Row-major, as torch and the files are: rows are samples or tokens, columns are features.
template <class T = float>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// What ops and kernels read: (rows, cols) of somebody's memory, rows `outerStride()` apart.
template <class T>
using In = Eigen::Map<const Matrix<T>, Eigen::Unaligned, Eigen::OuterStride<>>;
/// What ops and kernels write.
template <class T>
using Out = Eigen::Map<Matrix<T>, Eigen::Unaligned, Eigen::OuterStride<>>;

/// Binds matrices, maps and blocks of whole rows without a copy; anything else is evaluated into one.
template <class T>
using MatrixRef = Eigen::Ref<const Matrix<T>, 0, Eigen::OuterStride<>>;

template <class T>
[[nodiscard]] inline In<T> in(const T* data, Index rows, Index cols, Index stride) {
  return {data, rows, cols, Eigen::OuterStride<>(stride)};
}
template <class T>
[[nodiscard]] inline In<T> in(const T* data, Index rows, Index cols) {
  return in(data, rows, cols, cols);
}
template <class T>
[[nodiscard]] inline In<T> in(const MatrixRef<T>& x) {
  return in(x.data(), x.rows(), x.cols(), x.outerStride());
}
template <class T>
[[nodiscard]] inline In<T> in(const Out<T>& x) {
  return in(static_cast<const T*>(x.data()), x.rows(), x.cols(), x.outerStride());
}
template <class T>
[[nodiscard]] inline In<T> in(const Matrix<T>& x) {
  return in(x.data(), x.rows(), x.cols());
}
template <class T>
[[nodiscard]] inline Out<T> out(T* data, Index rows, Index cols, Index stride) {
  return {data, rows, cols, Eigen::OuterStride<>(stride)};
}
template <class T>
[[nodiscard]] inline Out<T> out(T* data, Index rows, Index cols) {
  return out(data, rows, cols, cols);
}
template <class T>
[[nodiscard]] inline Out<T> out(Matrix<T>& y) {
  return out(y.data(), y.rows(), y.cols());
}

/// Rows [begin, begin + count) of a view.
template <class T>
[[nodiscard]] inline In<T> rows_of(const In<T>& x, Index begin, Index count) {
  return in(x.data() + begin * x.outerStride(), count, x.cols(), x.outerStride());
}
template <class T>
[[nodiscard]] inline Out<T> rows_of(const Out<T>& y, Index begin, Index count) {
  return out(const_cast<T*>(y.data()) + begin * y.outerStride(), count, y.cols(), y.outerStride());
}

/// y = x; the same sizes, and neither lies in the other.
template <class T>
inline void copy_rows(const In<T>& x, const Out<T>& y) {
  if (x.cols() == 0) return;
  for (Index i = 0; i < x.rows(); ++i)
    std::memcpy(const_cast<T*>(y.data()) + i * y.outerStride(), x.data() + i * x.outerStride(), std::size_t(x.cols()) * sizeof(T));
}

/// Any Eigen matrix, map, block or expression of one.
template <class X>
concept MatrixLike = std::is_base_of_v<Eigen::EigenBase<std::remove_cvref_t<X>>, std::remove_cvref_t<X>>;

/// Evaluates what may be a view or an expression: for loop-carried activations in generic code.
template <MatrixLike X>
[[nodiscard]] inline Matrix<typename X::Scalar> eval(const X& x) {
  return x;
}

}  // namespace graft
