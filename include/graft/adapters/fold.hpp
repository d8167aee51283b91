#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/make_unique_as.hpp"
#include "../core/on_demand.hpp"
#include "../kernels/merge.hpp"
#include "../modules/weight_door.hpp"
#include "content_mark.hpp"
#include "site_table.hpp"

namespace graft::detail {

/// Adapters that are folded into one layer's weight together: the four steps of a forward, on rows of the weight.
class AnyFold {
 public:
  virtual ~AnyFold() = default;
  /// Whether everything would be finite. Changes nothing.
  [[nodiscard]] virtual bool stays_finite() = 0;
  virtual void fold_weight() = 0;
  virtual void fold_bias() = 0;
  /// Takes the sum of the deltas out again. Additive adapters only.
  virtual void subtract() = 0;
  /// The layer's rows of these tokens as they are, and rows written back.
  [[nodiscard]] virtual TokenRows keep_rows(const std::vector<Index>& ids) = 0;
  virtual void write_rows(const TokenRows& kept) = 0;
};

template <class T>
class Fold final : public AnyFold {
 public:
  Fold(WeightDoor<T>& door, std::optional<WeightBound>& bound, const std::vector<const SiteEntry*>& entries, Workspace& workspace,
       bool with_trained_bias)
      : door_(door), bound_(bound), workspace_(workspace) {
    for (const SiteEntry* entry : entries) {
      if (const ParameterData* bias = entry->bias(); bias && with_trained_bias) trained_bias_ = bias;
      if (const TokenRows* tokens = entry->tokens()) tokens_.push_back(tokens);
      if (const AnyAdapterState* state = entry->state())
        states_.push_back({static_cast<const AdapterState<T>*>(state), entry->record->strength(), entry->depth()});
    }
    for (const Weighted& one : states_) deepest_ = std::max(deepest_, one.depth);
    for (const Weighted& one : states_) {
      is_additive_ = is_additive_ && one.state->is_additive();
      reads_base_ = reads_base_ || one.state->reads_base();
    }
  }

  [[nodiscard]] bool stays_finite() override {
    bool all = true;
    if (changes_weight() && (!tokens_.empty() || !is_bounded()))
      for_each_block([&](Index begin, Out<T> rows) {
        make_rows(begin, rows);
        all = all && door_.stay_finite(rows.data(), rows.size());
        return all;
      });
    const std::vector<T> bias = folded_bias();
    for (const T value : bias) all = all && std::isfinite(value);
    return all;
  }

  void fold_weight() override {
    if (!changes_weight()) return;
    if (states_.empty()) {  // tokens alone: no other row is touched
      for (const TokenRows* tokens : tokens_) write_rows(*tokens);
      return;
    }
    if (is_additive_ && tokens_.empty()) return add(1);
    if (!reads_base_) {
      for_each_block([&](Index begin, Out<T> rows) {
        make_rows(begin, rows);
        door_.write_rows(begin, in<T>(rows));
        return true;
      });
      return;
    }
    // an adapter may ask for any row of the base: no row is written before the last was made
    const Shape shape = door_.base().shape();
    Matrix<T> whole(shape[0], shape[1]);
    make_rows(0, out(whole));
    door_.write_rows(0, in<T>(whole));
  }
  void subtract() override {
    if (!states_.empty()) add(-1);
  }
  [[nodiscard]] TokenRows keep_rows(const std::vector<Index>& ids) override {
    const Index width = door_.base().shape()[1];
    TokenRows kept(ids, dtype_of<T>, width);
    kept.rows().allocate();
    for (const Index place : kept.places())
      door_.base().copy_rows(kept.id_at(place), out(reinterpret_cast<T*>(kept.rows().data()) + place * width, 1, width));
    return kept;
  }
  void write_rows(const TokenRows& kept) override {
    for (const Index place : kept.places())
      door_.write_rows(kept.id_at(place), in<T>(kept.row<T>(place), 1, kept.rows().shape().cols()));
  }
  void fold_bias() override {
    const std::vector<T> bias = folded_bias();
    if (!bias.empty()) door_.write_bias(bias.data());
  }

 private:
  struct Weighted {
    const AdapterState<T>* state;
    double weight;
    unsigned depth;
  };
  /// Calls f(an adapter) as a forward does: from the innermost level out, on each what adds before what scales.
  template <class F>
  void for_each_step(F f) {
    for (unsigned depth = deepest_ + 1; depth-- > 0;) {
      for (const Weighted& one : states_)
        if (one.depth == depth && one.state->has_update()) f(one, false);
      for (const Weighted& one : states_)
        if (one.depth == depth && one.state->has_factors()) f(one, true);
    }
  }

  [[nodiscard]] bool changes_weight() const { return !states_.empty() || !tokens_.empty(); }

