#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "../core/sort.hpp"
#include "../kernels/products.hpp"
#include "../modules/base_weight.hpp"
#include "../modules/embedding.hpp"
#include "adapter.hpp"

namespace graft {

/// Rows of an embedding, or of a linear head, as one adapter trained them: `trainable_token_indices`. They stand in
/// the place of the layer's own rows, and are not added to them; an adapter's strength does not change them.
class TokenRows {
 public:
  /// Room for one row of `width` elements per token id. Of an id that is listed twice the last row counts.
  TokenRows(std::vector<Index> ids, Dtype dtype, Index width)
      : ids_(std::move(ids)), rows_(dtype, Shape{Index(ids_.size()), width}) {
    for (const std::size_t i : sorted_order(ids_.size(), [&](std::size_t a, std::size_t b) { return ids_[a] < ids_[b]; }))
      if (!places_.empty() && id_at(places_.back()) == ids_[i]) places_.back() = Index(i);
      else places_.push_back(Index(i));
  }

  /// As the config lists them: row i is that of token ids()[i].
  [[nodiscard]] const std::vector<Index>& ids() const { return ids_; }
  /// The places of the rows that count, by ascending ids, each id once.
  [[nodiscard]] const std::vector<Index>& places() const { return places_; }
  [[nodiscard]] Index id_at(Index place) const { return ids_[std::size_t(place)]; }
  [[nodiscard]] ParameterData& rows() { return rows_; }
  [[nodiscard]] const ParameterData& rows() const { return rows_; }

  /// Whether both have a row for the same token.
  [[nodiscard]] bool overlaps(const TokenRows& other) const {
    for (auto a = places_.begin(), b = other.places_.begin(); a != places_.end() && b != other.places_.end();) {
      if (id_at(*a) == other.id_at(*b)) return true;
      ++(id_at(*a) < other.id_at(*b) ? a : b);
    }
    return false;
  }
  /// The place of a token's row, or -1.
  [[nodiscard]] Index find(Index id) const {
    const auto place = std::lower_bound(places_.begin(), places_.end(), id, [&](Index one, Index wanted) { return id_at(one) < wanted; });
    return place != places_.end() && id_at(*place) == id ? *place : -1;
  }
  /// The first element of the row at that place. T: the dtype it was made with.
  template <class T>
  [[nodiscard]] const T* row(Index place) const {
    return reinterpret_cast<const T*>(rows_.data()) + place * rows_.shape().cols();
  }

 private:
  std::vector<Index> ids_;
  std::vector<Index> places_;
  ParameterData rows_;
};

namespace detail {

/// An embedding's result y (n, dim): its trained tokens' rows are written over, with what else a lookup does.
template <class T>
void replace_embedded(const TokenRows& tokens, const LayerFacts& facts, const Ids& ids, Out<T> y) {
  for (Index i = 0; i < ids.size(); ++i) {
    const Index place = tokens.find(ids[i]);
    if (place < 0) continue;
    const T* row = tokens.row<T>(place);
    T factor = T(facts.embed_scale);
    if (facts.max_norm) {
      double sum = 0;
      for (Index c = 0; c < y.cols(); ++c) sum += std::pow(std::abs(double(row[c])), facts.norm_type);
      factor *= T(renorm_factor(std::pow(sum, 1 / facts.norm_type), *facts.max_norm));
    }
    for (Index c = 0; c < y.cols(); ++c) y(i, c) = factor * row[c];
  }
}

/// A linear head's result y (n, out): its trained tokens' columns become x·Dᵀ, with the bias that the layer adds.
template <class T>
void replace_logits(const TokenRows& tokens, const BaseWeight<T>& base, const In<T>& x, Out<T> y, Workspace* workspace) {
  const Index count = Index(tokens.ids().size()), n = x.rows(), in = x.cols();
  if (count == 0 || n == 0) return;
  const Scratch<T> logits(workspace, n * count), bias(workspace, base.has_bias() ? y.cols() : 0);
  const Scratch<T> product(workspace, kernels::product_nt_scratch<T, T>(n, in, x.outerStride(), in));
  kernels::product_nt<T, T>(n, count, in, x.data(), x.outerStride(), tokens.row<T>(0), in, nullptr, logits.data(), count, false,
                            product.data());
  if (base.has_bias()) base.copy_bias(bias.data());
  for (Index i = 0; i < n; ++i)
    for (const Index place : tokens.places()) {
      const Index id = tokens.id_at(place);
      y(i, id) = logits.data()[i * count + place] + (base.has_bias() ? bias.data()[id] : T(0));
    }
}

/// Rows [begin, begin + rows.rows()) of a weight: those of trained tokens are written over.
template <class T>
void replace_weight_rows(const TokenRows& tokens, Index begin, Out<T> rows) {
  for (const Index place : tokens.places()) {
    const Index id = tokens.id_at(place);
    if (id >= begin && id < begin + rows.rows()) std::copy_n(tokens.row<T>(place), rows.cols(), &rows(id - begin, 0));
  }
}

}  // namespace detail

}  // namespace graft
