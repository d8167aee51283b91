#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "base_vjp.hpp"
#include "recorded_steps.hpp"
#include "token_rows_vjp.hpp"

namespace graft::detail {

/// The backward pass of a site: the steps of each selection in reverse, and the vjp of the base product for all rows that
/// share it together.
template <class L, class... As>
class SiteBackward {
 public:
  using T = layer_scalar<L>;
  using Steps = RecordedSteps<L, As...>;
  using States = StateVjp<L, As...>;

  /// `steps`: those of the forward, with what they kept.
  SiteBackward(const L& layer, const BatchView& batch, const SelectedAdapters& selected, const Steps& steps, Gradients& gradients)
      : layer_(layer), batch_(batch), selected_(selected), steps_(steps), gradients_(gradients) {}

  void run(const SiteInput<T>& x, Out<T> dy, Out<T> dx) {
    const Index segments = Index(batch_.segments.size());
    const Scratch<bool> is_done(workspace(), segments);
    std::fill_n(is_done.data(), segments, false);
    selected_.for_each_selection([&](const Segment& leader, std::span<const Selected> here) {
      const bool together = is_worth_gathering(leader, here, x), is_whole_done = together && gathered_vjp(leader, here, x, dy, dx);
      for_each_part(leader, [&](const Segment& part, Index) {
        is_done.data()[&part - batch_.segments.data()] = together ? is_whole_done : part_vjp(part.begin, part.rows, here, x, dy, dx);
      });
    });
    share_base(is_done.data(), x, dy, dx);
  }

 private:
  /// Calls f(segment, how many rows stand before it) for every segment of a chain.
  template <class F>
  void for_each_part(const Segment& leader, const F& f) const {
    Index before = 0;
    for (const Segment* part = &leader;; part = &batch_.segments[part->next]) {
      f(*part, before);
      if (!part->next) return;
      before += part->rows;
    }
  }
  /// Whether the parts of a selection go back together: where they are so short that reading its matrices for each would cost
  /// more than moving rows, and where a look-up's share of a gradient depends on how many they are, as it does in torch.
  [[nodiscard]] bool is_worth_gathering(const Segment& leader, std::span<const Selected> here, const SiteInput<T>& x) const {
    constexpr Index many = 16;  // rows that pay for the matrices once
    constexpr LayerKind kind = traits_of<L>::kind;
    if (!leader.next) return false;
    if (kind == LayerKind::embedding) return facts_of(layer_).scale_grad_by_freq;
    if (kind != LayerKind::linear || leader.rows >= many || x.experts.is_by_row()) return false;
    // what was dropped is known by a row's place
    return std::any_of(here.begin(), here.end(), [](const Selected& one) { return one.adapter->state && one.adapter->state->has_update(); }) &&
           std::none_of(here.begin(), here.end(), [&](const Selected& one) { return steps_.drops(one); });
  }
  /// part_vjp of a selection's rows side by side.
  bool gathered_vjp(const Segment& leader, std::span<const Selected> here, const SiteInput<T>& x, const Out<T>& dy, const Out<T>& dx) {
    const Index n = leader.chain_rows, in_width = x.rows.cols(), out_width = dy.cols(), results = steps_.count(here);
    const Scratch<T> memory(workspace(), n * (2 * in_width + (1 + results) * out_width));
    const Scratch<std::int64_t> id_memory(workspace(), x.rows.data() ? 0 : n);
    const Out<T> rows = out<T>(memory.data(), n, in_width), g = out<T>(memory.data() + 2 * rows.size(), n, out_width);
    Out<T> d_rows = dx.data() ? out<T>(memory.data() + rows.size(), n, in_width) : nowhere();
    d_rows.setZero();
    const KeptResults<T> kept{memory.data() + 2 * rows.size() + g.size(), n, out_width};
    for_each_part(leader, [&](const Segment& part, Index at) {
      copy_rows(in<T>(rows_of(dy, part.begin, part.rows)), rows_of(g, at, part.rows));
      for (Index slot = 0; slot < results; ++slot)
        copy_rows(in<T>(steps_.all_kept().at(slot, part.begin, part.rows)), kept.at(slot, at, part.rows));
      if (x.rows.data()) copy_rows(rows_of(x.rows, part.begin, part.rows), rows_of(rows, at, part.rows));
      else
        for (Index i = 0; i < part.rows; ++i) id_memory.data()[at + i] = x.ids[part.begin + i];
    });
    SiteInput<T> seen = x;
    if (x.rows.data()) new (&seen.rows) In<T>(in<T>(rows));
    else seen.ids = Ids(std::span<const std::int64_t>(id_memory.data(), std::size_t(n)));
    const Steps steps = steps_.keeping(kept);
    const bool is_done = SiteBackward(layer_, batch_, selected_, steps, gradients_).part_vjp(0, n, here, seen, g, d_rows);
    for_each_part(leader, [&](const Segment& part, Index at) {
      copy_rows(in<T>(rows_of(g, at, part.rows)), rows_of(dy, part.begin, part.rows));
      if (dx.data()) rows_of(dx, part.begin, part.rows) += rows_of(d_rows, at, part.rows);
    });
    return is_done;
  }

