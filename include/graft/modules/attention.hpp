#pragma once

#include <algorithm>
#include <span>
#include <string>

#include "../core/on_demand.hpp"
#include "../kernels/attention.hpp"
#include "../kernels/rotary.hpp"
#include "op.hpp"
#include "parallel_product.hpp"

namespace graft {

/// Rotary position embedding with the halves of every head rotated, as Hugging Face's Llama does.
struct RotaryOptions {
  Index head_dim = 0;
  double theta = 10000;
};

/// Grouped-query attention: heads live in the columns of q (heads · head_dim), k and v (kv_heads · head_dim).
struct AttentionOptions {
  Index heads = 1, kv_heads = 1;
  Index layer = -1;    ///< the layer's number in a cache; needed with one
  bool causal = true;
  double scale = 0;    ///< of the scores; 0: 1/√head_dim
};

namespace detail {
/// Heads are apart from one another: calls f(shape, first column of q, first column of k, scratch) for pieces of whole key
/// heads, each with its query heads, on the host's threads. `each`: the scratch of one.
template <class T, class F>
void for_each_head(const kernels::AttentionShape& shape, double work, Index each, Workspace* workspace, F f) {
  const Index kv_heads = shape.kv_heads, group = shape.heads / kv_heads, d = shape.head_dim;
  const Index pieces = std::min(pieces_of(workspace, work), kv_heads);
  const Scratch<T> scratch(workspace, pieces * each);
  for_each_piece(workspace, pieces, [&](Index i) {
    const Index begin = piece_begin(i, pieces, kv_heads, 1), end = piece_begin(i + 1, pieces, kv_heads, 1);
    kernels::AttentionShape part = shape;
    part.kv_heads = end - begin;
    part.heads = part.kv_heads * group;
    f(part, begin * group * d, begin * d, scratch.data() + i * each);
  });
}
}  // namespace detail

namespace ops {
struct Rotary {
  RotaryOptions options;

  [[nodiscard]] Index cols(const auto& x) const {
    if (options.head_dim <= 0 || options.head_dim % 2 != 0 || x[0].cols() % options.head_dim != 0)
      fail<ShapeError>("rotary with head_dim = " + std::to_string(options.head_dim) + " on " + std::to_string(x[0].cols()) + " features",
                       "a row is a number of heads, and a head is rotated by halves", "set an even head_dim that divides the features");
    return x[0].cols();
  }
  template <class T>
  void forward(const BatchView& batch, Out<T> y, std::span<const In<T>> x) const {
    const Index d = options.head_dim;
    for_each_piece<T>(batch, x[0].rows(), [&](Index from, Index count, const T* table) {
      kernels::rotary<T>(count, y.cols() / d, d, table, x[0].data() + from * x[0].outerStride(), x[0].outerStride(),
                         y.data() + from * y.outerStride(), y.outerStride());
    });
  }
  template <class T>
  void vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& y, std::span<const In<T>> x,
           std::span<const Out<T>> dx) const;

 private:
  /// Calls f(first row, rows, their table), piece after piece of every sequence; backwards with the angles' negatives.
  template <class T, class F>
  void for_each_piece(const BatchView& batch, Index rows, F f, bool backwards = false) const {
    constexpr Index most = 128;  // rows of a table: a bounded one
    const Index d = options.head_dim, longest = std::min(most, rows);
    const Scratch<T> scratch(batch.workspace, kernels::rotary_table_size(longest, d) + d / 2);
    T* const frequencies = scratch.data() + kernels::rotary_table_size(longest, d);
    kernels::rotary_frequencies<T>(d, options.theta, frequencies);
    if (backwards)
      for (Index j = 0; j < d / 2; ++j) frequencies[j] = -frequencies[j];
    Index position = 0, known = 0;  // of the table
    for (const Sequence& sequence : batch.sequences)
      for (Index row = 0, count; row < sequence.rows; row += count) {
        count = std::min(most, sequence.rows - row);
        const Index first = sequence.position + row;
        if (first < position || first + count > position + known) {  // sequences of a batch often begin alike
          position = first;
          known = count;
          kernels::rotary_table<T>(count, d, first, frequencies, scratch.data());
        }
        f(sequence.begin + row, count, scratch.data() + (first - position) * d);
      }
  }
};

/// Each sequence by itself; keys and values of earlier calls come from its cache.
struct Attention {
  AttentionOptions options;

  [[nodiscard]] Index cols(const auto& x) const {
    const Index heads = options.heads, kv_heads = options.kv_heads;
    const Index head_dim = heads > 0 ? x[0].cols() / heads : 0;
    if (heads <= 0 || kv_heads <= 0 || heads % kv_heads != 0 || head_dim * heads != x[0].cols() ||
        x[1].cols() != head_dim * kv_heads || x[2].cols() != head_dim * kv_heads)
      fail<ShapeError>("attention of " + std::to_string(heads) + " heads and " + std::to_string(kv_heads) + " key heads on q, k, v of " +
                           std::to_string(x[0].cols()) + ", " + std::to_string(x[1].cols()) + " and " +
                           std::to_string(x[2].cols()) + " features",
                       "q has heads · head_dim columns, k and v kv_heads · head_dim, and kv_heads divides heads",
                       "check AttentionOptions against the projections");
    return x[0].cols();
  }

