#pragma once

#include <algorithm>
#include <concepts>
#include <memory>
#include <span>
#include <type_traits>

#include "joined_update.hpp"
#include "selected.hpp"
#include "site_steps.hpp"

namespace graft::detail {

/// Nobody lets the adapters act in another way: what training does, to drop elements and to keep results.
struct Unwatched {
  static constexpr bool acts = false;
};

/// A site's forward: four steps per segment (before, base, update, after), of which each adapter takes its own.
/// `Axes`: of the tensor that came in, 0 where it was Rows, whose shape is known only at run time. A `Watch` that acts is
/// asked for what a level of nesting adds and scales.
template <class L, int Axes = 0, class T = layer_scalar<L>, class Watch = Unwatched>
class SiteForward {
 public:
  /// `selected`: what the batch wants at the site.
  SiteForward(const L& layer, const SelectedAdapters& selected, const BatchView& batch, const Watch& watch = {})
      : layer_(layer), batch_(batch), selected_(selected), watch_(watch) {
    selected_.for_each_selection([&](const Segment&, std::span<const Selected> here) { inspect(*selected_.table(), here); });
  }

  /// y becomes the result for x.
  void run(const SiteInput<T>& x, Out<T> y) const {
    if (selected_.empty()) return call_base<L, T, Axes>(layer_, x, y, batch_.workspace);
    if (has_one_update(y)) {
      call_base<L, T, Axes>(layer_, x, y, batch_.workspace);
      return add_level(selected_.all()[0].adapter->depth, selected_.all(), x, y, base_weight_of(layer_), 0);
    }
    with_steps_before(x, [](const Segment&, const Out<T>&) {}, [&](const SiteInput<T>& seen) {
      // one product for all rows, so that base rows keep the bits that they have without adapters
      if (!(any_copy_ && batch_.segments.size() == 1)) call_base<L, T, Axes>(layer_, seen, y, batch_.workspace);
      finish(x, seen, y);
    });
  }

  /// y holds the base product of x already: adds the adapters, anew where one acts before or replaces it.
  void update(const SiteInput<T>& x, Out<T> y) const {
    if (selected_.empty()) return;
    const auto compute_anew = [&](const Segment& segment, const Out<T>& copy) {
      for_each_part(segment, [&](const Segment& part) {
        call_base<L, T, Axes>(layer_, part_of(x, copy, part), rows_of(y, part.begin, part.rows), batch_.workspace);
      });
    };
    with_steps_before(x, compute_anew, [&](const SiteInput<T>& seen) { finish(x, seen, y); });
  }

 private:
  static const AdapterState<T>& state_of(const Selected& one) {
    return static_cast<const AdapterState<T>&>(*one.adapter->state);
  }

  /// Whether all rows want one adapter, which acts on their results alone: a small layer would feel the way through all steps.
  [[nodiscard]] bool has_one_update(const Out<T>& y) const {
    const std::span<const Selected> all = selected_.all();
    if (Watch::acts || all.size() != 1 || any_before_ || all[0].segment->rows != y.rows()) return false;
    const SiteAdapter& only = *all[0].adapter;
    return only.state && !only.copy && !only.tokens && !only.bias;
  }

  /// Calls then(x after all steps before the base product), and before it changed(segment, x) for what they changed.
  template <class Changed, class Then>
  void with_steps_before(const SiteInput<T>& x, const Changed& changed, const Then& then) const {
    if (!any_before_) return then(x);
    const Scratch<T> memory(batch_.workspace, x.rows.size());
    Out<T> copy = out<T>(memory.data(), x.rows.rows(), x.rows.cols());
    copy_rows(x.rows, copy);
    selected_.for_each_selection([&](const Segment& segment, std::span<const Selected> here) {
      if (before(segment, here, copy)) changed(segment, copy);
    });
    SiteInput<T> seen = x;
    new (&seen.rows) In<T>(in<T>(copy));
    then(seen);
  }

