#pragma once

#include <cstdint>
#include <vector>

#include "models.hpp"

/// Layers that know nothing of graft, as a user has them, and the traits that make sites of them.
namespace interop {

/// transformers' Conv1D: the weight is stored (in, out).
template <class T>
struct Conv1D {
  Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> weight;
  Eigen::Matrix<T, Eigen::Dynamic, 1> bias;

  Conv1D(Index out, Index in) : weight(in, out), bias(out) {}
  graft::Matrix<T> operator()(const auto& x) const { return (x * weight).rowwise() + bias.transpose(); }
};

/// Column-major, as Eigen's matrices are by default. An empty bias means none.
template <class T>
struct UserLinear {
  Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> weight;
  Eigen::Matrix<T, Eigen::Dynamic, 1> offsets;

  UserLinear(Index in, Index out, bool bias) : weight(out, in), offsets(bias ? out : 0) {}
  graft::Matrix<T> apply(const auto& x) const {
    graft::Matrix<T> y = x * weight.transpose();
    if (offsets.size()) y.rowwise() += offsets.transpose();
    return y;
  }
};

/// Vectors one after the other in a std::vector.
template <class T>
struct UserTable {
  Index count, width;
  std::vector<T> values;

  UserTable(Index num, Index dim) : count(num), width(dim), values(std::size_t(num * dim)) {}
  graft::Matrix<T> operator()(const std::vector<int>& ids) const {
    graft::Matrix<T> y(Index(ids.size()), width);
    for (std::size_t i = 0; i < ids.size(); ++i)
      for (Index c = 0; c < width; ++c) y(Index(i), c) = values[std::size_t(ids[i] * width + c)];
    return y;
  }
};

/// A direct convolution over (n, channels, height, width).
template <class T>
struct UserConv2d {
  using Tensor = Eigen::Tensor<T, 4, Eigen::RowMajor>;

  graft::ConvShape shape;
  std::vector<T> kernel;  // (out, in / groups, height, width)
  Eigen::Matrix<T, Eigen::Dynamic, 1> offsets;

  UserConv2d(graft::ConvShape conv_shape, bool bias)
      : shape(std::move(conv_shape)),
        kernel(std::size_t(shape.out * (shape.in / shape.groups) * shape.kernel[0] * shape.kernel[1])),
        offsets(bias ? shape.out : 0) {}

  Tensor operator()(const Tensor& x) const {
    const Index kernel_height = shape.kernel[0], kernel_width = shape.kernel[1];
    const Index padding_height = padding(0), padding_width = padding(1);
    const Index padded_height = x.dimension(2) + total_padding(0), padded_width = x.dimension(3) + total_padding(1);
    const Index reach_height = shape.dilation[0] * (kernel_height - 1) + 1;
    const Index reach_width = shape.dilation[1] * (kernel_width - 1) + 1;
    const Index in_per_group = shape.in / shape.groups, out_per_group = shape.out / shape.groups;
    Tensor y(x.dimension(0), shape.out, (padded_height - reach_height) / shape.stride[0] + 1,
             (padded_width - reach_width) / shape.stride[1] + 1);
    for (Index n = 0; n < y.dimension(0); ++n)
      for (Index o = 0; o < shape.out; ++o)
        for (Index row = 0; row < y.dimension(2); ++row)
          for (Index col = 0; col < y.dimension(3); ++col) {
            T sum = offsets.size() ? offsets[o] : T(0);
            for (Index i = 0; i < in_per_group; ++i)
              for (Index a = 0; a < kernel_height; ++a)
                for (Index b = 0; b < kernel_width; ++b) {
                  const Index from_row = border(row * shape.stride[0] + a * shape.dilation[0] - padding_height, x.dimension(2));
                  const Index from_col = border(col * shape.stride[1] + b * shape.dilation[1] - padding_width, x.dimension(3));
                  if (from_row < 0 || from_col < 0) continue;
                  const Index at = ((o * in_per_group + i) * kernel_height + a) * kernel_width + b;
                  sum += kernel[std::size_t(at)] * x(n, o / out_per_group * in_per_group + i, from_row, from_col);
                }
            y(n, o, row, col) = sum;
          }
    return y;
  }

 private:
  Index total_padding(std::size_t axis) const {
    return shape.same ? shape.dilation[axis] * (shape.kernel[axis] - 1) : 2 * shape.padding[axis];
  }
  Index padding(std::size_t axis) const { return total_padding(axis) / 2; }
  /// Where the input continues over its border; -1: zero.
  Index border(Index at, Index size) const {
    if (at >= 0 && at < size) return at;
    switch (shape.padding_mode) {
      case graft::PaddingMode::reflect: return at < 0 ? -at : 2 * (size - 1) - at;
      case graft::PaddingMode::replicate: return at < 0 ? 0 : size - 1;
      case graft::PaddingMode::circular: return (at + size) % size;
      default: return -1;
    }
  }
};

template <class T>
struct Transposed {
  graft::Adaptable<Conv1D<T>> c_fc, c_proj;

