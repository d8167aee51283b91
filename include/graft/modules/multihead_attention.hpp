#pragma once

#include <array>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "attention.hpp"
#include "packed_projection.hpp"

namespace graft {

/// How a sequence attends to itself.
struct AttendOptions {
  bool causal = false;  ///< a row sees itself and those before it; else all
  Index layer = -1;     ///< the layer's number in a cache; needed with one
};

namespace ops {
/// Attention of sequences to themselves: q, k and v are the thirds of a row.
struct PackedAttention {
  AttentionOptions options;

  [[nodiscard]] Index cols(const auto& x) const { return x[0].cols() / 3; }
  template <class T>
  void forward(const BatchView& batch, Out<T> y, std::span<const In<T>> x) const {
    const Index rows = x[0].rows(), width = y.cols(), stride = x[0].outerStride();
    const auto third = [&](Index i) { return in<T>(x[0].data() + i * width, rows, width, stride); };
    const std::array<In<T>, 3> parts{third(0), third(1), third(2)};
    Attention{options}.forward<T>(batch, y, std::span<const In<T>>(parts));
  }
  template <class = OnDemand>
  static void check_recorded(const BatchView& batch) {
    Attention::check_recorded(batch);
  }
  template <class T>
  void vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& y, std::span<const In<T>> x,
           std::span<const Out<T>> dx) const;
};

/// Attention of the rows of each sequence to all keys and values beside them, of which nothing is cached.
struct AttentionAcross {
  Index heads;

  [[nodiscard]] Index cols(const auto& x) const { return x[0].cols(); }
  template <class T>
  void forward(const BatchView& batch, Out<T> y, std::span<const In<T>> x) const {
    for (const Sequence& sequence : batch.sequences) {
      if (!sequence.rows) continue;
      const auto part = [&](const In<T>& all) { return rows_of(all, sequence.begin, sequence.rows); };
      attend<T>(heads, part(x[0]), part(x[1]), part(x[2]), rows_of(y, sequence.begin, sequence.rows), batch.workspace);
    }
  }
  template <class T>
  void vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& y, std::span<const In<T>> x,
           std::span<const Out<T>> dx) const;
  /// One sequence: q and y (n, features), k and v (m, features).
  template <class T>
  static void attend(Index heads, const In<T>& q, const In<T>& k, const In<T>& v, Out<T> y, Workspace* workspace) {
    const kernels::AttentionShape shape{.rows = q.rows(), .keys = k.rows(), .heads = heads, .kv_heads = heads,
                                        .head_dim = q.cols() / heads, .causal = false};
    const Scratch<T> scratch(workspace, kernels::attention_scratch(shape));
    kernels::attention<T>(shape, q.data(), q.outerStride(), k.data(), k.outerStride(), v.data(), v.outerStride(), y.data(),
                          y.outerStride(), scratch.data());
  }
};
}  // namespace ops

namespace detail {
/// A matrix, or a tensor (…, rows, features), as sequences of equal length.
template <class T>
struct EqualSequences {
  const T* data;
  Index count, rows, cols, stride;

  [[nodiscard]] In<T> at(Index i) const { return in<T>(data + i * rows * stride, rows, cols, stride); }
};
template <TensorLike X>
  requires(!MatrixLike<X>)
[[nodiscard]] auto equal_sequences(const X& x) {
  const Shape shape = tensor_traits<X>::shape(x);
  if (shape.rank() < 2)
    fail<ShapeError>("an attention got a tensor of " + std::to_string(shape.rank()) + " dimensions",
                     "a sequence is rows of features", "pass (rows, features), or (sequences, rows, features)");
  const Index cols = shape.back(), rows = shape[shape.rank() - 2], size = rows * cols;
  return EqualSequences<typename tensor_traits<X>::scalar>{tensor_traits<X>::data(x), size != 0 ? shape.size() / size : 0, rows, cols, cols};
}

/// Each sequence to itself.
template <class X>
auto attend_to_self(const X& packed, const AttentionOptions& options) {
  if constexpr (TensorLike<X> && !MatrixLike<X>) {
    using T = typename tensor_traits<X>::scalar;
    const auto all = equal_sequences(packed);
    auto y = tensor_traits<X>::make(with_features(tensor_traits<X>::shape(packed), all.cols / 3));
    const OneSequence one(all.rows);
    for (Index i = 0; i < all.count; ++i) {
      const In<T> x = all.at(i);
      T* to = tensor_traits<decltype(y)>::data(y) + i * all.rows * (all.cols / 3);
      ops::PackedAttention{options}.forward<T>(one.view(), out<T>(to, all.rows, all.cols / 3), std::span(&x, 1));
    }
    return y;
  } else {
    return custom(ops::PackedAttention{options}, packed);
  }
}

template <class T>
void attend_across(const EqualSequences<T>& q, const EqualSequences<T>& k, const EqualSequences<T>& v, Index heads, T* y) {
  if (k.count != q.count || v.count != q.count || k.rows != v.rows || (k.rows == 0 && q.rows != 0))
    fail<ShapeError>("queries of " + std::to_string(q.count) + " sequences attend to " + std::to_string(k.count) + " of " +
                         std::to_string(k.rows) + " keys and " + std::to_string(v.count) + " of " + std::to_string(v.rows) + " values",
                     "every sequence of queries has one of keys, and every key a value", "check what is passed as key and value");
  if (q.rows != 0)
    for (Index i = 0; i < q.count; ++i)
      ops::AttentionAcross::attend<T>(heads, q.at(i), k.at(i), v.at(i), out<T>(y + i * q.rows * q.cols, q.rows, q.cols), nullptr);
}
/// Sequences of queries to others, whose lengths may differ; of Rows, to rows of the same batch.
template <class X, class K, class V>
auto attend_across(const X& q, const K& k, const V& v, Index heads) {
  if constexpr (TensorLike<X> && !MatrixLike<X>) {
    auto y = tensor_traits<X>::make(tensor_traits<X>::shape(q));
    attend_across(equal_sequences(q), equal_sequences(k), equal_sequences(v), heads, tensor_traits<decltype(y)>::data(y));
    return y;
  } else if constexpr (MatrixLike<X>) {
    using T = typename X::Scalar;
    Matrix<T> y(q.rows(), q.cols());
    const auto one = [](const Matrix<T>& x) { return EqualSequences<T>{x.data(), 1, x.rows(), x.cols(), x.cols()}; };
    attend_across(one(q), one(k), one(v), heads, y.data());
    return y;
  } else {
    return custom(ops::AttentionAcross{heads}, q, k, v);
  }
}

inline void check_heads(Index embed_dim, Index num_heads) {
  if (embed_dim <= 0 || num_heads <= 0 || embed_dim % num_heads != 0)
    fail<ShapeError>("an attention of " + std::to_string(embed_dim) + " features and " + std::to_string(num_heads) + " heads",
                     "every head has an equal part of the features", "choose a number of heads that divides embed_dim");
}
}  // namespace detail

