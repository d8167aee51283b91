#pragma once

#include <algorithm>
#include <concepts>
#include <memory>
#include <span>
#include <type_traits>

#include "../modules/base_weight.hpp"
#include "../modules/layer_call.hpp"
#include "../modules/packed_projection.hpp"
#include "../modules/parameter_layer.hpp"
#include "joined_update.hpp"
#include "selected.hpp"

namespace graft::detail {

template <class L>
class ModuleCopy final : public AnyModuleCopy {
 public:
  explicit ModuleCopy(const L& original) : layer(original) {}
  [[nodiscard]] std::unique_ptr<AnyModuleCopy> clone() const override {
    if constexpr (std::copy_constructible<L>) return make_unique_as<AnyModuleCopy, ModuleCopy>(layer);
    else return nullptr;  // never made: only a layer that can be copied has copies
  }
  L layer;
};

/// The base product of any layer, from views into views. `Axes` spatial axes at a convolution, 0 where they are not known.
template <class L, class T, int Axes = 0>
void call_base(const L& layer, const SiteInput<T>& x, Out<T> y, Workspace* workspace) {
  constexpr LayerKind kind = traits_of<L>::kind;
  if constexpr (kind == LayerKind::linear || kind == LayerKind::norm) call_linear<L, T>(layer, x.rows, y, workspace);
  else if constexpr (kind == LayerKind::embedding) call_embedding<L, T>(layer, x.ids, y, workspace);
  else if constexpr (kind == LayerKind::parameter) call_parameter<L, T>(layer, x.rows, x.experts, y, workspace);
  else call_conv<L, T, Axes>(layer, x.rows, x.row_shape, y, workspace);
}

/// A site's forward: four steps per segment (before, base, update, after), of which each adapter takes its own.
/// `Axes`: of the tensor that came in, 0 where it was Rows, whose shape is known only at run time.
template <class L, int Axes = 0, class T = layer_scalar<L>>
class SiteForward {
 public:
  SiteForward(const L& layer, const SiteTable* table, const BatchView& batch)
      : layer_(layer), batch_(batch), selected_(table, batch) {
    selected_.for_each_selection([&](const Segment&, std::span<const Selected> here) { inspect(*table, here); });
  }

