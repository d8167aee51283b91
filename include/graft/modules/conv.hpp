#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <type_traits>

#include "../kernels/conv.hpp"
#include "conv_geometry.hpp"
#include "op.hpp"
#include "parallel_product.hpp"
#include "parameters.hpp"

namespace graft {

/// One number for each of N spatial axes: from one Index for all, N in braces, or an array of N.
template <int N>
class Axes {
 public:
  Axes() = default;
  Axes(std::integral auto all) { values_.fill(Index(all)); }
  Axes(std::initializer_list<Index> values) {
    if (values.size() == 1) values_.fill(*values.begin());
    else if (values.size() == std::size_t(N)) std::copy(values.begin(), values.end(), values_.begin());
    else
      fail<ShapeError>(std::to_string(values.size()) + " numbers for " + std::to_string(N) + " spatial axes",
                       "an option has one number per axis, or one for all", "write one or " + std::to_string(N));
  }
  template <std::integral I>
  Axes(const std::array<I, std::size_t(N)>& values) {
    for (std::size_t axis = 0; axis < values.size(); ++axis) values_[axis] = Index(values[axis]);
  }
  [[nodiscard]] Index operator[](std::size_t axis) const { return values_[axis]; }
  [[nodiscard]] auto begin() const { return values_.begin(); }
  [[nodiscard]] auto end() const { return values_.end(); }

 private:
  std::array<Index, std::size_t(N)> values_{};
};

/// Padding that keeps the input's size (stride 1): torch's padding = "same".
struct SamePadding {};
inline constexpr SamePadding same{};

/// Padding per axis, or `graft::same`.
template <int N>
class Padding : public Axes<N> {
 public:
  using Axes<N>::Axes;
  Padding(const Axes<N>& axes) : Axes<N>(axes) {}
  Padding(SamePadding) : is_same_(true) {}
  [[nodiscard]] bool is_same() const { return is_same_; }

 private:
  bool is_same_ = false;
};

/// torch's options of nn.Conv1d, nn.Conv2d and nn.Conv3d.
template <int N>
struct ConvOptions {
  Axes<N> kernel{};
  Axes<N> stride = 1;
  Padding<N> padding = 0;
  Axes<N> dilation = 1;
  Index groups = 1;
  bool bias = true;
  PaddingMode padding_mode = PaddingMode::zeros;
};
using Conv1dOptions = ConvOptions<1>;
using Conv2dOptions = ConvOptions<2>;
using Conv3dOptions = ConvOptions<3>;

namespace ops {
/// A convolution over plain memory: weight (out, in/groups, kernel…), bias (out) or null. Rows are samples.
template <class W>
struct Conv {
  const W* weight;
  const W* bias;
  ConvShape conv;
  Trained trained{};

  [[nodiscard]] Shape shape(std::span<const Shape> x) const { return detail::conv_row_shape(conv, x[0]); }
  template <class T>
  void run(const In<T>& x, const Shape& row, Out<T> y, Workspace* workspace) const {
    static_assert(std::is_same_v<T, compute_scalar<W>>,
                  "graft: this layer's activations have another scalar: double for a double weight, else float");
    const kernels::ConvGeometry geometry = detail::conv_geometry(conv, row);
    const detail::Widened<T> wide_bias(bias, conv.out, workspace);
    const Index positions = geometry.output_positions(), all = x.rows() * positions, each = kernels::conv_scratch(geometry);
    // whole samples where there are enough of them; else positions, in lines of y that no two threads write
    const Index unit = x.rows() < 2 * detail::threads_of(workspace) ? 16 : positions, units = (all + unit - 1) / unit;
    const double work = double(geometry.out) * double(geometry.weight_columns()) * double(all);
    const Index pieces = std::max(Index{1}, std::min(detail::pieces_of(workspace, work), units));
    const Scratch<T> scratch(workspace, pieces * each);
    detail::for_each_piece(workspace, pieces, [&](Index piece) {
      const Index end = detail::piece_begin(piece + 1, pieces, all, unit);
      for (Index at = detail::piece_begin(piece, pieces, all, unit); at < end;) {
        const Index i = at / positions, first = at % positions, last = std::min(positions, first + end - at);
        kernels::conv_positions<T, W>(geometry, first, last, x.data() + i * x.outerStride(), weight, wide_bias.data(),
                                      y.data() + i * y.outerStride(), scratch.data() + piece * each);
        at += last - first;
      }
    });
  }
  [[nodiscard]] bool trainable(const BatchView& = {}) const { return trained.weight || (bias && trained.bias); }
  /// `row`: the shape of a row of x. dx is added to, null data: nobody wants it.
  template <class T>
  void vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& x, const Shape& row, Out<T> dx) const;
};
}  // namespace ops

/// A convolution of N spatial axes. weight (out, in/groups, kernel…), bias (out) or empty.
template <int N, class T, class Storage>
struct ConvNd {
  Parameter<T, Storage> weight, bias;

  ConvNd(Index in, Index out, ConvOptions<N> options)
      : weight(weight_shape(in, out, options)), bias(Shape{options.bias ? out : 0}), shape_(shape_of(in, out, options)) {}

