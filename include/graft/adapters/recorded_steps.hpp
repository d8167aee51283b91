#pragma once

#include <span>

#include "dropout.hpp"
#include "joined_update.hpp"
#include "site_steps.hpp"
#include "state_vjp.hpp"

namespace graft::detail {

/// Results as they stood before some steps of adapters, for the backward pass. Of each row as many as its selection wants.
template <class T>
struct KeptResults {
  T* memory = nullptr;
  Index rows = 0, cols = 0;

  [[nodiscard]] Out<T> at(Index slot, Index first, Index count) const {
    return out<T>(memory + (slot * rows + first) * cols, count, cols);
  }
};

/// The steps after the base product as training takes them, one by one: updates see what dropout left of their input, and the
/// results that the backward pass reads are kept.
template <class L, class... As>
class RecordedSteps {
 public:
  using T = layer_scalar<L>;
  using States = StateVjp<L, As...>;
  static constexpr bool acts = true;

  RecordedSteps(const L& layer, const SiteTable* table, const BatchView& batch, const DropoutStream& dropout)
      : layer_(&layer), table_(table), workspace_(batch.workspace), dropout_(dropout) {}
  RecordedSteps keeping(const KeptResults<T>& kept) const {
    RecordedSteps other = *this;
    other.kept_ = kept;
    return other;
  }

  void add_level(unsigned depth, std::span<const Selected> here, const SiteInput<T>& x, Out<T> y, const BaseWeight<T>& base,
                 Index first) const {
    if constexpr (traits_of<L>::kind == LayerKind::linear) {
      JoinedUpdate<T> joined(x, y, base, workspace_);
      add_updates(depth, here, x, y, base, first, [&] { joined.finish(); },
                  [&](const Selected& one) { joined.add(state_of(one), one.weight); });
      joined.finish();
    } else {
      add_updates(depth, here, x, y, base, first, [] {},
                  [&](const Selected& one) { state_of(one).update(x, y, one.weight, base, workspace_); });
    }
    for (const Selected& one : here) {
      if (!is_at(one, depth)) continue;
      keep(here, one, true, y, first);
      state_of(one).after(y, one.weight);
    }
  }

  /// Whether an update sees only a part of its input.
  [[nodiscard]] bool drops(const Selected& one) const {
    return dropout_.active && traits_of<L>::kind != LayerKind::embedding && one.adapter->state && one.adapter->state->dropout() > 0 &&
           one.adapter->state->has_update();
  }
  /// Whether the result before an adapter's update is kept, or before what it does `after` all updates of its level. Of an
  /// update that reads the base and sees a part of its input, the base's product of that part is.
  [[nodiscard]] bool keeps(const Selected& one, bool after) const {
    if (!one.adapter->state) return false;
    if (after) return one.adapter->state->has_factors() && States::after_wants_result(one);
    return one.adapter->state->has_update() && States::update_wants_result(one) && (!drops(one) || one.adapter->state->reads_base());
  }
  /// How many results the rows of a selection keep, and the place of one of them.
  [[nodiscard]] Index count(std::span<const Selected> here) const { return slot_of(here, nullptr, false); }
  [[nodiscard]] Index slot_of(std::span<const Selected> here, const Selected* wanted, bool after) const {
    Index slot = 0;
    for (const Selected& one : here)
      for (const bool is_after : {false, true}) {
        if (&one == wanted && is_after == after) return slot;
        slot += keeps(one, is_after);
      }
    return slot;
  }
  [[nodiscard]] const KeptResults<T>& all_kept() const { return kept_; }
  /// Null data where it was not kept.
  [[nodiscard]] In<T> kept(std::span<const Selected> here, const Selected& one, bool after, Index first, Index rows) const {
    if (!keeps(one, after)) return in<T>(static_cast<const T*>(nullptr), 0, 0);
    return in<T>(kept_.at(slot_of(here, &one, after), first, rows));
  }

