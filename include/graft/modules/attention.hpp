#pragma once

#include <algorithm>
#include <span>
#include <string>

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
    constexpr Index most = 128;  // rows of a table: a bounded one
    const Index d = options.head_dim, longest = std::min(most, x[0].rows());
    const Scratch<T> scratch(batch.workspace, kernels::rotary_table_size(longest, d) + d / 2);
    T* const frequencies = scratch.data() + kernels::rotary_table_size(longest, d);
    kernels::rotary_frequencies<T>(d, options.theta, frequencies);
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
        const Index from = sequence.begin + row;
        kernels::rotary<T>(count, y.cols() / d, d, scratch.data() + (first - position) * d, x[0].data() + from * x[0].outerStride(),
                           x[0].outerStride(), y.data() + from * y.outerStride(), y.outerStride());
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
    // heads are apart from one another: pieces of whole key heads, each with its query heads
    const double work = 2 * double(shape.rows) * double(shape.keys) * double(q.cols());
    const Index kv_heads = shape.kv_heads, group = shape.heads / kv_heads, d = shape.head_dim;
    const Index pieces = std::min(detail::pieces_of(batch.workspace, work), kv_heads), each = kernels::attention_scratch(shape);
    const Scratch<T> scratch(batch.workspace, pieces * each);
    detail::for_each_piece(batch.workspace, pieces, [&](Index i) {
      const Index begin = detail::piece_begin(i, pieces, kv_heads, 1), end = detail::piece_begin(i + 1, pieces, kv_heads, 1);
      kernels::AttentionShape part = shape;
      part.kv_heads = end - begin;
      part.heads = part.kv_heads * group;
      kernels::attention<T>(part, q.data() + begin * group * d, q.outerStride(), k.data() + begin * d, k.outerStride(),
                            v.data() + begin * d, v.outerStride(),
                            y.data() + sequence.begin * y.outerStride() + begin * group * d, y.outerStride(),
                            scratch.data() + i * each);
    });
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
