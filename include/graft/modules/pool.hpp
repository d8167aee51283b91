#pragma once

#include <span>
#include <string>

#include "../kernels/pool.hpp"
#include "conv.hpp"

namespace graft {

/// torch's options of max_pool2d and avg_pool2d (ceil_mode false, padding counted).
struct PoolOptions {
  Axes<2> kernel{};
  Axes<2> stride = 0;  ///< 0: the kernel's
  Axes<2> padding = 0;
};

namespace ops {
template <bool Max>
struct Pool2d {
  PoolOptions options;

  [[nodiscard]] kernels::PoolGeometry geometry(const Shape& row) const {
    if (row.rank() != 3)
      fail<ShapeError>("a 2-d pooling got rows of " + to_string(row), "its rows are (channels, height, width)",
                       "pass an (n, channels, height, width) tensor");
    kernels::PoolGeometry pool;
    pool.channels = row[0];
    pool.height = row[1];
    pool.width = row[2];
    pool.kernel_height = options.kernel[0];
    pool.kernel_width = options.kernel[1];
    pool.stride_height = options.stride[0] ? options.stride[0] : options.kernel[0];
    pool.stride_width = options.stride[1] ? options.stride[1] : options.kernel[1];
    pool.padding_height = options.padding[0];
    pool.padding_width = options.padding[1];
    pool.check();
    return pool;
  }
  [[nodiscard]] Shape shape(std::span<const Shape> x) const {
    const kernels::PoolGeometry pool = geometry(x[0]);
    return {pool.channels, pool.output_height(), pool.output_width()};
  }
  template <class T>
  void run(const In<T>& x, const Shape& row, Out<T> y, Workspace* = nullptr) const {
    const kernels::PoolGeometry pool = geometry(row);
    for (Index i = 0; i < x.rows(); ++i) {
      const T* from = x.data() + i * x.outerStride();
      T* to = y.data() + i * y.outerStride();
      if constexpr (Max) kernels::max_pool2d<T>(pool, from, to);
      else kernels::avg_pool2d<T>(pool, from, to);
    }
  }
  /// `row`: the shape of a row of x. dx is added to, null data: nobody wants it.
  template <class T>
  void vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& x, const Shape& row, Out<T> dx) const;
};
}  // namespace ops

namespace detail {
template <class Op, class X>
auto pool(const Op& op, const X& x) {
  const auto result = [&](const Shape& row) { return op.shape(std::span(&row, 1)); };
  if constexpr (Recorded<X>) {
    return record_shaped(op, x);
  } else if constexpr (RowsLike<X>) {
    Rows<typename X::scalar> y(x.batch(), x.rows(), result(x.row_shape()));
    op.template run<typename X::scalar>(x.value(), x.row_shape(), y.value());
    return y;
  } else {
    static_assert(TensorLike<X> && !MatrixLike<X>,
                  "graft: pooling takes an Eigen::Tensor<T, 4, Eigen::RowMajor> of (n, channels, height, width) or graft::Rows");
    using traits = tensor_traits<X>;
    using T = typename traits::scalar;
    const Shape shape = traits::shape(x), row = result(shape.tail());
    auto y = traits::make(Shape{shape[0], row[0], row[1], row[2]});
    op.template run<T>(graft::in<T>(traits::data(x), shape[0], shape.tail().size()), shape.tail(),
                       graft::out<T>(tensor_traits<decltype(y)>::data(y), shape[0], row.size()));
    return y;
  }
}
}  // namespace detail

/// The largest value of every window: (n, channels, height, width) → (n, channels, height', width').
auto max_pool2d(const auto& x, PoolOptions options) { return detail::pool(ops::Pool2d<true>{options}, x); }
/// The mean of every window; padding counts as zeros.
auto avg_pool2d(const auto& x, PoolOptions options) { return detail::pool(ops::Pool2d<false>{options}, x); }

}  // namespace graft