  /// Calls f(what an update saw) in the backward pass, with room for gradients where somebody wants those by its input.
  template <class F>
  void with_dropped(std::span<const Selected> here, const Selected& one, const SiteInput<T>& x, Index first, bool wants_dx,
                    const F& f) const {
    with_masked(one, x, first, wants_dx, [&](const SiteInput<T>& seen, Out<T> dx) {
      const Index n = x.rows.rows(), width = width_of_result(x);
      const Scratch<T> d_product(workspace_, wants_dx && one.adapter->state->reads_base() ? n * width : 0);
      f(DroppedInput<T>{seen, kept(here, one, false, first, n), dx, out<T>(d_product.data(), n, width)});
    });
  }
  [[nodiscard]] DropoutMask mask_of(const Selected& one) const {
    return {dropout_, table_->path, one.identity->name, one.adapter->state->dropout()};
  }
  /// Calls f(the layer whose product these rows have): the site's, or an adapter's copy of it.
  template <class F>
  void with_layer(std::span<const Selected> here, const F& f) const {
    for (const Selected& one : here)
      if (one.adapter->copy) return f(copy_of(*layer_, one));
    f(*layer_);
  }

  [[nodiscard]] static const AdapterState<T>& state_of(const Selected& one) {
    return static_cast<const AdapterState<T>&>(*one.adapter->state);
  }
  [[nodiscard]] static bool is_at(const Selected& one, unsigned depth) { return one.adapter->state && one.adapter->depth == depth; }

 private:
  /// Updates of a level; settle() before y must be there as it stands.
  template <class Settle, class Add>
  void add_updates(unsigned depth, std::span<const Selected> here, const SiteInput<T>& x, Out<T> y, const BaseWeight<T>& base,
                   Index first, const Settle& settle, const Add& add) const {
    for (const Selected& one : here) {
      if (!is_at(one, depth) || !one.adapter->state->has_update()) continue;
      if (drops(one) || keeps(one, false)) settle();
      if (drops(one)) {
        add_dropped(here, one, x, y, base, first);
      } else {
        keep(here, one, false, y, first);
        add(one);
      }
    }
  }
  void add_dropped(std::span<const Selected> here, const Selected& one, const SiteInput<T>& x, Out<T> y, const BaseWeight<T>& base,
                   Index first) const {
    with_masked(one, x, first, false, [&](const SiteInput<T>& seen, Out<T> dx) {
      const bool reads = one.adapter->state->reads_base(), is_kept = kept_.memory && keeps(one, false);
      const Index n = y.rows(), width = y.cols();
      const Scratch<T> memory(workspace_, reads && !is_kept ? n * width : 0);
      Out<T> product = is_kept ? kept_.at(slot_of(here, &one, false), first, n) : out<T>(memory.data(), n, width);
      if (reads)
        with_layer(here, [&](const auto& layer) {
          call_base<L, T>(layer, seen, product, workspace_);
          subtract_bias<T>(base_weight_of(layer), facts_of(layer).out, product, workspace_);
        });
      States::update_dropped(one, x, {seen, in<T>(product), dx, out<T>(nullptr, 0, 0)}, y, base, workspace_);
    });
  }
  /// Calls f(x with elements dropped, zeros for its gradient or nothing).
  template <class F>
  void with_masked(const Selected& one, const SiteInput<T>& x, Index first, bool wants_dx, const F& f) const {
    const Index n = x.rows.rows(), width = x.rows.cols(), size = x.rows.size();
    const Scratch<T> memory(workspace_, (wants_dx ? 2 : 1) * size);
    Out<T> rows = out<T>(memory.data(), n, width);
    mask_of(one).template apply<T>(x.rows, first, rows);
    SiteInput<T> seen = x;
    new (&seen.rows) In<T>(in<T>(rows));
    Out<T> dx = out<T>(wants_dx ? memory.data() + size : nullptr, n, width);
    if (wants_dx) dx.setZero();
    f(seen, dx);
  }
  void keep(std::span<const Selected> here, const Selected& one, bool after, const Out<T>& y, Index first) const {
    if (kept_.memory && keeps(one, after)) copy_rows(in<T>(y), kept_.at(slot_of(here, &one, after), first, y.rows()));
  }
  [[nodiscard]] Index width_of_result(const SiteInput<T>& x) const {
    if constexpr (traits_of<L>::kind == LayerKind::conv) return conv_row_shape(facts_of(*layer_).conv, x.row_shape).size();
    else return facts_of(*layer_).out;
  }

  const L* layer_;
  const SiteTable* table_;
  Workspace* workspace_;
  DropoutStream dropout_;
  KeptResults<T> kept_{};
};

}  // namespace graft::detail
