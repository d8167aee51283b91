#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "../core/dtype.hpp"
#include "matrix.hpp"

namespace graft {

/// The keys and values of one sequence, the caller's: attention layers append to it, and must agree.
template <class T = float>
class KvCache {
 public:
  /// Room for `capacity` rows of `kv_features` = kv_heads · head_dim in each of `layers` attention layers.
  KvCache(Index layers, Index kv_features, Index capacity) : capacity_(capacity), layers_(std::size_t(layers)) {
    for (Layer& layer : layers_) {
      layer.keys.resize(capacity, kv_features);
      layer.values.resize(capacity, kv_features);
    }
  }

  [[nodiscard]] Index length() const {
    Index longest = 0;
    for (const Layer& layer : layers_) longest = std::max(longest, layer.rows);
    return longest;
  }
  [[nodiscard]] Index capacity() const { return capacity_; }
  /// Forgets all rows from `length` on: rejected draft tokens, or a pass that threw.
  void truncate(Index length) {
    for (Layer& layer : layers_) layer.rows = std::min(layer.rows, length);
  }

  /// Adds rows of keys and values at `position`; all keys and values of the layer so far.
  /// @throws CacheError when the layer does not exist, is out of step with the position, or is full.
  std::pair<In<T>, In<T>> append(Index layer, Index position, const In<T>& keys, const In<T>& values) {
    if (layer < 0 || layer >= Index(layers_.size()))
      fail<CacheError>("attention has layer number " + std::to_string(layer) + ", the cache was made for " +
                           std::to_string(layers_.size()),
                       "each attention block keeps its keys under its own number",
                       "set AttentionOptions::layer to 0, 1, 2, … as layer_idx in transformers");
    Layer& at = layers_[std::size_t(layer)];
    if (at.rows != position)
      fail<CacheError>("layer " + std::to_string(layer) + " of the cache holds " + std::to_string(at.rows) +
                           " rows, but the sequence stands at position " + std::to_string(position),
                       at.rows > position ? "the batch was used before and not filled again, or two attention "
                                            "blocks share this layer number"
                                          : "an earlier pass stopped halfway",
                       at.rows > position ? "clear() and fill the batch for every pass; number the layers"
                                          : "truncate() the cache to the last good length");
    if (position + keys.rows() > capacity_ || keys.cols() != at.keys.cols())
      fail<CacheError>("keys of shape " + to_string(Shape{keys.rows(), keys.cols()}) + " at position " +
                           std::to_string(position) + " do not fit a cache of " +
                           to_string(Shape{capacity_, at.keys.cols()}),
                       "a cache has a fixed capacity and width", "make it KvCache(layers, kv_heads · head_dim, capacity)");
    at.keys.middleRows(position, keys.rows()) = keys;
    at.values.middleRows(position, keys.rows()) = values;
    at.rows += keys.rows();
    return {in(at.keys.data(), at.rows, at.keys.cols()), in(at.values.data(), at.rows, at.values.cols())};
  }

 private:
  struct Layer {
    Matrix<T> keys, values;
    Index rows = 0;
  };
  Index capacity_;
  std::vector<Layer> layers_;
};

/// A pointer to a `KvCache` of any scalar, or to none.
class AnyKvCache {
 public:
  AnyKvCache() = default;
  AnyKvCache(std::nullptr_t) {}
  template <class T>
  AnyKvCache(KvCache<T>* cache)
      : cache_(cache),
        dtype_(dtype_of<T>),
        length_([](const void* c) { return static_cast<const KvCache<T>*>(c)->length(); }),
        capacity_([](const void* c) { return static_cast<const KvCache<T>*>(c)->capacity(); }) {}

  explicit operator bool() const { return cache_ != nullptr; }
  [[nodiscard]] Index length() const { return cache_ ? length_(cache_) : 0; }
  [[nodiscard]] Index capacity() const { return cache_ ? capacity_(cache_) : 0; }
  [[nodiscard]] bool is(const AnyKvCache& other) const { return cache_ == other.cache_; }
  /// @throws CacheError when the cache was made for another scalar.
  template <class T>
  [[nodiscard]] KvCache<T>& as() const {
    if (dtype_ != dtype_of<T>)
      fail<CacheError>("a cache of another scalar than the activations", "keys are kept as they come",
                       "use KvCache<float> with float activations, KvCache<double> with double");
    return *static_cast<KvCache<T>*>(cache_);
  }

 private:
  void* cache_ = nullptr;
  Dtype dtype_ = Dtype::f32;
  Index (*length_)(const void*) = nullptr;
  Index (*capacity_)(const void*) = nullptr;
};

}  // namespace graft
