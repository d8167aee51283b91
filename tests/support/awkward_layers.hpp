#pragma once

#include <graft/graft.hpp>
#include <vector>

/// Layers in awkward sizes, some of which know nothing of graft, and what goes into them.
///
/// A case names a layer, makes one with values in it, makes an input of n rows, and says which rank fits.
namespace awkward {

using graft::Index;

/// Values that differ from element to element, from -1 to 1, and never repeat in a short while.
inline double value(Index i, double seed) {
  const double phase = double(i) * 0.6180339887498949 + seed * 0.7548776662466927;
  return 2 * (phase - double(Index(phase))) - 1;
}
template <class T>
void fill(graft::ParameterData& parameter, double seed) {
  for (Index i = 0; i < parameter.shape().size(); ++i) graft::detail::store<T>(parameter, i, value(i, seed));
}
void fill(auto&& matrix, double seed) {
  using T = typename std::remove_cvref_t<decltype(matrix)>::Scalar;
  for (Index i = 0; i < Index(matrix.size()); ++i) matrix.data()[i] = T(value(i, seed));
}

template <class T>
graft::Matrix<T> rows(Index n, Index features, double seed = 1) {
  graft::Matrix<T> x(n, features);
  fill(x, seed);
  return x;
}
inline std::vector<int> ids(Index n, int count) {
  std::vector<int> all;
  for (Index i = 0; i < n; ++i) all.push_back(int((5 * i + 3) % count));
  return all;
}

/// Column-major weights, as Eigen's are by default.
template <class T>
struct PlainLinear {
  Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> kernel;
  Eigen::Matrix<T, Eigen::Dynamic, 1> offsets;

  PlainLinear(Index in, Index out) : kernel(out, in), offsets(out) {}
  graft::Matrix<T> operator()(const auto& x) const {
    return (x * kernel.transpose()).rowwise() + offsets.transpose();
  }
};

/// The weight stored (in, out), no bias, and a forward of another name.
template <class T>
struct StoredTransposed {
  graft::Matrix<T> kernel;

  StoredTransposed(Index in, Index out) : kernel(in, out) {}
  graft::Matrix<T> apply(const graft::Matrix<T>& x) const { return x * kernel; }
};

template <class T>
struct Lookup {
  Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> table;  // (num, dim)

  Lookup(Index num, Index dim) : table(num, dim) {}
  graft::Matrix<T> operator()(std::span<const std::int64_t> ids) const {
    graft::Matrix<T> y(Index(ids.size()), table.cols());
    for (std::size_t i = 0; i < ids.size(); ++i) y.row(Index(i)) = table.row(Index(ids[i]));
    return y;
  }
};

/// Kernel 3, stride 2, no padding, over (n, channels, length).
template <class T>
struct Strided {
  using Tensor = Eigen::Tensor<T, 3, Eigen::RowMajor>;
  Index in, out;
  std::vector<T> kernel;
  Eigen::Matrix<T, Eigen::Dynamic, 1> offsets;

  Strided(Index in_channels, Index out_channels)
      : in(in_channels), out(out_channels), kernel(std::size_t(in * out * 3)), offsets(out) {}
  Tensor operator()(const Tensor& x) const {
    Tensor y(x.dimension(0), out, (x.dimension(2) - 3) / 2 + 1);
    for (Index n = 0; n < y.dimension(0); ++n)
      for (Index o = 0; o < out; ++o)
        for (Index at = 0; at < y.dimension(2); ++at) {
          T sum = offsets[o];
          for (Index i = 0; i < in; ++i)
            for (Index k = 0; k < 3; ++k)
              sum += kernel[std::size_t((o * in + i) * 3 + k)] * x(n, i, 2 * at + k);
          y(n, o, at) = sum;
        }
    return y;
  }
};

}  // namespace awkward

template <class T>
struct graft::layer_traits<awkward::PlainLinear<T>> {
  using scalar = T;
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const awkward::PlainLinear<T>& layer) { return layer.kernel.cols(); }
  static Index out_features(const awkward::PlainLinear<T>& layer) { return layer.kernel.rows(); }
  static auto& weight(auto& layer) { return layer.kernel; }
  static auto* bias(auto& layer) { return &layer.offsets; }
};
template <class T>
struct graft::layer_traits<awkward::StoredTransposed<T>> {
  using scalar = T;
  static constexpr LayerKind kind = LayerKind::linear;
  static constexpr bool transposed = true;
  static Index in_features(const awkward::StoredTransposed<T>& layer) { return layer.kernel.rows(); }
  static Index out_features(const awkward::StoredTransposed<T>& layer) { return layer.kernel.cols(); }
  static auto weight(auto& layer) { return layer.kernel.transpose(); }
  static auto forward(const awkward::StoredTransposed<T>& layer, const auto& x) { return layer.apply(x); }
};
template <class T>
struct graft::layer_traits<awkward::Lookup<T>> {
  using scalar = T;
  static constexpr LayerKind kind = LayerKind::embedding;
  static Index num_embeddings(const awkward::Lookup<T>& layer) { return layer.table.rows(); }
  static Index embedding_dim(const awkward::Lookup<T>& layer) { return layer.table.cols(); }
  static auto& weight(auto& layer) { return layer.table; }
};
template <class T>
struct graft::layer_traits<awkward::Strided<T>> {
  using scalar = T;
  static constexpr LayerKind kind = LayerKind::conv;
  static ConvShape conv_shape(const awkward::Strided<T>& layer) { return {layer.in, layer.out, {3}, {2}}; }
  static auto weight(auto& layer) {
    return Eigen::Map<std::conditional_t<std::is_const_v<std::remove_reference_t<decltype(layer)>>,
                                         const Matrix<T>, Matrix<T>>>(layer.kernel.data(), layer.out,
                                                                      layer.in * 3);
  }
  static auto* bias(auto& layer) { return &layer.offsets; }
};