  void inspect(const SiteTable& table, std::span<const Selected> here) {
    int copies = 0;
    for (std::size_t i = 0; i < here.size(); ++i) {
      const Selected& one = here[i];
      copies += one.adapter->copy != nullptr;
      if (one.adapter->bias && one.adapter->bias->is_meta()) adapter_is_meta(one.identity->name, table.path);
      if (one.adapter->tokens) check_tokens(table, one, here.first(i));
      if (!one.adapter->state) continue;
      if (one.adapter->state->is_meta()) adapter_is_meta(one.identity->name, table.path);
      any_before_ |= state_of(one).acts_before();
    }
    any_copy_ |= copies > 0;
    if (copies > 1)
      fail<AdapterError>("two adapters want their own copy of '" + table.path + "' for the same rows",
                         "modules_to_save replaces a module, and it can be replaced only once",
                         "select adapters whose modules_to_save do not overlap");
  }

  static void check_tokens(const SiteTable& table, const Selected& one, std::span<const Selected> others) {
    const TokenRows& tokens = *one.adapter->tokens;
    if (tokens.rows().is_meta()) adapter_is_meta(one.identity->name, table.path);
    for (const Selected& other : others)
      if (other.adapter->tokens && other.adapter->tokens->overlaps(tokens))
        tokens_overlap(table.path, other.identity->name, one.identity->name);
  }

  /// Calls f(segment) for every segment of a chain.
  template <class F>
  void for_each_part(const Segment& leader, F f) const {
    for (const Segment* part = &leader;; part = &batch_.segments[part->next]) {
      f(*part);
      if (!part->next) return;
    }
  }

  bool before(const Segment& leader, std::span<const Selected> here, const Out<T>& copy) const {
    bool has_acted = false;
    for (const Selected& one : here) {
      if (!one.adapter->state || !state_of(one).acts_before()) continue;
      for_each_part(leader, [&](const Segment& part) { state_of(one).before(rows_of(copy, part.begin, part.rows), one.weight); });
      has_acted = true;
    }
    return has_acted;
  }

  /// What one level of nesting adds and scales, in y where the levels inside of it stand. `first`: y's first row in the batch.
  void add_level(unsigned depth, std::span<const Selected> here, const SiteInput<T>& x, Out<T> y, const BaseWeight<T>& base,
                 [[maybe_unused]] Index first) const {
    if constexpr (Watch::acts) return watch_.add_level(depth, here, x, y, base, first);
    const auto for_each_state = [&](const auto& f) {
      for (const Selected& one : here)
        if (one.adapter->state && one.adapter->depth == depth) f(state_of(one), one.weight);
    };
    if constexpr (traits_of<L>::kind == LayerKind::linear) {
      JoinedUpdate<T> joined(x, y, base, batch_.workspace);
      for_each_state([&](const AdapterState<T>& state, double weight) { joined.add(state, weight); });
      joined.finish();
    } else {
      for_each_state([&](const AdapterState<T>& state, double weight) { state.update(x, y, weight, base, batch_.workspace); });
    }
    for_each_state([&](const AdapterState<T>& state, double weight) { state.after(y, weight); });
  }
  /// Where methods are nested, those inside make the base of those outside, which do not see how they scale the input.
  void add_levels(std::span<const Selected> here, const SiteInput<T>& x, const SiteInput<T>& seen, Out<T> y,
                  const BaseWeight<T>& base, Index first) const {
    unsigned deepest = 0, deepest_before = 0;
    for (const Selected& one : here) {
      if (!one.adapter->state) continue;
      deepest = std::max(deepest, one.adapter->depth);
      if (state_of(one).acts_before()) deepest_before = std::max(deepest_before, one.adapter->depth);
    }
    for (unsigned depth = deepest + 1; depth-- > 0;) {
      if (depth >= deepest_before) {
        add_level(depth, here, seen, y, base, first);
        continue;
      }
      const Scratch<T> memory(batch_.workspace, x.rows.size());
      Out<T> copy = out<T>(memory.data(), x.rows.rows(), x.rows.cols());
      copy_rows(x.rows, copy);
      for (const Selected& one : here)
        if (one.adapter->state && one.adapter->depth <= depth && state_of(one).acts_before()) state_of(one).before(copy, one.weight);
      SiteInput<T> outside = x;
      new (&outside.rows) In<T>(in<T>(copy));
      add_level(depth, here, outside, y, base, first);
    }
  }

