#pragma once

#include <algorithm>

#include "../kernels/conv_backward.hpp"
#include "../kernels/embedding_backward.hpp"
#include "dora_vjp.hpp"
#include "looked_up.hpp"
#include "lora.hpp"
#include "parallel_low_rank_vjp.hpp"
#include "update_gradient.hpp"

namespace graft {

namespace detail {

/// LoRA's update in training: its own term over the input that dropout left, and that of its initial factors, which stand for
/// a part of the base, over the whole input.
template <class T>
struct LoraVjp {
  const Lora::State<T>& state;
  const BaseWeight<T>& base;
  double weight;
  Workspace* workspace;

  void backward(const UpdateGradient<T>& to) const {
    const In<T> g = in<T>(to.g);
    if (state.dora_ && to.dropped) return dropped_dora(to);
    if (state.dora_) rescaled(to);
    own(to.dropped ? to.dropped->x : to.x, g, to.dropped ? to.dropped->dx : to.dx, to.gradients);
    initial(g, to.dx);
  }

  /// y += the update over what dropout left.
  void forward_dropped(const SiteInput<T>& x, const DroppedInput<T>& dropped, Out<T> y) const {
    if (!state.dora_) {
      add_own(dropped.x, y);
      return add_initial(x, y);
    }
    const Scratch<T> memory(workspace, y.size() + out());
    Out<T> v = graft::out<T>(memory.data(), y.rows(), y.cols());
    base_product(dropped, v);
    y -= v;
    add_own(dropped.x, v);
    scale_channels<T>(v, out(), factors(memory.data() + y.size()));
    y += v;
    add_initial(x, y);
  }

 private:
  [[nodiscard]] T scale() const { return state.scale_of(weight); }
  [[nodiscard]] Index out() const { return state.facts_.out; }
  [[nodiscard]] const T* factors(T* memory) const { return state.factors(base, weight, memory, workspace); }

  /// DoRA: y = c ∘ (y₀ − b + s·B·A·x) + b, c a constant but for m. g becomes the gradient by y₀, and by the term.
  void rescaled(const UpdateGradient<T>& to) const {
    const Scratch<T> memory(workspace, out());
    const T* c = factors(memory.data());
    if (state.update_wants_result()) {
      const Scratch<T> result(workspace, to.y.size());
      Out<T> v = graft::out<T>(result.data(), to.y.rows(), to.y.cols());
      copy_rows(to.y, v);
      subtract_bias<T>(base, out(), v, workspace);
      state.add_product(to.x, v, scale(), base.first_row(), workspace);
      add_magnitude(in<T>(to.g), in<T>(v), to.gradients);
    }
    if (to.d_bias) {
      const Scratch<T> sums(workspace, out());
      std::fill_n(sums.data(), out(), T(0));
      add_channel_sums<T>(in<T>(to.g), out(), 1, sums.data());
      for (Index o = 0; o < out(); ++o) to.d_bias[o] += (T(1) - c[o]) * sums.data()[o];
    }
    scale_channels<T>(to.g, out(), c);
  }
  /// DoRA with dropout: y = y₀ + (c − 1) ∘ u + c ∘ s·B·A·x̃ − s·B₀·A₀·x, with u = (W − s·B₀·A₀)·x̃.
  void dropped_dora(const UpdateGradient<T>& to) const {
    const DroppedInput<T>& dropped = *to.dropped;
    const Index size = to.g.size();
    const Scratch<T> memory(workspace, size + out());
    const T* c = factors(memory.data() + size);
    Out<T> scratch = graft::out<T>(memory.data(), to.g.rows(), to.g.cols());
    if (state.update_wants_result()) {
      base_product(dropped, scratch);
      add_own(dropped.x, scratch);
      add_magnitude(in<T>(to.g), in<T>(scratch), to.gradients);
    }
    copy_rows(in<T>(to.g), scratch);
    scale_channels<T>(scratch, out(), c);
    own(dropped.x, in<T>(scratch), dropped.dx, to.gradients);
    initial(in<T>(to.g), to.dx);
    if (!dropped.d_product.data()) return;
    Out<T> d_product = dropped.d_product;
    d_product = scratch - to.g;
    initial(in<T>(d_product), dropped.dx);
  }
  void base_product(const DroppedInput<T>& dropped, Out<T> u) const {
    copy_rows(dropped.product, u);
    add_initial(dropped.x, u);
  }
  void add_magnitude(const In<T>& g, const In<T>& v, Gradients& gradients) const {
    const Scratch<T> memory(workspace, 2 * out());
    T *const slopes = memory.data(), *const sums = slopes + out();
    state.dora_->slopes(base, state.a_, state.b_, state.scaling_, weight, slopes, workspace);
    std::fill_n(sums, out(), T(0));
    add_channel_dots<T>(g, v, out(), 1, sums);
    kernels::multiply<T>(1, out(), sums, 0, slopes, 0, sums, 0);
    T* const d_m = gradient_of<T>(state.dora_->magnitude, gradients);
    kernels::add<T>(1, out(), d_m, 0, sums, 0, d_m, 0);
  }

