#pragma once

#include <functional>
#include <graft/modules/op.hpp>
#include <graft/tensor/gradients.hpp>
#include <vector>

#include "op_gradients.hpp"

namespace support {

/// A value of training that remembers one op: what a tape does, without a tape.
template <class T>
struct Recording {
  Matrix<T> value;
  bool trains = false;  ///< what the op answered
  std::function<std::vector<Matrix<T>>(const Matrix<T>& dy, Gradients&)> backward{};
  std::function<Matrix<T>()> again{};  ///< forward
};
template <class Op, class T>
Recording<T> custom(const Op& op, const Recording<T>& x) {
  Recording<T> y{forward_of<T>(op, {x.value})};
  if constexpr (requires(const graft::BatchView& batch) { op.trainable(batch); }) y.trains = op.trainable({});
  y.backward = [op, x = x.value](const Matrix<T>& dy, Gradients& gradients) { return vjp_of<T>(op, dy, {x}, gradients); };
  y.again = [op, x = x.value] { return forward_of<T>(op, {x}); };
  return y;
}

}  // namespace support

template <class T>
inline constexpr bool graft::is_recorded<support::Recording<T>> = true;
