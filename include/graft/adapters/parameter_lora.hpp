#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "../core/compile_once.hpp"
#include "../kernels/merge.hpp"
#include "../kernels/products.hpp"
#include "../modules/embedding.hpp"
#include "../modules/random_fill.hpp"
#include "adapter.hpp"
#include "init_scheme.hpp"
#include "narrow.hpp"
#include "packed_stack.hpp"

namespace graft::detail {

/// LoRA of a parameter (`target_parameters`): PEFT's lora.ParamWrapper. ΔW = scaling · B·A for a matrix (out, in), with
/// A (r, in) and B (out, r); for a stack (E, out, in) the same for every expert, in A (r · E, in) and B (out, r · E):
///
///     ΔW[e, o, i] = scaling · Σ_ρ B[o, ρ · E + e] · A[e · r + ρ, i]
///
/// and for a stack (E, in, out) its transpose. PEFT adds ΔW to the parameter for the time of a forward; here the layer's
/// product is left alone and the update is added to it, so that rows may want different adapters.
template <class T>
class ParameterLora final : public AdapterState<T> {
 public:
  ParameterLora(const LoraConfig& config, const LayerFacts& facts, const AdapterPlan& plan)
      : facts_(facts),
        experts_(facts.kind == LayerKind::parameter ? facts.stack.count() : 1),
        rows_(facts.kind == LayerKind::parameter ? facts.stack.rows() : facts.kind == LayerKind::embedding ? facts.in : facts.out),
        cols_(facts.kind == LayerKind::parameter ? facts.stack.cols() : facts.kind == LayerKind::embedding ? facts.out : facts.in),
        r_(plan.r),
        scaling_(plan.lora_alpha / (config.use_rslora ? std::sqrt(double(plan.r)) : double(plan.r))),
        init_(init_scheme(config.init_lora_weights)) {
    // A belongs to the last dimension of what is stored, but in a stack to the input
    const bool is_shown_transposed = facts.kind != LayerKind::parameter && facts.transposed;
    const bool is_transposed_stack = facts.kind == LayerKind::parameter && facts.transposed && facts.stack.stored.rank() == 3;
    a_spans_cols_ = !is_shown_transposed && !is_transposed_stack;
    a_meets_x_ = a_spans_cols_ != (facts.kind == LayerKind::parameter && facts.transposed);
    a_ = ParameterData(dtype_of<T>, Shape{r_ * experts_, a_spans_cols_ ? cols_ : rows_});
    b_ = ParameterData(dtype_of<T>, Shape{a_spans_cols_ ? rows_ : cols_, r_ * experts_});
    for (ParameterData* parameter : {&a_, &b_}) parameter->set_requires_grad(!config.inference_mode);
  }

  [[nodiscard]] PeftType type() const override { return PeftType::lora; }
  [[nodiscard]] bool is_of_parameter() const override { return true; }
  [[nodiscard]] std::unique_ptr<AnyAdapterState> clone() const override { return detail::make_unique_as<AnyAdapterState, ParameterLora>(*this); }
  [[nodiscard]] bool is_meta() const override { return a_.is_meta() || b_.is_meta(); }
  [[nodiscard]] Index rank() const override { return r_; }
  [[nodiscard]] double scaling() const override { return scaling_; }
  [[nodiscard]] std::vector<AdapterParameter> parameters() override {
    return {{"lora_A", ".weight", &a_}, {"lora_B", ".weight", &b_}};
  }

  void initialise(std::uint64_t seed, std::string_view path) override {
    const std::string a = std::string(path) + ".lora_A.weight", b = std::string(path) + ".lora_B.weight";
    if (init_ == InitScheme::gaussian) fill_normal(a_, {seed, a}, 1 / double(r_));
    else fill_uniform(a_, {seed, a}, 1 / std::sqrt(double(a_.shape()[1])));
    if (init_ != InitScheme::random) fill_constant(b_, 0);
    else fill_uniform(b_, {seed, b}, 1 / std::sqrt(double(b_.shape()[1])));
  }

  void update(const SiteInput<T>& x, Out<T> y, double weight, const BaseWeight<T>&, Workspace* workspace) const override {
    const T scale = T(weight * scaling_);
    if (facts_.kind == LayerKind::embedding) return update_embedding(x.ids, y, T(scale * T(facts_.embed_scale)), workspace);
    for_each_expert(x.experts, facts_.stack.experts, x.rows, y, true, workspace, [&](Index e, const In<T>& rows, Out<T> to) {
      const Index n = rows.rows();
      const Factors own(*this, e, workspace);
      const T* down = a_meets_x_ ? own.a() : own.b();
      const T* up = a_meets_x_ ? own.b() : own.a();
      const Scratch<T> memory(workspace, n * r_);
      T* u = memory.data();
      kernels::product_nt<T, T>(n, r_, facts_.in, rows.data(), rows.outerStride(), down, facts_.in, nullptr, u, r_, false);
      for (Index i = 0; i < n * r_; ++i) u[i] *= scale;
      kernels::product_nn<T, T>(n, facts_.out, r_, u, r_, up, facts_.out, nullptr, to.data(), to.outerStride(), true);
    });
  }