  // the own term, and what an input gives it
  void add_own(const SiteInput<T>& x, Out<T> y) const {
    if (state.facts_.kind == LayerKind::conv) return state.update_conv(x, y, scale(), workspace);
    const Values<T> a(state.a_, workspace), b(state.b_, workspace), beta(state.beta_, workspace);
    const T* const first_b = b.data() + base.first_row() * state.r_;
    const kernels::LowRankTerm<T> term{state.r_, a.data(), nullptr, nullptr, scale(), beta.data(), first_b};
    add_terms<T>(std::span(&term, 1), x.rows, nullptr, y, workspace);
  }
  void own(const SiteInput<T>& x, const In<T>& g, Out<T> dx, Gradients& gradients) const {
    if (state.facts_.kind == LayerKind::linear) linear(x.rows, g, dx, gradients);
    else if (state.facts_.kind == LayerKind::embedding) embedding(x.ids, g, gradients);
    else if (state.facts_.kind == LayerKind::conv) conv(x, g, dx, gradients);
  }
  void linear(const In<T>& x, const In<T>& g, Out<T> dx, Gradients& gradients) const {
    const Index count = g.cols(), r = state.r_, first = base.first_row();
    T* const d_b = gradient_of<T>(state.b_, gradients);
    const kernels::LowRankGradients<T> to{.dA = gradient_of<T>(state.a_, gradients), .dB = d_b ? d_b + first * r : nullptr,
                                          .dx = dx.data(), .lddx = dx.outerStride()};
    T* const d_beta = state.has_beta_ ? gradient_of<T>(state.beta_, gradients) : nullptr;
    if (d_beta) add_channel_sums<T>(g, count, double(scale()), d_beta + first);
    if (!to.dA && !to.dB && !to.dx) return;
    const Values<T> a(state.a_, workspace), b(state.b_, workspace);
    parallel_low_rank_vjp<T>(r, x, a.data(), b.data() + first * r, nullptr, scale(), g, to, workspace);
  }