  explicit Transposed(const Sizes& s) : c_fc(index(s, "hidden"), index(s, "in")), c_proj(index(s, "out"), index(s, "hidden")) {}
  auto operator()(const auto& x) const { return c_proj(graft::tanh(c_fc(x))); }
  GRAFT_MODULE(c_fc, c_proj)
};

template <class T>
struct UserModel {
  graft::Adaptable<UserTable<T>> table;
  graft::Adaptable<UserLinear<T>> project;

  explicit UserModel(const Sizes& s)
      : table(index(s, "vocabulary"), index(s, "hidden")),
        project(index(s, "hidden"), index(s, "out"), s.at("bias").get<bool>()) {}
  auto operator()(const auto& ids) const { return project(graft::tanh(table(ids))); }
  GRAFT_MODULE(table, project)
};

template <class T>
struct UserConvNet {
  graft::Adaptable<UserConv2d<T>> conv;

  static graft::ConvShape shape(const Sizes& s) {
    const graft::Conv2dOptions options = conv_options<2>(s);
    const auto axes = [&](const char* name) { return graft::AxisList(s.at(name).get<std::vector<Index>>()); };
    const bool same = s.at("padding").is_string();
    return {index(s, "in"),   index(s, "out"), axes("kernel"), axes("stride"), same ? graft::AxisList(0) : axes("padding"),
            axes("dilation"), options.groups,  options.padding_mode, same};
  }
  explicit UserConvNet(const Sizes& s) : conv(shape(s.at("conv")), s.at("conv").at("bias").get<bool>()) {}
  auto operator()(const auto& x) const { return graft::tanh(conv(x)); }
  GRAFT_MODULE(conv)
};

}  // namespace interop

template <class T>
struct graft::layer_traits<interop::Conv1D<T>> {
  using scalar = T;
  static constexpr LayerKind kind = LayerKind::linear;
  static constexpr bool transposed = true;
  static Index in_features(const interop::Conv1D<T>& layer) { return layer.weight.rows(); }
  static Index out_features(const interop::Conv1D<T>& layer) { return layer.weight.cols(); }
  static auto weight(auto& layer) { return layer.weight.transpose(); }
  static auto& bias(auto& layer) { return layer.bias; }
};

template <class T>
struct graft::layer_traits<interop::UserLinear<T>> {
  using scalar = T;
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const interop::UserLinear<T>& layer) { return layer.weight.cols(); }
  static Index out_features(const interop::UserLinear<T>& layer) { return layer.weight.rows(); }
  static auto& weight(auto& layer) { return layer.weight; }
  static auto bias(auto& layer) { return layer.offsets.size() ? &layer.offsets : nullptr; }
  static auto forward(const interop::UserLinear<T>& layer, const auto& x) { return layer.apply(x); }
};

template <class T>
struct graft::layer_traits<interop::UserTable<T>> {
  using scalar = T;
  static constexpr LayerKind kind = LayerKind::embedding;
  static Index num_embeddings(const interop::UserTable<T>& layer) { return layer.count; }
  static Index embedding_dim(const interop::UserTable<T>& layer) { return layer.width; }
  static auto weight(const interop::UserTable<T>& layer) {
    return Eigen::Map<const Matrix<T>>(layer.values.data(), layer.count, layer.width);
  }
  static auto weight(interop::UserTable<T>& layer) {
    return Eigen::Map<Matrix<T>>(layer.values.data(), layer.count, layer.width);
  }
};

template <class T>
struct graft::layer_traits<interop::UserConv2d<T>> {
  using scalar = T;
  static constexpr LayerKind kind = LayerKind::conv;
  static ConvShape conv_shape(const interop::UserConv2d<T>& layer) { return layer.shape; }
  static auto weight(const interop::UserConv2d<T>& layer) {
    return Eigen::Map<const Matrix<T>>(layer.kernel.data(), layer.shape.out, Index(layer.kernel.size()) / layer.shape.out);
  }
  static auto weight(interop::UserConv2d<T>& layer) {
    return Eigen::Map<Matrix<T>>(layer.kernel.data(), layer.shape.out, Index(layer.kernel.size()) / layer.shape.out);
  }
  static auto bias(auto& layer) { return layer.offsets.size() ? &layer.offsets : nullptr; }
};
