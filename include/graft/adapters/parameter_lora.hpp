#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "../kernels/merge.hpp"
#include "../kernels/products.hpp"
#include "../modules/embedding.hpp"
#include "adapter.hpp"
#include "init_scheme.hpp"
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
  [[nodiscard]] std::unique_ptr<AnyAdapterState> clone() const override { return std::make_unique<ParameterLora>(*this); }
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
    const T* packed = packed_b_.get(b_, experts_, r_);
    for_each_expert(x.experts, facts_.stack.experts, x.rows, y, true, workspace, [&](Index e, const In<T>& rows, Out<T> to) {
      const Index n = rows.rows(), span = b_.shape()[0];
      const Scratch<T> memory(workspace, n * r_), part(workspace, packed ? 0 : r_ * span);
      if (!packed) PackedStack<T>::pack_one(b_, experts_, r_, e, part.data());
      const T* b = packed ? packed + e * r_ * span : part.data();
      const T* a = data(a_) + e * r_ * a_.shape()[1];
      T* u = memory.data();
      kernels::product_nt<T, T>(n, r_, facts_.in, rows.data(), rows.outerStride(), a_meets_x_ ? a : b, facts_.in, nullptr, u, r_, false);
      for (Index i = 0; i < n * r_; ++i) u[i] *= scale;
      kernels::product_nn<T, T>(n, facts_.out, r_, u, r_, a_meets_x_ ? b : a, facts_.out, nullptr, to.data(), to.outerStride(), true);
    });
  }

  [[nodiscard]] double delta_bound(double weight) const override {
    return std::abs(weight * scaling_) * double(r_) * largest(a_) * largest(b_);
  }
  /// `rows` of all matrices one below the other.
  void add_delta(Index begin, Out<T> rows, double weight, Workspace* workspace) const override {
    const T scale = T(weight * scaling_);
    const Scratch<T> scratch(workspace, kernels::low_rank_delta_scratch(cols_, r_)), memory(workspace, r_ * (rows_ + cols_));
    T* const left = memory.data();
    T* const right = left + r_ * rows_;
    for (Index done = 0; done < rows.rows();) {
      const Index e = (begin + done) / rows_, first = (begin + done) % rows_, count = std::min(rows_ - first, rows.rows() - done);
      const T* a = data(a_) + e * r_ * a_.shape()[1];
      const T* across = a;
      if (!a_spans_cols_) PackedStack<T>::pack_one(b_, experts_, r_, e, right), across = right;
      for (Index i = 0; i < count; ++i)
        for (Index k = 0; k < r_; ++k)
          left[i * r_ + k] = a_spans_cols_ ? data(b_)[((first + i) * r_ + k) * experts_ + e] : a[k * rows_ + first + i];
      kernels::add_low_rank_delta<T>(count, cols_, r_, left, r_, nullptr, scale, across, cols_, rows.data() + done * rows.outerStride(),
                                     rows.outerStride(), scratch.data());
      done += count;
    }
  }

 private:
  void update_embedding(const Ids& ids, Out<T> y, T scale, Workspace* workspace) const {
    const Scratch<T> memory(workspace, r_);
    T* const u = memory.data();
    for (Index i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0 || ids[i] >= rows_) id_out_of_range(ids[i], rows_);
      for (Index k = 0; k < r_; ++k) u[k] = scale * data(b_)[ids[i] * r_ + k];
      kernels::product_nn<T, T>(1, cols_, r_, u, r_, data(a_), cols_, nullptr, y.data() + i * y.outerStride(), y.outerStride(), true);
    }
  }

  [[nodiscard]] static double largest(const ParameterData& parameter) {
    return double(kernels::largest_magnitude<T>(parameter.shape().size(), data(parameter)));
  }
  [[nodiscard]] static const T* data(const ParameterData& parameter) { return reinterpret_cast<const T*>(parameter.data()); }

  LayerFacts facts_;
  Index experts_, rows_, cols_;  ///< of the weight as the layer shows it: so many matrices (rows, cols)
  Index r_;
  double scaling_;
  InitScheme init_;
  bool a_spans_cols_ = true;  ///< else A belongs to the rows, and B to the columns
  bool a_meets_x_ = true;     ///< else x meets B first, and A makes the result
  ParameterData a_, b_;
  PackedStack<T> packed_b_;
};

}  // namespace graft::detail