  // The deltas' sum is made from zero and added once, so that what is subtracted later is the same number; to a
  // single delta the adapter's own kernel does that in place.
  void add(double sign) {
    const bool is_known = bound_ && door_.base().version() == bound_->version;
    add_everywhere(sign);
    if (is_known) bound_ = WeightBound{*door_.base().version(), bound_->largest + delta_bound()};
  }
  void add_everywhere(double sign) {
    const Shape shape = door_.base().shape();
    T* data = door_.data();
    if (data && states_.size() == 1) {
      states_[0].state->add_delta(0, out(data, shape[0], shape[1]), sign * states_[0].weight, &workspace_);
      return;
    }
    for_each_block([&](Index begin, Out<T> rows) {
      make_delta(begin, rows, sign);
      if (data) {
        out(data + begin * shape[1], rows.rows(), rows.cols()) += rows;
        return true;
      }
      const Scratch<T> memory(&workspace_, rows.size());
      Out<T> sum = out(memory.data(), rows.rows(), rows.cols());
      door_.base().copy_rows(begin, sum);
      sum += rows;
      door_.write_rows(begin, in<T>(sum));
      return true;
    });
  }
  [[nodiscard]] double delta_bound() const {
    double sum = 0;
    for (const Weighted& one : states_) sum += one.state->delta_bound(one.weight);
    return sum;
  }
  /// Whether the sum is finite for sure: the weight is looked at once, and not again while nobody writes it.
  [[nodiscard]] bool is_bounded() {
    if (!is_additive_) return false;
    const BaseWeight<T> base = door_.base();
    const double delta = delta_bound();
    constexpr double most = double(std::numeric_limits<T>::max()) / 4;  // far from any rounding
    if (!(delta < most) || !base.data()) return false;
    if (!bound_ || base.version() != bound_->version)
      bound_ = WeightBound{base.version().value_or(0), double(kernels::largest_magnitude<T>(base.shape().size(), base.data()))};
    const double largest = bound_->largest;
    if (!base.version()) bound_.reset();
    return largest + delta < most;
  }
  void make_delta(Index begin, Out<T> rows, double sign) {
    rows.setZero();
    for (const Weighted& one : states_) one.state->add_delta(begin, rows, sign * one.weight, &workspace_);
  }
  void make_rows(Index begin, Out<T> rows) {
    const BaseWeight<T> base = door_.base();
    if (is_additive_) {
      make_delta(begin, rows, 1);
      const Scratch<T> memory(&workspace_, rows.size());
      Out<T> before = out(memory.data(), rows.rows(), rows.cols());
      base.copy_rows(begin, before);
      for (const TokenRows* tokens : tokens_) replace_weight_rows<T>(*tokens, begin, before);
      rows += before;
      return;
    }
    base.copy_rows(begin, rows);
    for (const TokenRows* tokens : tokens_) replace_weight_rows<T>(*tokens, begin, rows);
    const WeightRows<T> w{begin, rows, base, &workspace_};
    for_each_step([&](const Weighted& one, bool scales) {
      if (scales) one.state->fold_factors(w, one.weight);
      else one.state->fold_update(w, one.weight);
    });
  }

  /// Calls f(begin, rows) with scratch for some rows at a time, until it says no.
  template <class F>
  void for_each_block(F f) {
    const Shape shape = door_.base().shape();
    const Index most = std::min(shape[0], std::max<Index>(12, 65536 / std::max<Index>(shape[1], 1) / 12 * 12));
    const Scratch<T> memory(&workspace_, most * shape[1]);
    for (Index begin = 0; begin < shape[0]; begin += most) {
      const Index count = std::min(most, shape[0] - begin);
      if (!f(begin, out(memory.data(), count, shape[1]))) return;
    }
  }

  /// Empty where the bias stays as it is.
  [[nodiscard]] std::vector<T> folded_bias() {
    const BaseWeight<T> base = door_.base().with_bias(trained_bias_);
    bool changes = trained_bias_ != nullptr, needs = false;
    for (const Weighted& one : states_) {
      changes = changes || one.state->folds_bias();
      needs = needs || one.state->needs_bias();
    }
    if (!changes || !(needs || base.has_bias())) return {};
    std::vector<T> bias(std::size_t(trained_bias_ ? trained_bias_->shape().size() : base.shape()[0]));
    if (base.has_bias()) base.copy_bias(bias.data());
    for_each_step([&](const Weighted& one, bool) { one.state->fold_bias(bias.data(), one.weight, base); });
    return bias;
  }

  WeightDoor<T>& door_;
  std::optional<WeightBound>& bound_;
  std::vector<Weighted> states_;
  std::vector<const TokenRows*> tokens_;
  const ParameterData* trained_bias_ = nullptr;
  unsigned deepest_ = 0;
  bool is_additive_ = true, reads_base_ = false;
  Workspace& workspace_;
};

/// `bound`: what is known of the weight, and will be. `workspace`: what the layers of a model share, one after the other.
template <class = OnDemand>
[[nodiscard]] std::unique_ptr<AnyFold> make_fold(AnyWeightDoor& door, Dtype activations, std::optional<WeightBound>& bound,
                                                 const std::vector<const SiteEntry*>& entries, Workspace& workspace,
                                                 bool with_trained_bias = true) {
  if (activations == Dtype::f64)
    return make_unique_as<AnyFold, Fold<double>>(static_cast<WeightDoor<double>&>(door), bound, entries, workspace, with_trained_bias);
  return make_unique_as<AnyFold, Fold<float>>(static_cast<WeightDoor<float>&>(door), bound, entries, workspace, with_trained_bias);
}
GRAFT_SHARED_FUNCTION(make_fold<>)

/// Tells whether an adapter's parameters are the ones that they were.
template <class = OnDemand>
[[nodiscard]] std::uint64_t mark_of(AnyAdapterState& state) {
  std::uint64_t mark = 0;
  for (const AdapterParameter& parameter : state.parameters())
    mark = (mark ^ content_mark(*parameter.data)) * 0x2545F4914F6CDD1Du;
  return mark;
}
GRAFT_SHARED_FUNCTION(mark_of<>)

}  // namespace graft::detail