  /// The steps after the base product, for rows of one selection: `whole` came in, `seen` is that after all steps
  /// before the base product, which stands in `rows`, the first of which is `first` in the batch.
  void add(const SiteInput<T>& whole, const SiteInput<T>& seen, Out<T> rows, std::span<const Selected> here, Index first) const {
    BaseWeight<T> base = base_weight_of(layer_);
    bool is_replaced = false;
    for (const Selected& one : here)
      if (one.adapter->copy) {
        decltype(auto) copy = copy_of(layer_, one);
        call_base<L, T, Axes>(copy, seen, rows, batch_.workspace);
        base = base_weight_of(copy).without_version();  // another adapter's layer, and not always this one
        is_replaced = true;
      }
    for (const Selected& one : here)
      if (one.adapter->tokens) replace_tokens(layer_, *one.adapter->tokens, seen, rows, base, batch_.workspace);
    for (const Selected& one : here)
      if (one.adapter->bias && !is_replaced && !is_again(here, one)) {  // a copy has a bias of its own
        exchange_bias(layer_, rows, *one.adapter->bias);
        base = base.with_bias(one.adapter->bias.get());
      }
    add_levels(here, whole, seen, rows, base, first);
  }

  void finish(const SiteInput<T>& whole, const SiteInput<T>& x, Out<T> y) const {
    selected_.for_each_selection([&](const Segment& leader, std::span<const Selected> here) {
      if (whole.rows.data() == x.rows.data() && is_worth_gathering(leader, x, here)) return gather(leader, x, y, here);
      if (leader.rows == y.rows()) return add(whole, x, y, here, 0);
      for_each_part(leader, [&](const Segment& part) {
        add(whole.part(part.begin, part.rows), x.part(part.begin, part.rows), rows_of(y, part.begin, part.rows), here, part.begin);
      });
    });
  }

  /// Whether parts of a selection are so short that reading its matrices for each would cost more than moving rows.
  static bool is_worth_gathering(const Segment& leader, const SiteInput<T>& x, std::span<const Selected> here) {
    constexpr Index many = 16;  // rows that pay for the matrices once
    if (Watch::acts || !leader.next || !x.rows.data() || leader.rows >= many || x.experts.is_by_row()) return false;
    return std::any_of(here.begin(), here.end(), [](const Selected& one) {
      return one.adapter->copy || (one.adapter->state && one.adapter->state->has_update());
    });
  }

  /// Rows of one selection that stand apart, side by side for the call: no row has other bits for it.
  void gather(const Segment& leader, const SiteInput<T>& x, Out<T> y, std::span<const Selected> here) const {
    const Index in_width = x.rows.cols(), out_width = y.cols();
    const Scratch<T> memory(batch_.workspace, leader.chain_rows * (in_width + out_width));
    Out<T> from = out<T>(memory.data(), leader.chain_rows, in_width);
    Out<T> to = out<T>(memory.data() + leader.chain_rows * in_width, leader.chain_rows, out_width);
    Index at = 0;
    for_each_part(leader, [&](const Segment& part) {
      copy_rows(rows_of(x.rows, part.begin, part.rows), rows_of(from, at, part.rows));
      copy_rows(in<T>(rows_of(y, part.begin, part.rows)), rows_of(to, at, part.rows));
      at += part.rows;
    });
    SiteInput<T> seen = x;
    new (&seen.rows) In<T>(in<T>(from));
    add(seen, seen, to, here, 0);
    at = 0;
    for_each_part(leader, [&](const Segment& part) {
      copy_rows(in<T>(rows_of(to, at, part.rows)), rows_of(y, part.begin, part.rows));
      at += part.rows;
    });
  }

  static SiteInput<T> part_of(const SiteInput<T>& x, const Out<T>& copy, const Segment& segment) {
    SiteInput<T> part = x;
    part.experts = x.experts.part(segment.begin, segment.rows);
    new (&part.rows) In<T>(in<T>(rows_of(copy, segment.begin, segment.rows)));
    return part;
  }

  const L& layer_;
  const BatchView& batch_;
  const SelectedAdapters& selected_;
  [[no_unique_address]] Watch watch_;
  bool any_before_ = false, any_copy_ = false;
};

}  // namespace graft::detail
