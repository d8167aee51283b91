#pragma once

#include <concepts>
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
template <class X>
struct tensor_traits {
  static constexpr bool is_tensor = false;
};

/// Eigen tensors, xtensor containers (graft/xtensor.hpp) and classes with a `tensor_traits` of their own.
template <class X>
concept TensorLike = requires { typename tensor_traits<std::remove_cvref_t<X>>::scalar; };

namespace detail {
template <class X, class T, int N, int Options, class I>
struct EigenTensorTraits {
  static_assert(Options & Eigen::RowMajor,
                "graft: a column-major Eigen::Tensor cannot be read in place: declare it Eigen::Tensor<T, N, Eigen::RowMajor>");
  using scalar = std::remove_const_t<T>;
  template <int M>
  using of_rank = Eigen::Tensor<scalar, M, Eigen::RowMajor>;
  using result = of_rank<N>;

  static Shape shape(const X& x) {
    Shape dimensions;
    for (int axis = 0; axis < N; ++axis) dimensions.push_back(Index(x.dimension(axis)));
    return dimensions;
  }
  static const scalar* data(const X& x) { return x.data(); }
  static auto data(X& x) { return x.data(); }
  template <int M = N>
  static of_rank<M> make(const Shape& shape) {
    Eigen::array<Index, std::size_t(M)> dimensions{};
    for (int axis = 0; axis < M; ++axis) dimensions[std::size_t(axis)] = shape[std::size_t(axis)];
    return of_rank<M>(dimensions);
  }
};
}  // namespace detail

template <class T, int N, int Options, class I>
struct tensor_traits<Eigen::Tensor<T, N, Options, I>>
    : detail::EigenTensorTraits<Eigen::Tensor<T, N, Options, I>, T, N, Options, I> {};
template <class T, int N, int Options, class I, int MapOptions, template <class> class Pointer>
struct tensor_traits<Eigen::TensorMap<Eigen::Tensor<T, N, Options, I>, MapOptions, Pointer>>
    : detail::EigenTensorTraits<Eigen::TensorMap<Eigen::Tensor<T, N, Options, I>, MapOptions, Pointer>, T, N, Options, I> {};
template <class T, int N, int Options, class I, int MapOptions, template <class> class Pointer>
struct tensor_traits<Eigen::TensorMap<const Eigen::Tensor<T, N, Options, I>, MapOptions, Pointer>>
    : detail::EigenTensorTraits<Eigen::TensorMap<const Eigen::Tensor<T, N, Options, I>, MapOptions, Pointer>, T, N, Options, I> {};

}  // namespace graft