  template <class T>
  void forward(const BatchView& batch, Out<T> y, std::span<const In<T>> x) const {
    for (const Sequence& sequence : batch.sequences)
      if (sequence.rows) attend<T>(batch, sequence, y, x);
  }
  /// @throws TrainingError for a sequence with a cache, before anything is appended to it.
  template <class = OnDemand>
  static void check_recorded(const BatchView& batch) {
    for (const Sequence& sequence : batch.sequences)
      if (sequence.cache)
        fail<TrainingError>("training with a cache", "the keys that it holds were made by a pass that is not recorded",
                            "add() the whole sequence to the batch, without the KvCache");
  }
  template <class T>
  void vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& y, std::span<const In<T>> x,
           std::span<const Out<T>> dx) const;

 private:
  template <class T>
  void attend(const BatchView& batch, const Sequence& sequence, Out<T> y, std::span<const In<T>> x) const {
    const In<T> q = rows_of(x[0], sequence.begin, sequence.rows);
    In<T> k = rows_of(x[1], sequence.begin, sequence.rows), v = rows_of(x[2], sequence.begin, sequence.rows);
    if (sequence.cache) {
      const auto all = sequence.cache.as<T>().append(options.layer, sequence.position, k, v);
      new (&k) In<T>(all.first);
      new (&v) In<T>(all.second);
    } else if (sequence.position != 0) {
      fail<CacheError>("a sequence starts at position " + std::to_string(sequence.position) + " without a cache",
                       "the keys of the earlier positions are missing", "add() it with the KvCache that holds them");
    }
    const kernels::AttentionShape shape{.rows = q.rows(), .keys = k.rows(), .heads = options.heads, .kv_heads = options.kv_heads,
                                        .head_dim = q.cols() / options.heads, .causal = options.causal,
                                        .offset = k.rows() - q.rows(), .scale = options.scale};
    const double work = 2 * double(shape.rows) * double(shape.keys) * double(q.cols());
    const auto attend_heads = [&](const kernels::AttentionShape& part, Index head, Index kv_head, T* scratch) {
      kernels::attention<T>(part, q.data() + head, q.outerStride(), k.data() + kv_head, k.outerStride(), v.data() + kv_head,
                            v.outerStride(), y.data() + sequence.begin * y.outerStride() + head, y.outerStride(), scratch);
    };
    detail::for_each_head<T>(shape, work, kernels::attention_scratch(shape), batch.workspace, attend_heads);
  }
};

/// The last row of every sequence.
struct Last {
  static constexpr Index tail = 1;
  [[nodiscard]] Index cols(const auto& x) const { return x[0].cols(); }
  template <class T>
  void forward(const BatchView& batch, Out<T> y, std::span<const In<T>> x) const {
    Index next = 0;
    for (const Sequence& sequence : batch.sequences)
      if (sequence.rows) y.row(next++) = x[0].row(sequence.begin + sequence.rows - 1);
  }
  template <class T>
  void vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& y, std::span<const In<T>> x,
           std::span<const Out<T>> dx) const;
};

/// The mean row of every sequence.
struct MeanPool {
  static constexpr Index tail = 1;
  [[nodiscard]] Index cols(const auto& x) const { return x[0].cols(); }
  template <class T>
  void forward(const BatchView& batch, Out<T> y, std::span<const In<T>> x) const {
    Index next = 0;
    for (const Sequence& sequence : batch.sequences) {
      if (!sequence.rows) continue;
      T* to = y.data() + next++ * y.outerStride();
      for (Index c = 0; c < y.cols(); ++c) {
        double sum = 0;
        for (Index i = 0; i < sequence.rows; ++i) sum += double(x[0](sequence.begin + i, c));
        to[c] = T(sum / double(sequence.rows));
      }
    }
  }
  template <class T>
  void vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& y, std::span<const In<T>> x,
           std::span<const Out<T>> dx) const;
};
}  // namespace ops

/// Rotates queries or keys by their positions, which come from the batch.
auto rotary(const auto& x, RotaryOptions options) { return custom(ops::Rotary{options}, x); }
/// softmax(scale · q kᵀ) v, sequence by sequence; with a cache, after the keys and values that it holds.
auto attention(const auto& q, const auto& k, const auto& v, AttentionOptions options) {
  return custom(ops::Attention{options}, q, k, v);
}
/// The last row of each sequence: what the next token is predicted from.
auto last(const auto& x) { return custom(ops::Last{}, x); }
/// The mean over the rows of each sequence.
auto mean_pool(const auto& x) { return custom(ops::MeanPool{}, x); }

}  // namespace graft