  /// torch scales long columns of A down before it looks them up, as if they had always been as short: their gradient does
  /// not go through that.
  void embedding(const Ids& ids, const In<T>& g, Gradients& gradients) const {
    const LayerFacts& facts = state.facts_;
    const Index n = ids.size(), num = facts.in, r = state.r_;
    const T factor = scale() * T(facts.embed_scale);
    T* const d_a = gradient_of<T>(state.a_, gradients);
    const kernels::LowRankEmbeddingGradients<T> to{d_a, gradient_of<T>(state.b_, gradients)};
    if (n == 0 || (!to.dA && !to.dB)) return;
    const Values<T> b(state.b_, workspace);
    const Scratch<T> scratch(workspace, kernels::low_rank_embedding_backward_scratch<T>(n, out(), r));
    if (!facts.max_norm && !facts.scale_grad_by_freq && !is_narrow<T>(state.a_)) {
      const auto id_of = [&](Index i) { return ids[i]; };
      kernels::low_rank_embedding_backward<T>(n, id_of, num, r, out(), state.data(state.a_), b.data(), factor, g.data(),
                                              g.outerStride(), to, scratch.data(), facts.padding_idx.value_or(-1));
      return;
    }
    const Scratch<T> columns(workspace, 2 * n * r + r);  // A as it was looked up, a column for each row, and its gradient
    T *const seen = columns.data(), *const d_seen = seen + n * r, *const column = d_seen + n * r;
    std::fill_n(d_seen, n * r, T(0));
    for (Index i = 0; i < n; ++i) {
      for (Index k = 0; k < r; ++k)
        column[k] = element_as<T>(state.a_.dtype(), state.a_.data(), std::size_t(k * num + ids[i]));
      const T shortened = facts.max_norm ? state.renorm_factor(column) : T(1);
      for (Index k = 0; k < r; ++k) seen[k * n + i] = shortened * column[k];
    }
    kernels::low_rank_embedding_backward<T>(n, [](Index i) { return i; }, n, r, out(), seen, b.data(), factor, g.data(),
                                            g.outerStride(), {d_a ? d_seen : nullptr, to.dB}, scratch.data());
    if (!d_a) return;
    const LookUps looked_up(ids, facts, workspace);
    for (Index i = 0; i < n; ++i)
      for (Index k = 0; k < r; ++k) d_a[k * num + ids[i]] += T(looked_up.factor(i)) * d_seen[k * n + i];
  }
  void conv(const SiteInput<T>& x, const In<T>& g, Out<T> dx, Gradients& gradients) const {
    const kernels::ConvGeometry geometry = conv_geometry(state.facts_.conv, x.row_shape);
    kernels::LowRankConvGradients<T> to{.dA = gradient_of<T>(state.a_, gradients), .dB = gradient_of<T>(state.b_, gradients)};
    if (state.has_beta_) to.dbeta = gradient_of<T>(state.beta_, gradients);
    const Values<T> a(state.a_, workspace), b(state.b_, workspace);
    const Scratch<T> scratch(workspace, kernels::low_rank_conv_backward_scratch(geometry, state.r_));
    for (Index i = 0; i < x.rows.rows(); ++i) {
      to.dx = dx.data() ? dx.data() + i * dx.outerStride() : nullptr;
      kernels::low_rank_conv_backward<T>(geometry, state.r_, x.rows.data() + i * x.rows.outerStride(), a.data(), b.data(), nullptr,
                                         scale(), g.data() + i * g.outerStride(), to, scratch.data());
    }
  }

  // the initial factors' term; only linear layers have one
  void add_initial(const SiteInput<T>& x, Out<T> y) const {
    if (!state.initial_) return;
    const T *const a = state.data(state.initial_->a), *const b = state.data(state.initial_->b);
    const kernels::LowRankTerm<T> term{state.r_, a, nullptr, nullptr, -scale(), nullptr, b};
    add_terms<T>(std::span(&term, 1), x.rows, nullptr, y, workspace);
  }
  void initial(const In<T>& g, Out<T> dx) const {
    if (!state.initial_ || !dx.data()) return;
    const T *const a = state.data(state.initial_->a), *const b = state.data(state.initial_->b);
    const kernels::LowRankGradients<T> to{.dx = dx.data(), .lddx = dx.outerStride()};
    const In<T> unread = graft::in<T>(dx);  // a frozen pair has no gradient that reads x
    parallel_low_rank_vjp<T>(state.r_, unread, a, b, nullptr, -scale(), g, to, workspace);
  }
};

}  // namespace detail

template <class T>
template <class>
void Lora::State<T>::update_vjp(const UpdateGradient<T>& to) const {
  detail::LoraVjp<T>{*this, to.base, to.weight, to.workspace}.backward(to);
}
template <class T>
template <class>
void Lora::State<T>::update_dropped(const SiteInput<T>& x, const DroppedInput<T>& dropped, Out<T> y, double weight,
                                    const BaseWeight<T>& base, Workspace* workspace) const {
  detail::LoraVjp<T>{*this, base, weight, workspace}.forward_dropped(x, dropped, y);
}

}  // namespace graft
