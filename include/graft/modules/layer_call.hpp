#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "layer_argument.hpp"
#include "layer_traits.hpp"
#include "op.hpp"

namespace graft::detail {

/// `layer_traits<L>::forward(layer, x)` where it exists, else `layer(x)`.
template <class L, class X>
decltype(auto) call_layer(const L& layer, const X& x) {
  if constexpr (requires { traits_of<L>::forward(layer, x); }) return traits_of<L>::forward(layer, x);
  else return layer(x);
}
template <class L, class X>
concept CallableLayer = requires(const L& layer, const X& x) { traits_of<L>::forward(layer, x); } ||
                        requires(const L& layer, const X& x) { layer(x); };

/// A layer whose traits write the product into given memory: graft's own, which then allocate nothing.
template <class L, class Input, class T>
concept WritesInto = requires(const L& layer, const Input& x, Out<T> y, Workspace* workspace) {
  traits_of<L>::forward_into(layer, x, y, workspace);
};

template <class T>
void assign_rows(Out<T> y, const auto& result) {
  if constexpr (TensorLike<decltype(result)> && !MatrixLike<decltype(result)>) {
    using traits = tensor_traits<std::remove_cvref_t<decltype(result)>>;
    const Shape shape = traits::shape(result);
    if (shape[0] != y.rows() || shape.tail().size() != y.cols())
      fail<ShapeError>("a layer returned " + to_string(shape) + " where " + to_string(Shape{y.rows(), y.cols()}) + " was due",
                       "its layer_traits promise another size", "correct out_features or conv_shape");
    y = in<T>(traits::data(result), y.rows(), y.cols());
  } else {
    if (result.rows() != y.rows() || result.cols() != y.cols())
      fail<ShapeError>("a layer returned " + to_string(Shape{result.rows(), result.cols()}) + " where " +
                           to_string(Shape{y.rows(), y.cols()}) + " was due",
                       "its layer_traits promise another size", "correct in_features and out_features");
    y = result;
  }
}

/// A user's layer: rows without gaps between them, since its forward may read them through a pointer.
template <class L, class T>
void call_with_rows(const L& layer, const Eigen::Map<const Matrix<T>>& x, Out<T> y) {
  if constexpr (CallableLayer<L, Eigen::Map<const Matrix<T>>>) assign_rows<T>(y, call_layer(layer, x));
  else if constexpr (CallableLayer<L, Matrix<T>>) assign_rows<T>(y, call_layer(layer, Matrix<T>(x)));
  else if constexpr (CallableLayer<L, Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>>)
    assign_rows<T>(y, call_layer(layer, Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>(x)));
  else
    static_assert(sizeof(L) == 0, "graft: this layer cannot be called with a row-major matrix: give its layer_traits a forward(layer, x)");
}

/// The base product of a linear layer: y (n, out) from x (n, in).
template <class L, class T>
void call_linear(const L& layer, const In<T>& x, Out<T> y, Workspace* workspace) {
  if constexpr (WritesInto<L, In<T>, T>) {
    traits_of<L>::forward_into(layer, x, y, workspace);
  } else if (x.outerStride() == x.cols() || x.rows() < 2) {
    call_with_rows<L, T>(layer, {x.data(), x.rows(), x.cols()}, y);
  } else {
    const Matrix<T> rows(x);
    call_with_rows<L, T>(layer, {rows.data(), rows.rows(), rows.cols()}, y);
  }
}

/// The lookup of an embedding layer: y (n, dim).
template <class L, class T>
void call_embedding(const L& layer, const Ids& ids, Out<T> y, Workspace* workspace) {
  if constexpr (WritesInto<L, Ids, T>) {
    traits_of<L>::forward_into(layer, ids, y, workspace);
  } else if constexpr (!has_plain_forward<L> && CallableLayer<L, BothIds>) {
    assign_rows<T>(y, call_layer(layer, BothIds(ids)));
  } else {
    const auto with = [&]<class I>(I) {
      std::vector<I> copy(std::size_t(ids.size()));
      for (Index i = 0; i < ids.size(); ++i) copy[std::size_t(i)] = I(ids[i]);
      if constexpr (CallableLayer<L, std::vector<I>>) assign_rows<T>(y, call_layer(layer, copy));
      else assign_rows<T>(y, call_layer(layer, std::span<const I>(copy)));
    };
    if constexpr (CallableLayer<L, std::vector<int>> || CallableLayer<L, std::span<const int>>) with(int{});
    else if constexpr (CallableLayer<L, std::vector<std::int64_t>> || CallableLayer<L, std::span<const std::int64_t>>)
      with(std::int64_t{});
    else if constexpr (CallableLayer<L, BothIds>) assign_rows<T>(y, call_layer(layer, BothIds(ids)));
    else
      static_assert(sizeof(L) == 0, "graft: this embedding cannot be called with token ids: give its layer_traits a forward(layer, ids)");
  }
}

/// The base product of a convolution of N spatial axes: rows are samples of `shape` (channels, spatial…).
template <int N, class L, class T>
void call_conv_of(const L& layer, const In<T>& x, const Shape& shape, Out<T> y) {
  using Plain = Eigen::Tensor<T, N + 2, Eigen::RowMajor>;
  Eigen::array<Index, std::size_t(N) + 2> dimensions{};
  dimensions[0] = x.rows();
  for (std::size_t axis = 0; axis < shape.rank(); ++axis) dimensions[axis + 1] = shape[axis];
  const Eigen::TensorMap<const Plain> view(x.data(), dimensions);
  if constexpr (CallableLayer<L, Plain>) assign_rows<T>(y, call_layer(layer, Plain(view)));
  else assign_rows<T>(y, call_layer(layer, view));
}

/// Spatial axes of a convolution's layers, 0 where its type does not say: `axes` of its traits, or the rank of a weight
/// that is a tensor.
template <class L>
inline constexpr int axes_of = [] {
  if constexpr (requires { traits_of<L>::axes; }) {
    return int(traits_of<L>::axes);
  } else if constexpr (has_weight<L>) {
    using W = std::remove_cvref_t<decltype(traits_of<L>::weight(std::declval<L&>()))>;
    if constexpr (TensorLike<W> && requires { tensor_traits<W>::rank; }) return std::max(tensor_traits<W>::rank - 2, 0);
    else return 0;
  } else {
    return 0;
  }
}();

/// `Axes` spatial axes where they are known. Neither a template nor a function of one Eigen::Tensor is tried with another
/// number of them: both claim to take it, and then do not compile.
template <class L, class T, int Axes = 0>
void call_conv(const L& layer, const In<T>& x, const Shape& shape, Out<T> y, Workspace* workspace) {
  constexpr int known = axes_of<L> ? axes_of<L> : Axes;
  if constexpr (requires { traits_of<L>::forward_into(layer, x, shape, y, workspace); }) {
    traits_of<L>::forward_into(layer, x, shape, y, workspace);
  } else if constexpr ((known == 0 || has_plain_forward<L>) && CallableLayer<L, AnyTensor<T>>) {
    Shape whole{x.rows()};
    for (const Index dimension : shape) whole.push_back(dimension);
    assign_rows<T>(y, call_layer(layer, AnyTensor<T>(whole, x.data())));
  } else {
    bool can_be_called = false, was_called = false;
    const auto attempt = [&]<int N>() {
      if constexpr (known == 0 || known == N)
        if constexpr (CallableLayer<L, Eigen::Tensor<T, N + 2, Eigen::RowMajor>> ||
                      CallableLayer<L, Eigen::TensorMap<const Eigen::Tensor<T, N + 2, Eigen::RowMajor>>>) {
          can_be_called = true;
          was_called = Index(shape.rank()) == N + 1;
          if (was_called) call_conv_of<N>(layer, x, shape, y);
        }
      return was_called;
    };
    if (attempt.template operator()<1>() || attempt.template operator()<2>() || attempt.template operator()<3>()) return;
    fail<ShapeError>("a convolution cannot be called with rows of " + to_string(shape),
                     can_be_called ? "its forward takes tensors with another number of axes"
                                   : "neither layer(x) nor layer_traits::forward(layer, x) takes a row-major Eigen::Tensor",
                     "give its layer_traits a forward(layer, x), and a conv_shape with the kernel's axes");
  }
}

}  // namespace graft::detail
