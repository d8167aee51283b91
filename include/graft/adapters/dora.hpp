#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "../core/compile_once.hpp"
#include "../kernels/elementwise.hpp"
#include "../kernels/row_norms.hpp"
#include "../modules/base_weight.hpp"
#include "../tensor/init.hpp"
#include "../tensor/workspace.hpp"
#include "adapter.hpp"
#include "content_mark.hpp"
#include "kept.hpp"
#include "narrow.hpp"

namespace graft::detail {

/// DoRA (Liu et al., arXiv:2402.09353) beside LoRA's A (r, width) and B (out, r): a magnitude m per output unit. With
/// c = m / ‖W + s·B·A‖ the layer computes c ∘ (y − b + s·B·A·x) + b, where y is what stood there before. Where a scheme
/// started from the base weight, B·A stands for B·A − B₀·A₀.
///
/// What the norms need of W, A and B is kept until one of them is written, for every s at once; where somebody holds a
/// view of A, B or m, a forward looks whether their values are still the same.
template <class T>
class Dora {
 public:
  ParameterData magnitude;  ///< linear: (out), embedding: (dim), convolution: (1, out, 1…)
  std::shared_ptr<const InitialFactors> initial{};  ///< B₀ and A₀; never changed once the adapter is made

  explicit Dora(const LayerFacts& facts)
      : out_(facts.out), is_embedding_(facts.kind == LayerKind::embedding) {
    Shape shape{out_};
    if (facts.kind == LayerKind::conv) {
      shape = Shape{1, out_};
      for (std::size_t axis = 0; axis < facts.conv.kernel.rank(); ++axis) shape.push_back(1);
    }
    magnitude = ParameterData(dtype_of<T>, shape);
  }
  /// A copy belongs to another layer: it starts without norms.
  Dora(const Dora& other)
      : magnitude(other.magnitude), initial(other.initial), out_(other.out_), is_embedding_(other.is_embedding_) {}
  Dora& operator=(const Dora&) = delete;

  /// m becomes the norm: the layer then computes what it does without m.
  void initialise(const BaseWeight<T>& base, const ParameterData& a, const ParameterData& b, double s) {
    const Scratch<double> memory(nullptr, 3 * out_);
    const kernels::NormParts parts = parts_in(memory.data());
    measure(base, a, b, parts, nullptr);
    const Scratch<T> norms(nullptr, out_);
    for (Index o = 0; o < out_; ++o) norms.data()[o] = T(kernels::norm_at(parts, o, s));
    magnitude.allocate();
    convert(dtype_of<T>, reinterpret_cast<const std::byte*>(norms.data()), magnitude.dtype(), magnitude.data(), out_);
  }

  /// c (out), for LoRA's scaling `own` in a selection of some weight. `memory` has room for it and may be what is
  /// answered.
  [[nodiscard]] const T* factors(const BaseWeight<T>& base, const ParameterData& a, const ParameterData& b, double own,
                                 double weight, T* memory, Workspace* workspace) const {
    const auto version = base.version();
    if (!version) {
      const Scratch<double> numbers(workspace, 3 * out_);
      const kernels::NormParts parts = parts_in(numbers.data());
      measure(base, a, b, parts, workspace);
      scale_magnitude(parts, own * weight, memory);
      return memory;
    }
    const Norms& norms = kept_norms(*version, base, a, b, own);
    if (weight == 1) return norms.factors.get();
    scale_magnitude(parts_in(norms.numbers.get()), own * weight, memory);
    return memory;
  }
  /// to (out) = the derivative of c by m, for which the norm is a constant: dora_vjp.hpp
  template <class = OnDemand>
  void slopes(const BaseWeight<T>& base, const ParameterData& a, const ParameterData& b, double own, double weight, T* to,
              Workspace* workspace) const;

  /// y = c ∘ (y - b) + b on rows (n, out · positions), b the base's bias.
  void rescale(Out<T> y, const T* c, const BaseWeight<T>& base, Workspace* workspace) const {
    const bool has_bias = base.has_bias();
    const Scratch<T> memory(workspace, has_bias ? out_ : 0);
    T* rest = memory.data();
    if (has_bias) {
      base.copy_bias(rest);
      for (Index o = 0; o < out_; ++o) rest[o] *= T(1) - c[o];
    }
    const Index positions = y.cols() / out_;
    for (Index i = 0; i < y.rows(); ++i) {  // row by row: the second pass finds it in the cache
      T* row = y.data() + i * y.outerStride();
      if (positions == 1) {
        kernels::multiply<T>(1, out_, row, 0, c, 0, row, 0);
        if (has_bias) kernels::add_scaled<T>(1, out_, T(1), rest, 0, row, 0);
        continue;
      }
      for (Index o = 0; o < out_; ++o) {
        const T offset = has_bias ? rest[o] : T(0);
        for (Index p = o * positions; p < (o + 1) * positions; ++p) row[p] = c[o] * row[p] + offset;
      }
    }
  }

