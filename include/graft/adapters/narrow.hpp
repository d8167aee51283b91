#pragma once

#include <algorithm>
#include <type_traits>

#include "../kernels/low_rank.hpp"
#include "../tensor/batch.hpp"
#include "../tensor/workspace.hpp"
#include "packed_b.hpp"

namespace graft::detail {

/// What parameters that stay bf16 or f16 need of kernels (graft/io.hpp has them): programs that read no files do not
/// compile them.
struct NarrowKernels {
  /// y = x, in float.
  void (*widen)(Dtype, Index count, const std::byte* x, float* y);
  /// `kernels::narrow_low_rank_update`, for A and B of one narrow dtype.
  void (*update)(Dtype, const In<float>& x, Index r, const std::byte* a, const std::byte* packed_b, const float* e, float scale,
                 const float* beta, Out<float> y, float* scratch);
};
/// Null until io/narrow_kernels.hpp is part of the program; nothing is narrow before.
inline constinit const NarrowKernels* narrow_kernels = nullptr;

/// Whether a parameter is kept in fewer bits than T, which activations have.
template <class T>
[[nodiscard]] bool is_narrow(const ParameterData& parameter) {
  return std::is_same_v<T, float> && parameter.dtype() != Dtype::f32;
}

/// An adapter's parameter as T, for a scope: where it lies, or widened into scratch.
template <class T>
class Values {
 public:
  explicit Values(const ParameterData& parameter, Workspace* workspace = nullptr)
      : memory_(workspace, is_narrow<T>(parameter) ? parameter.shape().size() : 0),
        data_(reinterpret_cast<const T*>(parameter.data())) {
    if constexpr (std::is_same_v<T, float>) {
      if (!is_narrow<T>(parameter) || !data_) return;
      narrow_kernels->widen(parameter.dtype(), parameter.shape().size(), parameter.data(), memory_.data());
      data_ = memory_.data();
    }
  }
  [[nodiscard]] const T* data() const { return data_; }

 private:
  Scratch<T> memory_;
  const T* data_;
};

/// Calls f(begin, count, values) for a vector as T: whole where it lies, or part by part, without a workspace.
template <class T, class F>
void for_each_part(const ParameterData& parameter, F f) {
  const Index size = parameter.shape().size();
  if constexpr (std::is_same_v<T, float>) {
    if (is_narrow<T>(parameter)) {
      constexpr Index most = 256;
      float part[most];
      for (Index begin = 0; begin < size; begin += most) {
        const Index count = std::min(most, size - begin);
        narrow_kernels->widen(parameter.dtype(), count, parameter.data() + std::size_t(begin) * size_of(parameter.dtype()), part);
        f(begin, count, static_cast<const T*>(part));
      }
      return;
    }
  }
  f(Index(0), size, reinterpret_cast<const T*>(parameter.data()));
}

/// y += scale · ((x·Aᵀ)∘e)·Bᵀ + scale · beta where A (r, in) or B (out, r) is narrow; e and beta may be null. Few rows
/// read both as they are stored; for more they are widened once. The bits are those over the same values as T.
template <class T>
void add_narrow_update(const In<T>& x, const ParameterData& a, const ParameterData& b, const PackedB<T>& packed,
                       const ParameterData* e, T scale, const ParameterData* beta, Out<T> y, Workspace* workspace) {
  const Index n = x.rows(), in = x.cols(), out = y.cols(), r = a.shape()[0];
  const ParameterData nothing;
  const Values<T> values_e(e ? *e : nothing, workspace), values_beta(beta ? *beta : nothing, workspace);
  if constexpr (std::is_same_v<T, float>) {
    constexpr Index few = 4;  // rows for which reading is more work than widening
    const bool is_stored = n <= few && is_narrow<T>(a) && a.dtype() == b.dtype();
    if (const std::byte* bytes = is_stored ? packed.bytes(b, n, out, r) : nullptr) {
      const Scratch<T> scratch(workspace, r);
      narrow_kernels->update(a.dtype(), x, r, a.data(), bytes, values_e.data(), scale, values_beta.data(), y, scratch.data());
      return;
    }
  }
  const Values<T> values_a(a, workspace), values_b(b, workspace);
  const Scratch<T> scratch(workspace, kernels::low_rank_scratch(n, in, out, r));
  kernels::low_rank_update<T>(n, in, out, r, x.data(), x.outerStride(), values_a.data(), values_b.data(), values_e.data(), scale,
                              values_beta.data(), y.data(), y.outerStride(), scratch.data());
}

}  // namespace graft::detail