  /// Rows of one selection. Whether the base's vjp was part of it; else g holds what it is to be given.
  bool part_vjp(Index first, Index count, std::span<const Selected> here, const SiteInput<T>& all_x, const Out<T>& dy,
                const Out<T>& all_dx) {
    const SiteInput<T> x = all_x.part(first, count);
    const Out<T> g = rows_of(dy, first, count);
    const Out<T> dx = all_dx.data() ? rows_of(all_dx, first, count) : nowhere();
    bool has_before = false, before_trains = false;
    for (const Selected& one : here)
      if (one.adapter->state && Steps::state_of(one).acts_before()) {
        has_before = true;
        before_trains = before_trains || States::wants_gradients(one);
      }
    if (!has_before) return rows_vjp(here, x, x, g, dx, dx, first);
    with_input(here, ~0u, x, dx, before_trains, [&](const SiteInput<T>& seen, Out<T> d_seen) {
      if (!rows_vjp(here, x, seen, g, dx, d_seen, first))
        base_vjp<L, T>(layer_, {}, seen, in<T>(g), d_seen, workspace(), gradients_);
    });
    return true;
  }

  /// Calls f(x after the steps before of levels up to `depth`, where its gradient is added), and takes that back to dx.
  template <class F>
  void with_input(std::span<const Selected> here, unsigned depth, const SiteInput<T>& x, Out<T> dx, bool trains, const F& f) {
    const bool wants = dx.data() || trains;
    const Index n = x.rows.rows(), width = x.rows.cols(), size = x.rows.size();
    const Scratch<T> memory(workspace(), (wants ? 2 : 1) * size);
    Out<T> rows = out<T>(memory.data(), n, width), d_rows = wants ? out<T>(memory.data() + size, n, width) : nowhere();
    act_before(here, depth, here.size(), x.rows, rows);
    if (wants) d_rows.setZero();
    SiteInput<T> seen = x;
    new (&seen.rows) In<T>(in<T>(rows));
    f(seen, d_rows);
    if (!wants) return;
    for (std::size_t i = here.size(); i-- > 0;) {
      const Selected& one = here[i];
      if (!acts_before(one, depth)) continue;
      if (States::wants_gradients(one)) act_before(here, depth, i, x.rows, rows);
      States::before_vjp(one, {in<T>(rows), d_rows, one.weight, gradients_, workspace()});
    }
    if (dx.data()) dx += d_rows;
  }
  [[nodiscard]] static bool acts_before(const Selected& one, unsigned depth) {
    return one.adapter->state && one.adapter->depth <= depth && Steps::state_of(one).acts_before();
  }
  /// to = x after the first `count` adapters' steps before.
  static void act_before(std::span<const Selected> here, unsigned depth, std::size_t count, const In<T>& x, Out<T> to) {
    copy_rows(x, to);
    for (const Selected& one : here.first(count))
      if (acts_before(one, depth)) Steps::state_of(one).before(to, one.weight);
  }