namespace awkward {

/// 13 features in, 7 out. `W` may be narrow: activations are float then.
template <class W>
struct LinearCase {
  using Scalar = graft::compute_scalar<W>;
  using Layer = graft::Linear<W>;
  static constexpr int r = 3;
  static Layer make() {
    Layer layer(13, 7);
    fill<W>(layer.weight.untyped(), 1);
    fill<W>(layer.bias.untyped(), 2);
    return layer;
  }
  static auto input(Index n) { return rows<Scalar>(n, 13); }
};
template <class T>
struct PlainLinearCase {
  using Scalar = T;
  using Layer = PlainLinear<T>;
  static constexpr int r = 3;
  static Layer make() {
    Layer layer(13, 7);
    fill(layer.kernel, 3);
    fill(layer.offsets, 4);
    return layer;
  }
  static auto input(Index n) { return rows<T>(n, 13); }
};
template <class T>
struct TransposedCase {
  using Scalar = T;
  using Layer = StoredTransposed<T>;
  static constexpr int r = 3;
  static Layer make() {
    Layer layer(7, 13);
    fill(layer.kernel, 5);
    return layer;
  }
  static auto input(Index n) { return rows<T>(n, 7); }
};
template <class W>
struct EmbeddingCase {
  using Scalar = graft::compute_scalar<W>;
  using Layer = graft::Embedding<W>;
  static constexpr int r = 3;
  static Layer make() {
    Layer layer(13, 7, {.padding_idx = 3, .max_norm = 1.5});
    fill<W>(layer.weight.untyped(), 6);
    return layer;
  }
  static auto input(Index n) { return ids(n, 13); }
};
template <class T>
struct LookupCase {
  using Scalar = T;
  using Layer = Lookup<T>;
  static constexpr int r = 3;
  static Layer make() {
    Layer layer(13, 7);
    fill(layer.table, 7);
    return layer;
  }
  static auto input(Index n) { return ids(n, 13); }
};
template <class T>
struct Conv1dCase {
  using Scalar = T;
  using Layer = graft::Conv1d<T>;
  static constexpr int r = 3;
  static Layer make() {
    Layer layer(3, 7, {.kernel = 3, .stride = 2, .padding = 1, .dilation = 2, .groups = 1});
    fill<T>(layer.weight.untyped(), 8);
    fill<T>(layer.bias.untyped(), 9);
    return layer;
  }
  static auto input(Index n) {
    Eigen::Tensor<T, 3, Eigen::RowMajor> x(n, 3, 13);
    fill(x, 1);
    return x;
  }
};
/// Two groups, so that r = 3 does not fit but 4 does.
template <class T>
struct GroupedConv2dCase {
  using Scalar = T;
  using Layer = graft::Conv2d<T>;
  static constexpr int r = 4;
  static Layer make() {
    Layer layer(4, 6, {.kernel = {3, 2}, .stride = {1, 2}, .padding = {1, 0}, .groups = 2});
    fill<T>(layer.weight.untyped(), 10);
    fill<T>(layer.bias.untyped(), 11);
    return layer;
  }
  static auto input(Index n) {
    Eigen::Tensor<T, 4, Eigen::RowMajor> x(n, 4, 5, 7);
    fill(x, 1);
    return x;
  }
};
template <class T>
struct Conv2dCase {
  using Scalar = T;
  using Layer = graft::Conv2d<T>;
  static constexpr int r = 3;
  static Layer make() {
    Layer layer(3, 7, {.kernel = {3, 2}, .stride = {1, 2}, .padding = {1, 0}, .dilation = {2, 1}});
    fill<T>(layer.weight.untyped(), 10);
    fill<T>(layer.bias.untyped(), 11);
    return layer;
  }
  static auto input(Index n) {
    Eigen::Tensor<T, 4, Eigen::RowMajor> x(n, 3, 5, 7);
    fill(x, 1);
    return x;
  }
};
template <class T>
struct Conv3dCase {
  using Scalar = T;
  using Layer = graft::Conv3d<T>;
  static constexpr int r = 3;
  static Layer make() {
    Layer layer(2, 3,
                {.kernel = {1, 2, 2}, .stride = {2, 1, 1}, .padding = graft::Padding<3>(0), .bias = false});
    fill<T>(layer.weight.untyped(), 12);
    return layer;
  }
  static auto input(Index n) {
    Eigen::Tensor<T, 5, Eigen::RowMajor> x(n, 2, 3, 4, 5);
    fill(x, 1);
    return x;
  }
};
template <class T>
struct StridedCase {
  using Scalar = T;
  using Layer = Strided<T>;
  static constexpr int r = 3;
  static Layer make() {
    Layer layer(3, 5);
    for (std::size_t i = 0; i < layer.kernel.size(); ++i) layer.kernel[i] = T(value(Index(i), 13));
    fill(layer.offsets, 14);
    return layer;
  }
  static auto input(Index n) {
    Eigen::Tensor<T, 3, Eigen::RowMajor> x(n, 3, 13);
    fill(x, 1);
    return x;
  }
};

/// A model of one site.
template <class Case>
struct Net {
  graft::Adaptable<typename Case::Layer> site{Case::make()};
  auto operator()(const auto& x) const { return site(x); }
  GRAFT_MODULE(site)
};

}  // namespace awkward
