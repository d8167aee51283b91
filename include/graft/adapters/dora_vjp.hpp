#pragma once

#include <algorithm>

#include "dora.hpp"

namespace graft::detail {

template <class T>
template <class>
void Dora<T>::slopes(const BaseWeight<T>& base, const ParameterData& a, const ParameterData& b, double own, double weight,
                     T* to, Workspace* workspace) const {
  const auto write = [&](const kernels::NormParts& parts) {
    for (Index o = 0; o < out_; ++o) {
      const T norm = T(kernels::norm_at(parts, o, own * weight));
      to[o] = norm == T(0) ? T(0) : T(1) / norm;
    }
  };
  if (const auto version = base.version()) return write(parts_in(kept_norms(*version, base, a, b, own).numbers.get()));
  const Scratch<double> numbers(workspace, 3 * out_);
  const kernels::NormParts parts = parts_in(numbers.data());
  measure(base, a, b, parts, workspace);
  write(parts);
}

/// g = c ∘ g, for rows (n, out · positions).
template <class T>
void scale_channels(Out<T> g, Index out, const T* c) {
  if (g.rows() == 0) return;
  kernels::scale_channels<T>(g.rows(), out, g.cols() / out, g.data(), g.outerStride(), c, T(1), g.data(), g.outerStride());
}

/// to (out) += slope ∘ the sum of g ∘ v over rows and positions.
template <class T>
void add_magnitude_gradient(const In<T>& g, const In<T>& v, Index out, const T* slopes, T* to) {
  const Index positions = g.cols() / out;
  for (Index o = 0; o < out; ++o) {
    double sum = 0;
    for (Index i = 0; i < g.rows(); ++i)
      for (Index p = o * positions; p < (o + 1) * positions; ++p) sum += double(g(i, p)) * double(v(i, p));
    to[o] += T(double(slopes[o]) * sum);
  }
}

}  // namespace graft::detail