/// torch's name for the output projection of an attention, a Linear in all else.
template <class T = float, class Storage = dense>
struct NonDynamicallyQuantizableLinear : Linear<T, Storage> {
  using Base = Linear<T, Storage>;
  using Base::Base;
  GRAFT_MODULE_FROM(Base)
};
template <class T, class Storage>
struct layer_traits<NonDynamicallyQuantizableLinear<T, Storage>> : layer_traits<Linear<T, Storage>> {
  /// As in torch's MultiheadAttention, which leaves the weight as a Linear has it and clears the bias.
  static void initialise(auto& layer, std::string_view path, std::uint64_t seed) {
    fill_uniform(layer.weight.untyped(), {seed, std::string(path) + ".weight"}, layer.weight.cols() ? 1 / std::sqrt(double(layer.weight.cols())) : 0);
    if (layer.bias.size()) fill_constant(layer.bias.untyped(), 0);
  }
};

/// torch's nn.MultiheadAttention with batch_first, without its dropout and its average weights: queries, keys and values by one
/// packed projection, in_proj_weight (3·embed_dim, embed_dim), then `out_proj`. Declared `Adaptable<MultiheadAttention<>>`
/// it is a site of LoRA, which adapts both projections as PEFT does.
template <class T = float, class Storage = dense, class OutProjection = NonDynamicallyQuantizableLinear<T, Storage>>
struct MultiheadAttention : PackedProjection<T, Storage> {
  using Projection = PackedProjection<T, Storage>;
  Index num_heads;
  OutProjection out_proj;

  /// @throws ShapeError unless num_heads divides embed_dim
  MultiheadAttention(Index embed_dim, Index heads, bool bias = true)
      : Projection(embed_dim, 3 * embed_dim, bias), num_heads(heads), out_proj(embed_dim, embed_dim, bias) {
    detail::check_heads(embed_dim, heads);
  }
  /// Takes over another's, whose output projection is of another type: a plain one becomes a site.
  template <class Other>
    requires(!std::same_as<Other, OutProjection> && std::constructible_from<OutProjection, Other>)
  MultiheadAttention(MultiheadAttention<T, Storage, Other> other)
      : Projection(std::move(other)), num_heads(other.num_heads), out_proj(std::move(other.out_proj)) {}

  [[nodiscard]] Index embed_dim() const { return this->in_proj_weight.cols(); }

  /// x (rows, embed_dim) is one sequence, a tensor (sequences, rows, embed_dim) several, Rows those of their batch.
  auto operator()(const auto& x, const AttendOptions& options = {}) const {
    return attend(BaseProjection{static_cast<const Projection&>(*this)}, x, options);
  }
  /// query (n, embed_dim) attends to key and value (m, embed_dim), all of them; likewise tensors of as many sequences.
  auto operator()(const auto& query, const auto& key, const auto& value) const {
    return attend(BaseProjection{static_cast<const Projection&>(*this)}, query, key, value);
  }

  /// The same with project(x, begin, count) for the packed projection.
  template <class Project>
  auto attend(const Project& project, const auto& x, const AttendOptions& options = {}) const {
    const AttentionOptions own{.heads = num_heads, .kv_heads = num_heads, .layer = options.layer, .causal = options.causal};
    return out_proj(detail::attend_to_self(project(x, 0, 3 * embed_dim()), own));
  }
  template <class Project>
  auto attend(const Project& project, const auto& query, const auto& key, const auto& value) const {
    const Index width = embed_dim();
    return out_proj(detail::attend_across(project(query, 0, width), project(key, width, width), project(value, 2 * width, width), num_heads));
  }

  GRAFT_MODULE_FROM(Projection, out_proj)
};

template <class T, class Storage, class OutProjection>
struct layer_traits<MultiheadAttention<T, Storage, OutProjection>> : layer_traits<PackedProjection<T, Storage>> {
  using packed_projection = PackedProjection<T, Storage>;
  using out_projection = OutProjection;
  template <class Other>
  using with_out_projection = MultiheadAttention<T, Storage, Other>;
};

}  // namespace graft