  [[nodiscard]] bool wants_gradients() const { return a_.requires_grad() || b_.requires_grad(); }
  [[nodiscard]] static bool update_wants_result() { return false; }
  template <class = OnDemand>
  void update_vjp(const UpdateGradient<T>& to) const;

  [[nodiscard]] double delta_bound(double weight) const override {
    return std::abs(weight * scaling_) * double(r_) * largest(a_) * largest(b_);
  }
  /// `rows` of all matrices one below the other.
  void add_delta(Index begin, Out<T> rows, double weight, Workspace* workspace) const override {
    const T scale = T(weight * scaling_);
    const Scratch<T> scratch(workspace, kernels::low_rank_delta_scratch(cols_, r_)), left(workspace, r_ * rows_);
    for (Index done = 0; done < rows.rows();) {
      const Index e = (begin + done) / rows_, first = (begin + done) % rows_, count = std::min(rows_ - first, rows.rows() - done);
      const Factors own(*this, e, workspace);
      const T* down = a_spans_cols_ ? own.b() : own.a();  // (r, rows)
      const T* across = a_spans_cols_ ? own.a() : own.b();
      for (Index i = 0; i < count; ++i)
        for (Index k = 0; k < r_; ++k) left.data()[i * r_ + k] = down[k * rows_ + first + i];
      kernels::add_low_rank_delta<T>(count, cols_, r_, left.data(), r_, nullptr, scale, across, cols_,
                                     rows.data() + done * rows.outerStride(), rows.outerStride(), scratch.data());
      done += count;
    }
  }

 private:
  /// Part of a parameter as T: where it lies, or widened.
  class Part {
   public:
    Part(Dtype dtype, const std::byte* from, Index count, bool widens, Workspace* workspace)
        : memory_(workspace, widens ? count : 0), data_(reinterpret_cast<const T*>(from)) {
      if constexpr (std::is_same_v<T, float>) {
        if (!widens) return;
        narrow_kernels->widen(dtype, count, from, memory_.data());
        data_ = memory_.data();
      }
    }
    [[nodiscard]] const T* data() const { return data_; }

   private:
    Scratch<T> memory_;
    const T* data_;
  };
  /// The matrices of one expert: A (r, its span), and Bᵀ (r, its span).
  class Factors {
   public:
    Factors(const ParameterLora& lora, Index expert, Workspace* workspace)
        : packed_(lora.packed_b_.get(lora.b_, lora.experts_, lora.r_)),
          turned_(workspace, packed_ ? 0 : bytes(lora.b_) / lora.experts_),
          a_(lora.a_.dtype(), lora.a_.data() + expert * bytes(lora.a_) / lora.experts_, lora.r_ * lora.a_.shape()[1],
             is_narrow<T>(lora.a_), workspace),
          b_(lora.b_.dtype(), turn(lora, expert), lora.r_ * lora.b_.shape()[0], is_narrow<T>(lora.b_), workspace) {}
    [[nodiscard]] const T* a() const { return a_.data(); }
    [[nodiscard]] const T* b() const { return b_.data(); }

   private:
    static Index bytes(const ParameterData& parameter) { return Index(parameter.bytes()); }
    const std::byte* turn(const ParameterLora& lora, Index expert) const {
      if (packed_) return packed_ + expert * bytes(lora.b_) / lora.experts_;
      PackedStack::pack_one(lora.b_, lora.experts_, lora.r_, expert, turned_.data());
      return turned_.data();
    }
    const std::byte* packed_;
    Scratch<std::byte> turned_;
    Part a_, b_;
  };

  template <class = OnDemand>
  void embedding_vjp(const UpdateGradient<T>& to) const;
  void update_embedding(const Ids& ids, Out<T> y, T scale, Workspace* workspace) const {
    const Values<T> a(a_, workspace);
    const Scratch<T> memory(workspace, r_);
    T* const u = memory.data();
    for (Index i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0 || ids[i] >= rows_) id_out_of_range(ids[i], rows_);
      for (Index k = 0; k < r_; ++k) u[k] = scale * element_as<T>(b_.dtype(), b_.data(), std::size_t(ids[i] * r_ + k));
      kernels::product_nn<T, T>(1, cols_, r_, u, r_, a.data(), cols_, nullptr, y.data() + i * y.outerStride(), y.outerStride(), true);
    }
  }

  [[nodiscard]] static double largest(const ParameterData& parameter) {
    return double(kernels::largest_magnitude<T>(parameter.shape().size(), Values<T>(parameter).data()));
  }

  LayerFacts facts_;
  Index experts_, rows_, cols_;  ///< of the weight as the layer shows it: so many matrices (rows, cols)
  Index r_;
  double scaling_;
  InitScheme init_;
  bool a_spans_cols_ = true;  ///< else A belongs to the rows, and B to the columns
  bool a_meets_x_ = true;     ///< else x meets B first, and A makes the result
  ParameterData a_, b_;
  PackedStack packed_b_;
};
GRAFT_SHARED_CLASS(ParameterLora<float>)

}  // namespace graft::detail