  /// The steps of rows that were `seen` after all steps before the base product. Whether they had a product of their own.
  bool rows_vjp(std::span<const Selected> here, const SiteInput<T>& x, const SiteInput<T>& seen, Out<T> g, Out<T> dx, Out<T> d_seen,
                Index first) {
    unsigned deepest = 0, deepest_before = 0;
    for (const Selected& one : here) {
      if (!one.adapter->state) continue;
      deepest = std::max(deepest, one.adapter->depth);
      if (Steps::state_of(one).acts_before()) deepest_before = std::max(deepest_before, one.adapter->depth);
    }
    const Selected* const copied = copied_of(here);
    const Scratch<T> memory(workspace(), wants_d_bias(here) ? facts_of(layer_).out : 0);
    T* const d_bias = memory.data();
    if (d_bias) std::fill_n(d_bias, facts_of(layer_).out, T(0));
    const BaseWeight<T> base = base_of(here);
    for (unsigned depth = 0; depth <= deepest; ++depth) {
      if (depth >= deepest_before) {
        level_vjp(depth, here, seen, g, d_seen, base, d_bias, first);
        continue;
      }
      bool trains = false;
      for (const Selected& one : here) trains = trains || (acts_before(one, depth) && States::wants_gradients(one));
      with_input(here, depth, x, dx, trains, [&](const SiteInput<T>& outside, Out<T> d_outside) {
        level_vjp(depth, here, outside, g, d_outside, base, d_bias, first);
      });
    }
    if (copied) {
      const Trained trained{copied->adapter->copy_trains, copied->adapter->copy_trains};
      decltype(auto) copy = copy_of(layer_, *copied);
      if (d_bias) add_to_bias(bias_gradient<T>(copy, trained.bias, gradients_), d_bias);
      replaced_vjp(here, copy, trained.bias, seen, g, d_seen);
      base_vjp<L, T>(copy, trained, seen, in<T>(g), d_seen, workspace(), gradients_);
      return true;
    }
    exchanged_vjp(here, g, d_bias);
    replaced_vjp(here, layer_, false, seen, g, d_seen);
    return false;
  }

  [[nodiscard]] static const Selected* copied_of(std::span<const Selected> here) {
    for (const Selected& one : here)
      if (one.adapter->copy) return &one;
    return nullptr;
  }
  /// The weight and the bias as the adapters of these rows see them.
  [[nodiscard]] BaseWeight<T> base_of(std::span<const Selected> here) const {
    if (const Selected* const copied = copied_of(here)) return base_weight_of(copy_of(layer_, *copied)).without_version();
    BaseWeight<T> base = base_weight_of(layer_);
    for (const Selected& one : here)
      if (one.adapter->bias) base = base.with_bias(one.adapter->bias.get());
    return base;
  }
  /// Whether a trained bias is taken out of what an adapter scales, so that more than the result's gradient comes to it.
  [[nodiscard]] bool wants_d_bias(std::span<const Selected> here) const {
    bool reads = false, trains = base_trains(layer_).bias;
    for (const Selected& one : here) {
      reads = reads || (one.adapter->state && one.adapter->state->reads_base());
      trains = trains || one.adapter->copy_trains || (one.adapter->bias && one.adapter->bias->requires_grad());
    }
    return reads && trains && base_of(here).has_bias();
  }
  void add_to_bias(T* to, const T* more) const {
    for (Index o = 0; to && o < facts_of(layer_).out; ++o) to[o] += more[o];
  }

  /// Trained biases, which stood in the place of the layer's own. d_bias: what comes to the last one of them besides.
  void exchanged_vjp(std::span<const Selected> here, const Out<T>& g, const T* d_bias) {
    constexpr bool repeats = traits_of<L>::kind == LayerKind::norm;
    Index channels = 0, exchanged = 0;
    with_bias(layer_, [&](const auto& bias) { channels = Index(bias.size()); });
    T* last = nullptr;
    for (const Selected& one : here) {
      if (!one.adapter->bias || channels == 0 || is_again(here, one)) continue;
      ++exchanged;
      last = gradient_of<T>(*one.adapter->bias, gradients_);
      if (last) add_channel_sums<T>(in<T>(g), channels, 1, last, repeats);
    }
    T* const own = channels ? bias_gradient<T>(layer_, false, gradients_) : nullptr;
    if (exchanged && own) add_channel_sums<T>(in<T>(g), channels, -double(exchanged), own, repeats);
    if (d_bias) add_to_bias(exchanged ? last : own, d_bias);
  }