  /// y becomes the result for x.
  void run(const SiteInput<T>& x, Out<T> y) const {
    if (selected_.empty()) return call_base<L, T, Axes>(layer_, x, y, batch_.workspace);
    if (has_one_update(y)) {
      call_base<L, T, Axes>(layer_, x, y, batch_.workspace);
      return add_level(selected_.all()[0].adapter->depth, selected_.all(), x, y, base_weight_of(layer_));
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
  decltype(auto) copy_of(const Selected& one) const {
    if constexpr (is_projection_slice<L>) {
      using P = std::remove_cvref_t<decltype(*layer_.whole)>;
      return L{&static_cast<const ModuleCopy<P>&>(*one.adapter->copy).layer, layer_.begin, layer_.count};
    } else {
      return (static_cast<const ModuleCopy<L>&>(*one.adapter->copy).layer);
    }
  }

  /// Whether all rows want one adapter, which acts on their results alone: a small layer would feel the way through all steps.
  [[nodiscard]] bool has_one_update(const Out<T>& y) const {
    const std::span<const Selected> all = selected_.all();
    if (all.size() != 1 || any_before_ || all[0].segment->rows != y.rows()) return false;
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

  /// What one level of nesting adds and scales, in y where the levels inside of it stand.
  void add_level(unsigned depth, std::span<const Selected> here, const SiteInput<T>& x, Out<T> y, const BaseWeight<T>& base) const {
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
                  const BaseWeight<T>& base) const {
    unsigned deepest = 0, deepest_before = 0;
    for (const Selected& one : here) {
      if (!one.adapter->state) continue;
      deepest = std::max(deepest, one.adapter->depth);
      if (state_of(one).acts_before()) deepest_before = std::max(deepest_before, one.adapter->depth);
    }
    for (unsigned depth = deepest + 1; depth-- > 0;) {
      if (depth >= deepest_before) {
        add_level(depth, here, seen, y, base);
        continue;
      }
      const Scratch<T> memory(batch_.workspace, x.rows.size());
      Out<T> copy = out<T>(memory.data(), x.rows.rows(), x.rows.cols());
      copy_rows(x.rows, copy);
      for (const Selected& one : here)
        if (one.adapter->state && one.adapter->depth <= depth && state_of(one).acts_before()) state_of(one).before(copy, one.weight);
      SiteInput<T> outside = x;
      new (&outside.rows) In<T>(in<T>(copy));
      add_level(depth, here, outside, y, base);
    }
  }

  /// The steps after the base product, for rows of one selection: `whole` came in, `seen` is that after all steps
  /// before the base product, which stands in `rows`.
  void add(const SiteInput<T>& whole, const SiteInput<T>& seen, Out<T> rows, std::span<const Selected> here) const {
    BaseWeight<T> base = base_weight_of(layer_);
    bool is_replaced = false;
    for (const Selected& one : here)
      if (one.adapter->copy) {
        call_base<L, T, Axes>(copy_of(one), seen, rows, batch_.workspace);
        base = base_weight_of(copy_of(one)).without_version();  // another adapter's layer, and not always this one
        is_replaced = true;
      }
    for (const Selected& one : here)
      if (one.adapter->tokens) replace_tokens(*one.adapter->tokens, seen, rows, base);
    for (const Selected& one : here)
      if (one.adapter->bias && !is_replaced) {  // a copy has a bias of its own
        exchange_bias(rows, *one.adapter->bias);
        base = base.with_bias(one.adapter->bias.get());
      }
    add_levels(here, whole, seen, rows, base);
  }

  void finish(const SiteInput<T>& whole, const SiteInput<T>& x, Out<T> y) const {
    selected_.for_each_selection([&](const Segment& leader, std::span<const Selected> here) {
      if (whole.rows.data() == x.rows.data() && is_worth_gathering(leader, x, here)) return gather(leader, x, y, here);
      if (leader.rows == y.rows()) return add(whole, x, y, here);
      for_each_part(leader, [&](const Segment& part) {
        add(whole.part(part.begin, part.rows), x.part(part.begin, part.rows), rows_of(y, part.begin, part.rows), here);
      });
    });
  }

  /// Whether parts of a selection are so short that reading its matrices for each would cost more than moving rows.
  static bool is_worth_gathering(const Segment& leader, const SiteInput<T>& x, std::span<const Selected> here) {
    constexpr Index many = 16;  // rows that pay for the matrices once
    if (!leader.next || !x.rows.data() || leader.rows >= many || x.experts.is_by_row()) return false;
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
    add(seen, seen, to, here);
    at = 0;
    for_each_part(leader, [&](const Segment& part) {
      copy_rows(in<T>(rows_of(to, at, part.rows)), rows_of(y, part.begin, part.rows));
      at += part.rows;
    });
  }

  void replace_tokens(const TokenRows& tokens, const SiteInput<T>& x, Out<T> y, const BaseWeight<T>& base) const {
    if constexpr (traits_of<L>::kind == LayerKind::embedding) replace_embedded<T>(tokens, facts_of(layer_), x.ids, y);
    else if constexpr (traits_of<L>::kind == LayerKind::linear) replace_logits<T>(tokens, base, x.rows, y, batch_.workspace);
  }

  // The product keeps its bits and its bias; the difference is added.
  void exchange_bias(Out<T> rows, const ParameterData& trained) const {
    with_bias(layer_, [&](const auto& bias) {
      const Index channels = Index(bias.size()), positions = rows.cols() / channels;
      for (Index i = 0; i < rows.rows(); ++i)
        for (Index c = 0; c < channels; ++c) {
          const T difference =
              element_as<T>(trained.dtype(), trained.data(), std::size_t(c)) - T(float_or_double(bias.coeff(c)));
          // a convolution's channels are each in one piece; a norm's features repeat with every head
          for (Index p = 0; p < positions; ++p)
            rows(i, traits_of<L>::kind == LayerKind::norm ? p * channels + c : c * positions + p) += difference;
        }
    });
  }
  template <class S>
  static auto float_or_double(S value) {
    if constexpr (std::is_floating_point_v<S>) return value;
    else return float(value);
  }

  static SiteInput<T> part_of(const SiteInput<T>& x, const Out<T>& copy, const Segment& segment) {
    SiteInput<T> part = x;
    part.experts = x.experts.part(segment.begin, segment.rows);
    new (&part.rows) In<T>(in<T>(rows_of(copy, segment.begin, segment.rows)));
    return part;
  }

  const L& layer_;
  const BatchView& batch_;
  SelectedAdapters selected_;
  bool any_before_ = false, any_copy_ = false;
};

}  // namespace graft::detail
