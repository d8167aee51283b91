#pragma once

#include <type_traits>

#include "../tensor/parameter.hpp"
#include "../tensor/workspace.hpp"
#include "describe.hpp"

namespace graft {

template <class T, class Storage>
inline constexpr bool enable_parameter<Parameter<T, Storage>> = true;
template <class T, int Rows, int Cols, int Options, int MaxRows, int MaxCols>
inline constexpr bool enable_parameter<Eigen::Matrix<T, Rows, Cols, Options, MaxRows, MaxCols>> = std::is_floating_point_v<T>;
template <class Plain, int MapOptions, class Stride>
inline constexpr bool enable_parameter<Eigen::Map<Plain, MapOptions, Stride>> = std::is_floating_point_v<typename Plain::Scalar>;

namespace detail {
template <class X>
inline constexpr bool is_parameter = false;
template <class T, class Storage>
inline constexpr bool is_parameter<Parameter<T, Storage>> = true;

/// A parameter in the activations' scalar: in place where it has it, else widened into scratch.
template <class T>
class Widened {
 public:
  template <class W>
  Widened(const W* values, Index count, Workspace* workspace) : scratch_(workspace, std::is_same_v<W, T> || !values ? 0 : count) {
    if constexpr (std::is_same_v<W, T>) {
      data_ = values;
    } else if (values) {
      for (Index i = 0; i < count; ++i) scratch_.data()[i] = T(float(values[i]));
      data_ = scratch_.data();
    }
  }
  [[nodiscard]] const T* data() const { return data_; }

 private:
  Scratch<T> scratch_;
  const T* data_ = nullptr;
};

/// The bias of a ready-made layer, which has none where its parameter is empty. @throws MetaError without memory.
template <class W, class Storage>
const W* bias_data(const Parameter<W, Storage>& bias) {
  return bias.size() ? bias.view().data() : nullptr;
}
template <class W, class Storage>
bool trains_bias(const Parameter<W, Storage>& bias) {
  return bias.size() && bias.requires_grad();
}
}  // namespace detail

}  // namespace graft
