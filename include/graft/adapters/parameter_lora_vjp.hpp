#pragma once

#include <algorithm>

#include "../kernels/backward.hpp"
#include "../kernels/transpose.hpp"
#include "looked_up.hpp"
#include "parameter_lora.hpp"
#include "update_gradient.hpp"

namespace graft::detail {

/// The update of one expert's rows is y += s · (x·Dᵀ)·U with D (r, in) and U (r, out): of A and Bᵀ the one that meets x and
/// the other.
template <class T>
template <class>
void ParameterLora<T>::update_vjp(const UpdateGradient<T>& to) const {
  if (facts_.kind == LayerKind::embedding) return embedding_vjp(to);
  T* const d_a = gradient_of<T>(a_, to.gradients);
  T* const d_b = gradient_of<T>(b_, to.gradients);
  if (!d_a && !d_b && !to.dx.data()) return;
  const T scale = T(to.weight * scaling_);
  const Index in = facts_.in, out = facts_.out, a_span = a_.shape()[1], b_span = b_.shape()[0], columns = r_ * experts_;
  const auto of_expert = [&](Index e, const In<T>& x, const In<T>& g, Out<T> dx) {
    const Factors own(*this, e, to.workspace);
    const Index n = x.rows(), turned = r_ * std::max(in, out);
    const Scratch<T> memory(to.workspace, r_ * out + 2 * turned + kernels::low_rank_backward_scratch<T>(n, in, out, r_));
    T *const up = memory.data(), *const d_down = up + r_ * out, *const d_up = d_down + turned, *const scratch = d_up + turned;
    kernels::transpose(r_, out, a_meets_x_ ? own.b() : own.a(), out, up, r_);
    std::fill_n(d_down, 2 * turned, T(0));
    T* const wants_down = a_meets_x_ ? d_a : d_b;
    T* const wants_up = a_meets_x_ ? d_b : d_a;
    const kernels::LowRankGradients<T> gradients{wants_down ? d_down : nullptr, wants_up ? d_up : nullptr, nullptr, dx.data(),
                                                 dx.outerStride()};
    kernels::low_rank_backward<T>(n, in, out, r_, x.data(), x.outerStride(), a_meets_x_ ? own.a() : own.b(), up, nullptr, scale,
                                  g.data(), g.outerStride(), nullptr, gradients, scratch);
    // A's rows of an expert lie together, as (r, span) in D and as (span, r) in U; B's columns are ρ · experts + e
    for (Index k = 0; k < r_; ++k) {
      for (Index i = 0; d_a && i < a_span; ++i)
        d_a[(e * r_ + k) * a_span + i] += a_meets_x_ ? d_down[k * a_span + i] : d_up[i * r_ + k];
      for (Index i = 0; d_b && i < b_span; ++i)
        d_b[i * columns + k * experts_ + e] += a_meets_x_ ? d_up[i * r_ + k] : d_down[k * b_span + i];
    }
  };
  const In<T> x = to.x.rows, g = graft::in<T>(to.g);
  if (!to.x.experts.is_by_row()) return of_expert(to.x.experts.one(), x, g, to.dx);
  // x and g of a row side by side, so that an expert's rows are gathered once
  const Index n = x.rows();
  const Scratch<T> memory(to.workspace, n * (in + out));
  Out<T> both = graft::out<T>(memory.data(), n, in + out);
  copy_rows(x, graft::out<T>(memory.data(), n, in, in + out));
  copy_rows(g, graft::out<T>(memory.data() + in, n, out, in + out));
  const Out<T> dx = to.dx.data() ? to.dx : graft::out<T>(memory.data(), n, 0, 0);
  const auto of_rows = [&](Index e, const In<T>& rows, Out<T> d_rows) {
    of_expert(e, graft::in<T>(rows.data(), rows.rows(), in, rows.outerStride()),
              graft::in<T>(rows.data() + in, rows.rows(), out, rows.outerStride()), to.dx.data() ? d_rows : to.dx);
  };
  for_each_expert(to.x.experts, facts_.stack.experts, graft::in<T>(both), dx, true, to.workspace, of_rows);
}

/// Of a table (num, dim): y[i] += s · B[ids[i]]·A.
template <class T>
template <class>
void ParameterLora<T>::embedding_vjp(const UpdateGradient<T>& to) const {
  T* const d_a = gradient_of<T>(a_, to.gradients);
  T* const d_b = gradient_of<T>(b_, to.gradients);
  const Values<T> a(a_, to.workspace);
  const T scale = T(to.weight * scaling_) * T(facts_.embed_scale);
  const LookUps looked_up(to.x.ids, facts_, to.workspace);
  for (Index i = 0; i < to.x.ids.size(); ++i) {
    const Index id = to.x.ids[i];
    const T factor = scale * T(looked_up.factor(i));
    for (Index k = 0; k < r_; ++k) {
      const T b = factor * element_as<T>(b_.dtype(), b_.data(), std::size_t(id * r_ + k));
      T sum = 0;
      for (Index c = 0; c < cols_; ++c) {
        sum += to.g(i, c) * a.data()[k * cols_ + c];
        if (d_a) d_a[k * cols_ + c] += b * to.g(i, c);
      }
      if (d_b) d_b[id * r_ + k] += factor * sum;
    }
  }
}

}  // namespace graft::detail
