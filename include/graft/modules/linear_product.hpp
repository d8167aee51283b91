#pragma once

#include <concepts>

#include "parallel_product.hpp"

namespace graft {

// The product of a linear layer is its `Product`: what is called as product(x, weight, y), on a const object, and writes
// y (n, out) = x (n, in) · weightᵀ, weight (out, in). n, in and out are at least 1; y overlaps neither. The layer adds its
// bias. Everything is a view (In, Out): data(), rows(), cols(), outerStride(). With a narrow weight the view is In<bf16> or
// In<f16>. A site makes one call for all rows of a batch.

/// What can be the product of a linear layer with a weight of W under activations of T.
template <class Product, class T, class W = T>
concept LinearProduct = requires(const Product& product, const In<T>& x, const In<W>& weight, Out<T> y) { product(x, weight, y); };

/// graft's kernels: every kind of weight, nothing allocated, and a row has the same bits whatever other rows are in the call
/// and on however many threads it runs.
struct KernelProduct {
  /// What a layer does by itself: for callables that choose between products at run time.
  template <class T, class W>
  void operator()(const In<T>& x, const In<W>& weight, Out<T> y) const {
    detail::parallel_product<T>(weight.data(), weight.outerStride(), x, nullptr, y, nullptr);
  }
};

/// Eigen's product, as the program is compiled: its instruction set and its threads. It allocates, and the bits of a row
/// depend on the number of rows.
struct EigenProduct {
  template <std::floating_point T>
  void operator()(const In<T>& x, const In<T>& weight, Out<T> y) const {
    if (x.rows() > 1) {
      y.noalias() = x * weight.transpose();
    } else {  // a vector by its type: Eigen then reads the weight as it lies
      using Vector = Eigen::Matrix<T, Eigen::Dynamic, 1>;
      Eigen::Map<Vector>(y.data(), y.cols()).noalias() = weight * Eigen::Map<const Vector>(x.data(), x.cols());
    }
  }
};

}  // namespace graft
