#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "layer_traits.hpp"
#include "op.hpp"
#include "parameters.hpp"

namespace graft {

/// torch's options of nn.Embedding. In inference padding_idx, scale_grad_by_freq and sparse change nothing; in training
/// sparse changes nothing.
struct EmbeddingOptions {
  std::optional<Index> padding_idx{};
  std::optional<double> max_norm{};  ///< rows that are looked up and longer are scaled down to it
  double norm_type = 2;
  bool scale_grad_by_freq = false, sparse = false;
};

namespace detail {
/// The factor that takes a vector of this norm down to max_norm: torch's embedding_renorm_, with its epsilon.
[[nodiscard]] inline double renorm_factor(double norm, double max_norm) {
  return norm > max_norm ? max_norm / (norm + 1e-7) : 1;
}

[[noreturn]] inline void id_out_of_range(Index id, Index num) {
  fail<ShapeError>("token id " + std::to_string(id) + " at an embedding of " + std::to_string(num) + " rows",
                   "ids count from 0", "check the tokenizer's vocabulary against the model's");
}

/// y (n, dim) becomes the rows of W (num, dim) that the ids name.
template <class T, class W>
void look_up(const W* weight, Index num, Index dim, const EmbeddingOptions& options, const Ids& ids, Out<T> y) {
  for (Index i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= num) id_out_of_range(ids[i], num);
  for (Index i = 0; i < ids.size(); ++i) {
    const W* row = weight + ids[i] * dim;
    T* to = y.data() + i * y.outerStride();
    for (Index c = 0; c < dim; ++c) {
      if constexpr (std::is_same_v<T, W>) to[c] = row[c];
      else to[c] = T(float(row[c]));
    }
    if (!options.max_norm) continue;
    double sum = 0;
    for (Index c = 0; c < dim; ++c) sum += std::pow(std::abs(double(to[c])), options.norm_type);
    const T factor = T(renorm_factor(std::pow(sum, 1 / options.norm_type), *options.max_norm));
    if (factor != T(1))
      for (Index c = 0; c < dim; ++c) to[c] *= factor;
  }
}

/// Looks such ids up: fill(Ids, y) writes one row of dim features for each. A matrix (n, dim); where the ids are a
/// tensor that can make another, a tensor of its kind with the features as one more dimension.
template <class T, class X, class Fill>
auto embed(const X& ids, Index dim, Fill fill) {
  std::vector<std::int64_t> storage;
  const Ids all = ids_of(ids, storage);
  if constexpr (requires { tensor_traits<X>::template make_other<tensor_traits<X>::rank + 1, T>(Shape{}); }) {
    Shape shape = tensor_traits<X>::shape(ids);
    shape.push_back(dim);
    auto y = tensor_traits<X>::template make_other<tensor_traits<X>::rank + 1, T>(shape);
    fill(all, graft::out<T>(tensor_traits<decltype(y)>::data(y), all.size(), dim));
    return y;
  } else {
    Matrix<T> y(all.size(), dim);
    fill(all, graft::out(y));
    return y;
  }
}
}  // namespace detail

/// A table of vectors looked up by token id: torch's nn.Embedding. weight (num, dim).
/// Where torch renormalises rows in place (max_norm), this scales the result: the model is const.
template <class T = float, class Storage = dense>
struct Embedding {
  Parameter<T, Storage> weight;
  EmbeddingOptions options;

  Embedding(Index num, Index dim, EmbeddingOptions embedding_options = {})
      : weight(Shape{num, dim}), options(embedding_options) {
    if (options.padding_idx && *options.padding_idx < 0) *options.padding_idx += num;
    if (options.padding_idx && (*options.padding_idx < 0 || *options.padding_idx >= num))
      fail<ConfigError>("padding_idx lies outside an embedding of " + std::to_string(num) + " rows",
                        "it names a row, from the end if negative", "pass one of its rows");
  }

  /// Token ids of any kind, n of them → (n, dim): a matrix, or Rows where Tokens came in. A tensor of ids → a tensor
  /// of its kind with dim as its last dimension.
  template <IdsLike X>
    requires(!Recorded<X>)
  auto operator()(const X& ids) const {
    return detail::embed<compute_scalar<T>>(ids, weight.cols(), [&](const Ids& all, Out<compute_scalar<T>> y) {
      detail::look_up<compute_scalar<T>>(weight.view().data(), weight.rows(), weight.cols(), options, all, y);
    });
  }
  auto operator()(const Tokens& tokens) const {
    Rows<compute_scalar<T>> y(tokens.batch(), tokens.batch().rows(), {weight.cols()});
    detail::look_up<compute_scalar<T>>(weight.view().data(), weight.rows(), weight.cols(), options, tokens.ids(), y.value());
    return y;
  }
  /// Ids of a pass that is recorded: the rows then train the table, if it requires a gradient.
  auto operator()(const Recorded auto& ids) const { return record_lookup(*this, ids); }
  GRAFT_MODULE(weight)
};

namespace detail {
template <class L>
inline constexpr bool is_embedding = false;
template <class T, class Storage>
inline constexpr bool is_embedding<Embedding<T, Storage>> = true;
}  // namespace detail

template <class T, class Storage>
struct layer_traits<Embedding<T, Storage>> {
  using Layer = Embedding<T, Storage>;
  using scalar = T;
  static constexpr LayerKind kind = LayerKind::embedding;
  static Index num_embeddings(const Layer& layer) { return layer.weight.rows(); }
  static Index embedding_dim(const Layer& layer) { return layer.weight.cols(); }
  static std::optional<double> max_norm(const Layer& layer) { return layer.options.max_norm; }
  static double norm_type(const Layer& layer) { return layer.options.norm_type; }
  static std::optional<Index> padding_idx(const Layer& layer) { return layer.options.padding_idx; }
  static bool scale_grad_by_freq(const Layer& layer) { return layer.options.scale_grad_by_freq; }
  static auto weight(auto& layer) { return layer.weight.view(); }
  static std::uint64_t weight_version(const Layer& layer) { return layer.weight.version(); }
  static void forward_into(const Layer& layer, const Ids& ids, Out<compute_scalar<T>> y, Workspace*) {
    detail::look_up<compute_scalar<T>>(layer.weight.view().data(), layer.weight.rows(), layer.weight.cols(), layer.options, ids, y);
  }
};

}  // namespace graft