  /// (n, in, spatial…) → (n, out, spatial…): row-major tensors, or Rows.
  auto operator()(const auto& x) const {
    using X = std::remove_cvref_t<decltype(x)>;
    if constexpr (Recorded<X>) {
      return record_shaped(op(), x);
    } else if constexpr (RowsLike<X>) {
      Rows<typename X::scalar> y(x.batch(), x.rows(), detail::conv_row_shape(shape_, x.row_shape()));
      op().template run<typename X::scalar>(x.value(), x.row_shape(), y.value(), x.batch().view().workspace);
      return y;
    } else {
      static_assert(TensorLike<X> && !MatrixLike<X>,
                    "graft: a convolution takes an Eigen::Tensor<T, N, Eigen::RowMajor> of (n, channels, spatial…) or graft::Rows");
      using traits = tensor_traits<X>;
      using S = typename traits::scalar;
      const Shape in_shape = traits::shape(x), row = detail::conv_row_shape(shape_, in_shape.tail());
      Shape whole{in_shape[0]};
      for (const Index dimension : row) whole.push_back(dimension);
      auto y = traits::make(whole);
      op().template run<S>(graft::in<S>(traits::data(x), in_shape[0], in_shape.tail().size()), in_shape.tail(),
                           graft::out<S>(tensor_traits<decltype(y)>::data(y), whole[0], row.size()), nullptr);
      return y;
    }
  }
  [[nodiscard]] ops::Conv<T> op() const {
    return {weight.view().data(), detail::bias_data(bias), shape_, {weight.requires_grad(), bias.requires_grad()}};
  }
  [[nodiscard]] const ConvShape& conv_shape() const { return shape_; }
  GRAFT_MODULE(weight, bias)

 private:
  static ConvShape shape_of(Index in, Index out, const ConvOptions<N>& options) {
    ConvShape shape;
    shape.in = in;
    shape.out = out;
    shape.stride = shape.padding = shape.dilation = AxisList();
    for (std::size_t axis = 0; axis < std::size_t(N); ++axis) {
      shape.kernel.push_back(options.kernel[axis]);
      shape.stride.push_back(options.stride[axis]);
      shape.padding.push_back(options.padding[axis]);
      shape.dilation.push_back(options.dilation[axis]);
    }
    shape.groups = options.groups;
    shape.padding_mode = options.padding_mode;
    shape.same = options.padding.is_same();
    return shape;
  }
  static Shape weight_shape(Index in, Index out, const ConvOptions<N>& options) {
    if (options.groups < 1 || in % options.groups != 0 || out % options.groups != 0)
      fail<ConfigError>("a convolution of " + std::to_string(in) + " → " + std::to_string(out) + " channels in " +
                            std::to_string(options.groups) + " groups",
                        "every group has the same number of channels", "choose groups that divide both");
    Shape shape{out, in / options.groups};
    for (const Index size : options.kernel) {
      if (size < 1) fail<ConfigError>("a convolution without a kernel size", "it has no default", "set .kernel in its options");
      shape.push_back(size);
    }
    if (options.padding.is_same())
      for (const Index step : options.stride)
        if (step != 1)
          fail<ConfigError>("padding = same with stride " + std::to_string(step), "a strided convolution changes the size",
                            "use stride 1, or padding in numbers");
    return shape;
  }

  ConvShape shape_;
};

/// torch's nn.Conv1d over (n, channels, length). Its options are a Conv1dOptions.
template <class T = float, class Storage = dense>
struct Conv1d : ConvNd<1, T, Storage> {
  Conv1d(Index in, Index out, Conv1dOptions options) : ConvNd<1, T, Storage>(in, out, options) {}
  using Base = ConvNd<1, T, Storage>;
  GRAFT_MODULE_FROM(Base)
};
/// torch's nn.Conv2d over (n, channels, height, width). Its options are a Conv2dOptions.
template <class T = float, class Storage = dense>
struct Conv2d : ConvNd<2, T, Storage> {
  Conv2d(Index in, Index out, Conv2dOptions options) : ConvNd<2, T, Storage>(in, out, options) {}
  using Base = ConvNd<2, T, Storage>;
  GRAFT_MODULE_FROM(Base)
};
/// torch's nn.Conv3d over (n, channels, depth, height, width). Its options are a Conv3dOptions.
template <class T = float, class Storage = dense>
struct Conv3d : ConvNd<3, T, Storage> {
  Conv3d(Index in, Index out, Conv3dOptions options) : ConvNd<3, T, Storage>(in, out, options) {}
  using Base = ConvNd<3, T, Storage>;
  GRAFT_MODULE_FROM(Base)
};

namespace detail {
template <class Layer, class T>
struct ConvTraits {
  using scalar = T;
  static constexpr LayerKind kind = LayerKind::conv;
  static const ConvShape& conv_shape(const Layer& layer) { return layer.conv_shape(); }
  static bool has_bias(const Layer& layer) { return layer.bias.size() != 0; }
  static auto weight(auto& layer) { return layer.weight.view(); }
  static std::uint64_t weight_version(const Layer& layer) { return layer.weight.version(); }
  static auto bias(auto& layer) { return layer.bias.view().row(0); }
  static auto& bias_parameter(auto& layer) { return layer.bias; }
  /// What computes the layer, and its gradients.
  static ops::Conv<T> op(const Layer& layer) { return layer.op(); }
  static void forward_into(const Layer& layer, const In<compute_scalar<T>>& x, const Shape& row, Out<compute_scalar<T>> y,
                           Workspace* workspace) {
    layer.op().template run<compute_scalar<T>>(x, row, y, workspace);
  }
};
}  // namespace detail

template <class T, class Storage>
struct layer_traits<Conv1d<T, Storage>> : detail::ConvTraits<Conv1d<T, Storage>, T> {};
template <class T, class Storage>
struct layer_traits<Conv2d<T, Storage>> : detail::ConvTraits<Conv2d<T, Storage>, T> {};
template <class T, class Storage>
struct layer_traits<Conv3d<T, Storage>> : detail::ConvTraits<Conv3d<T, Storage>, T> {};

}  // namespace graft
