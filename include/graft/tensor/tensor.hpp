#pragma once

#include <concepts>
#include <string>
#include <type_traits>

#include <unsupported/Eigen/CXX11/Tensor>

#include "matrix.hpp"

namespace graft {

/// How graft sees an N-d activation that is not a matrix: specialise it for a tensor class of yours.
///
///   using scalar = …;
///   static Shape shape(const X&);              // outermost dimension first
///   static const scalar* data(const X&);       // contiguous, row-major
///   static result make(const Shape&);          // a new tensor of that shape; `result` is its type
///   static scalar* data(result&);
///   // optional, for flatten and for token ids: `rank` of X, and a tensor of another rank and scalar
///   static constexpr int rank;  template <int R, class U> static auto make_other(const Shape&);
template <class X>
struct tensor_traits {
  static constexpr bool is_tensor = false;
};

/// Eigen tensors, xtensor containers (graft/xtensor.hpp) and classes with a `tensor_traits` of their own.
template <class X>
concept TensorLike = requires { typename tensor_traits<std::remove_cvref_t<X>>::scalar; };

namespace detail {
inline void check_rank(const Shape& shape, int rank) {
  if (int(shape.rank()) != rank)
    fail<ShapeError>("a result of shape " + to_string(shape) + " as a tensor of " + std::to_string(rank) + " dimensions",
                     "a result is a tensor of its operand's kind, and the rank is part of that",
                     "flatten() first, or use a matrix or graft::Rows");
}

template <class X, class T, int N, int Options, class I>
struct EigenTensorTraits {
  static_assert(Options & Eigen::RowMajor,
                "graft: a column-major Eigen::Tensor cannot be read in place: declare it Eigen::Tensor<T, N, Eigen::RowMajor>");
  using scalar = std::remove_const_t<T>;
  using result = Eigen::Tensor<scalar, N, Eigen::RowMajor>;
  static constexpr int rank = N;

  static Shape shape(const X& x) {
    Shape dimensions;
    for (int axis = 0; axis < N; ++axis) dimensions.push_back(Index(x.dimensions()[std::size_t(axis)]));
    return dimensions;
  }
  static const scalar* data(const X& x) { return x.data(); }
  static auto data(X& x) { return x.data(); }
  template <int R, class U>
  static Eigen::Tensor<U, R, Eigen::RowMajor> make_other(const Shape& shape) {
    check_rank(shape, R);
    Eigen::array<Index, std::size_t(R)> dimensions{};
    for (int axis = 0; axis < R; ++axis) dimensions[std::size_t(axis)] = shape[std::size_t(axis)];
    return Eigen::Tensor<U, R, Eigen::RowMajor>(dimensions);
  }
  static result make(const Shape& shape) { return make_other<N, scalar>(shape); }
};
}  // namespace detail

template <class T, int N, int Options, class I>
struct tensor_traits<Eigen::Tensor<T, N, Options, I>>
    : detail::EigenTensorTraits<Eigen::Tensor<T, N, Options, I>, T, N, Options, I> {};
template <class T, class Sizes, int Options, class I>
struct tensor_traits<Eigen::TensorFixedSize<T, Sizes, Options, I>>
    : detail::EigenTensorTraits<Eigen::TensorFixedSize<T, Sizes, Options, I>, T, int(Sizes::count), Options, I> {};
template <class T, int N, int Options, class I, int MapOptions, template <class> class Pointer>
struct tensor_traits<Eigen::TensorMap<Eigen::Tensor<T, N, Options, I>, MapOptions, Pointer>>
    : detail::EigenTensorTraits<Eigen::TensorMap<Eigen::Tensor<T, N, Options, I>, MapOptions, Pointer>, T, N, Options, I> {};
template <class T, int N, int Options, class I, int MapOptions, template <class> class Pointer>
struct tensor_traits<Eigen::TensorMap<const Eigen::Tensor<T, N, Options, I>, MapOptions, Pointer>>
    : detail::EigenTensorTraits<Eigen::TensorMap<const Eigen::Tensor<T, N, Options, I>, MapOptions, Pointer>, T, N, Options, I> {};

namespace detail {
/// An N-d activation with features last, seen as rows of features.
template <TensorLike X>
[[nodiscard]] auto features_last(const X& x) {
  using traits = tensor_traits<X>;
  const Shape shape = traits::shape(x);
  if (shape.rank() == 0)
    fail<ShapeError>("a tensor without dimensions where features are due", "its last dimension is the features",
                     "pass (n, features), or (…, features)");
  const Index features = shape.back();
  return in<typename traits::scalar>(traits::data(x), features ? shape.size() / features : 0, features);
}
/// The shape of a result with that many features.
[[nodiscard]] inline Shape with_features(Shape shape, Index features) {
  shape[shape.rank() - 1] = features;
  return shape;
}
}  // namespace detail

}  // namespace graft