 private:
  [[nodiscard]] static std::uint64_t stamp_of(std::initializer_list<std::uint64_t> versions) {
    std::uint64_t stamp = 0;
    for (const std::uint64_t version : versions) stamp = (stamp + version) * 0x9E3779B97F4A7C15u;
    return stamp | 1;
  }
  /// to = m / ‖W + s·B·A‖
  void scale_magnitude(const kernels::NormParts& parts, double s, T* to) const {
    for_each_part<T>(magnitude, [&](Index begin, Index count, const T* m) {
      const kernels::NormParts here{parts.rest + begin, parts.slope + begin, parts.nearest + begin};
      kernels::magnitude_factors(count, here, s, m, to + begin);
    });
  }
  [[nodiscard]] kernels::NormParts parts_in(double* memory) const { return {memory, memory + out_, memory + 2 * out_}; }

  void measure(const BaseWeight<T>& base, const ParameterData& a, const ParameterData& b, const kernels::NormParts& parts,
               Workspace* workspace) const {
    const Shape shape = base.shape();
    const Index rows = shape[0], width = shape[1], r = a.shape()[0];
    const Shape wanted = is_embedding_ ? Shape{a.shape().cols(), out_} : Shape{out_, a.shape().cols()};
    if (shape != wanted)
      fail<ShapeError>("a layer's weight is " + to_string(shape) + ", its sizes mean " + to_string(wanted),
                       "layer_traits<L>::weight and the sizes in the same traits disagree",
                       "answer (out, in), (num, dim) or (out, in/groups, kernel…), as the sizes say");
    const T* data = base.data();
    const Scratch<T> copied(workspace, data ? 0 : std::min(rows, kernels::norm_rows<T>(width)) * width);
    const auto read = [&](Index begin, Index count) -> const T* {
      if (data) return data + begin * width;
      base.copy_rows(begin, out<T>(copied.data(), count, width));
      return copied.data();
    };
    const Values<T> down(a, workspace), up(b, workspace);
    if (initial) return measure_difference(rows, width, r, read, down.data(), up.data(), parts, workspace);
    if (is_embedding_) {  // of every dimension of the table, over all its rows
      const Scratch<T> scratch(workspace, kernels::column_norms_scratch<T>(width, r));
      const Scratch<double> sums(workspace, kernels::column_norms_sums(width, r));
      kernels::column_norms<T>(rows, width, r, read, down.data(), up.data(), parts, scratch.data(), sums.data());
    } else {
      const Scratch<T> scratch(workspace, kernels::row_norms_scratch<T>(width, r));
      kernels::row_norms<T>(rows, width, r, read, down.data(), up.data(), parts, scratch.data());
    }
  }

  /// The norms of W + s·[B, −B₀]·[A; A₀]; such a layer is linear.
  void measure_difference(Index rows, Index width, Index r, const auto& read, const T* a, const T* b, const kernels::NormParts& parts,
                          Workspace* workspace) const {
    const Scratch<T> both(workspace, 2 * r * (width + rows)), scratch(workspace, kernels::row_norms_scratch<T>(width, 2 * r));
    T* down = both.data();
    T* up = down + 2 * r * width;
    join_factors(r, width, rows, a, b, *initial, down, up);
    kernels::row_norms<T>(rows, width, 2 * r, read, down, up, parts, scratch.data());
  }

  struct Norms {
    std::unique_ptr<double[]> numbers;  ///< rest, slope and nearest of every norm
    std::unique_ptr<T[]> factors;       ///< c at LoRA's own scaling
  };
  [[nodiscard]] const Norms& kept_norms(std::uint64_t version, const BaseWeight<T>& base, const ParameterData& a, const ParameterData& b,
                                        double own) const {
    const std::uint64_t stamp = stamp_of({version, std::uintptr_t(base.layer()), write_mark(a), write_mark(b), write_mark(magnitude)});
    return kept_.at(stamp, [&](Norms& to) {
      if (!to.numbers) to = {std::make_unique<double[]>(std::size_t(3 * out_)), std::make_unique<T[]>(std::size_t(out_))};
      measure(base, a, b, parts_in(to.numbers.get()), nullptr);
      scale_magnitude(parts_in(to.numbers.get()), own, to.factors.get());
    });
  }

  Index out_;
  bool is_embedding_;
  Kept<Norms> kept_;
};
GRAFT_SHARED_CLASS(Dora<float>)

}  // namespace graft::detail
