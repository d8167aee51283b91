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
  const Index positions = g.cols() / out, stride = g.outerStride();
  if (positions == 1) kernels::scale_columns<T>(g.rows(), out, g.data(), stride, c, T(1), g.data(), stride);
  else kernels::scale_channels<T>(g.rows(), out, positions, g.data(), stride, c, T(1), g.data(), stride);
}

}  // namespace graft::detail
