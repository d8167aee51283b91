#pragma once

#include <doctest/doctest.h>

#include <graft/modules/layer_vjp.hpp>
#include <type_traits>
#include <utility>

#include "op_gradients.hpp"

namespace support {

/// dx of a layer, which must be added to what stands there.
template <class T, class L>
Matrix<T> dx_of(const L& layer, const Matrix<T>& dy, const Matrix<T>& x, Gradients& gradients, graft::Trained trained = {}) {
  Gapped<T> dx(Matrix<T>::Constant(x.rows(), x.cols(), T(0.5)));
  const Gapped<T> g(dy), input(x);
  OneBatch batch(x.rows());
  graft::linear_vjp<L, T>(layer, batch.view(), gradients, g.in(), input.in(), dx.out(), trained);
  CHECK(batch.workspace.in_use() == 0);
  CHECK(dx.gaps_are_intact());
  return dx.out().array() - T(0.5);
}
}  // namespace support