  /// Trained tokens, which stood in the place of rows of the layer; a head's bias was added to them too.
  template <class Layer>
  void replaced_vjp([[maybe_unused]] std::span<const Selected> here, [[maybe_unused]] const Layer& layer,
                    [[maybe_unused]] bool bias_trains, [[maybe_unused]] const SiteInput<T>& seen, [[maybe_unused]] Out<T> g,
                    [[maybe_unused]] Out<T> d_seen) {
    constexpr LayerKind kind = traits_of<L>::kind;
    if constexpr (kind == LayerKind::embedding || kind == LayerKind::linear)
      for (const Selected& one : here) {
        if (!one.adapter->tokens) continue;
        const TokenRows& tokens = *one.adapter->tokens;
        if constexpr (kind == LayerKind::embedding) {
          replace_embedded_vjp<T>(tokens, facts_of(layer_), seen.ids, g, gradients_, workspace());
        } else {
          if (T* const d_bias = bias_gradient<T>(layer, bias_trains, gradients_))
            for (const Index place : tokens.places())
              for (Index i = 0; i < g.rows(); ++i) d_bias[tokens.id_at(place)] += g(i, tokens.id_at(place));
          replace_logits_vjp<T>(tokens, seen.rows, g, d_seen, gradients_, workspace());
        }
      }
  }

  /// One level's steps in reverse: x came into them.
  void level_vjp(unsigned depth, std::span<const Selected> here, const SiteInput<T>& x, Out<T> g, Out<T> dx, const BaseWeight<T>& base,
                 T* d_bias, Index first) {
    const auto kept = [&](const Selected& one, bool after) { return steps_.kept(here, one, after, first, g.rows()); };
    for (std::size_t i = here.size(); i-- > 0;)
      if (Steps::is_at(here[i], depth) && here[i].adapter->state->has_factors())
        States::after_vjp(here[i], {kept(here[i], true), g, here[i].weight, gradients_, workspace()});
    for (std::size_t i = here.size(); i-- > 0;) {
      const Selected& one = here[i];
      if (!Steps::is_at(one, depth) || !one.adapter->state->has_update()) continue;
      if (!dx.data() && !one.adapter->state->reads_base() && !States::wants_gradients(one)) continue;
      UpdateGradient<T> to{x, kept(one, false), g, dx, one.weight, base, d_bias, nullptr, gradients_, workspace()};
      if (!steps_.drops(one)) {
        States::update_vjp(one, to);
        continue;
      }
      const Selected* const copied = copied_of(here);
      const bool trains = copied ? copied->adapter->copy_trains : base_trains(layer_).weight;
      steps_.with_dropped(here, one, x, first, dx.data() || trains, [&](const DroppedInput<T>& dropped) {
        to.dropped = &dropped;
        States::update_vjp(one, to);
        if (dropped.d_product.data())
          steps_.with_layer(here, [&](const auto& layer) {
            base_vjp<L, T>(layer, {trains, false}, dropped.x, in<T>(dropped.d_product), dropped.dx, workspace(), gradients_);
            // that product had no bias
            if (T* const own = bias_gradient<T>(layer, false, gradients_))
              add_channel_sums<T>(in<T>(dropped.d_product), facts_of(layer_).out, -1, own);
          });
        if (dx.data()) steps_.mask_of(one).template add_gradient<T>(in<T>(dropped.dx), first, dx);
      });
    }
  }

  /// The base's vjp for all rows that did not have their own, as many together as stand together.
  void share_base(const bool* is_done, const SiteInput<T>& x, const Out<T>& dy, const Out<T>& dx) {
    const auto segments = batch_.segments;
    for (std::size_t i = 0, end; i < segments.size(); i = end) {
      for (end = i + 1; end < segments.size() && is_done[end] == is_done[i];) ++end;
      if (is_done[i]) continue;
      const Index begin = segments[i].begin, rows = segments[end - 1].begin + segments[end - 1].rows - begin;
      base_vjp<L, T>(layer_, {}, x.part(begin, rows), in<T>(rows_of(dy, begin, rows)),
                     dx.data() ? rows_of(dx, begin, rows) : nowhere(), workspace(), gradients_);
    }
  }

  [[nodiscard]] Workspace* workspace() const { return batch_.workspace; }
  [[nodiscard]] static Out<T> nowhere() { return out<T>(nullptr, 0, 0); }

  const L& layer_;
  const BatchView& batch_;
  const SelectedAdapters& selected_;
  const Steps& steps_;
  Gradients& gradients_;
};

}  // namespace graft::detail
