#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "../core/compile_once.hpp"
#include "../kernels/conv.hpp"
#include "../kernels/embedding.hpp"
#include "../kernels/low_rank.hpp"
#include "../kernels/merge.hpp"
#include "../kernels/transpose.hpp"
#include "../modules/conv_geometry.hpp"
#include "../modules/embedding.hpp"
#include "../modules/random_fill.hpp"
#include "adapter.hpp"
#include "dora.hpp"
#include "init_scheme.hpp"
#include "joined_update.hpp"
#include "narrow.hpp"
#include "packed_b.hpp"

namespace graft {

namespace detail {
template <class T>
struct LoraVjp;
}

/// LoRA (Hu et al., arXiv:2106.09685): y += scaling · B·A·x, scaling = lora_alpha / r, or lora_alpha / √r.
struct Lora {
  using Config = LoraConfig;
  static constexpr PeftType type = PeftType::lora;
  template <class T>
  class State;

  /// Linear layers of both layouts, embeddings, and convolutions of any rank and grouping.
  static constexpr bool supports(LayerKind kind) { return kind != LayerKind::norm; }
  /// An attention's packed projection too: A (r, embed_dim), B (3·embed_dim, r), and A and B for its output projection.
  static constexpr bool supports_packed = true;
};

/// LoRA at one site. Linear: A (r, in), B (out, r). Embedding: A (r, num), B (dim, r).
/// Convolution: A (r, in, k…), ungrouped, with the base's stride, padding, dilation and padding mode (PEFT leaves the
/// last two out: files of layers with neither are unaffected); B (out, r/groups, 1…).
///
/// Where a scheme starts from the base weight (PiSSA, OLoRA), the update is scaling · (B·A − B₀·A₀)·x: the base keeps
/// its values, and the result is that of PEFT, which takes scaling · B₀·A₀ out of the base.
/// With use_dora a magnitude per output unit scales what the layer and the adapters before have made, and the update.
template <class T>
class Lora::State final : public AdapterState<T> {
 public:
  State(const LoraConfig& config, const LayerFacts& facts, const AdapterPlan& plan)
      : facts_(facts),
        r_(plan.r),
        scaling_(plan.lora_alpha / (config.use_rslora ? std::sqrt(double(plan.r)) : double(plan.r))),
        times_(plan.times),
        dropout_(config.lora_dropout),
        is_of_parameter_(!plan.parameter.empty()),
        init_(init_scheme(config.init_lora_weights)) {
    Shape a{r_, facts.in}, b{facts.out, r_};
    if (facts.kind == LayerKind::conv) {
      b[1] = r_ / facts.conv.groups;
      for (const Index size : facts.conv.kernel) {
        a.push_back(size);
        b.push_back(1);
      }
    }
    a_ = ParameterData(dtype_of<T>, a);
    b_ = ParameterData(dtype_of<T>, b);
    if (config.lora_bias) beta_ = ParameterData(dtype_of<T>, Shape{facts.out});
    has_beta_ = config.lora_bias;
    for (ParameterData* parameter : {&a_, &b_, &beta_}) parameter->set_requires_grad(!config.inference_mode);
    if (!config.use_dora) return;
    dora_ = std::make_shared<detail::Dora<T>>(facts);
    dora_->magnitude.set_requires_grad(!config.inference_mode);
  }

  [[nodiscard]] PeftType type() const override { return PeftType::lora; }
  [[nodiscard]] bool is_of_parameter() const override { return is_of_parameter_; }
  [[nodiscard]] std::unique_ptr<AnyAdapterState> clone() const override {
    auto twin = detail::make_unique_as<AnyAdapterState, State>(*this);
    if (dora_) static_cast<State&>(*twin).dora_ = std::make_shared<detail::Dora<T>>(*dora_);
    return twin;
  }
  [[nodiscard]] bool is_meta() const override {
    return a_.is_meta() || b_.is_meta() || (has_beta_ && beta_.is_meta()) || (dora_ && dora_->magnitude.is_meta());
  }
  [[nodiscard]] Index rank() const override { return r_; }
  [[nodiscard]] double scaling() const override { return scaling_; }
  [[nodiscard]] double dropout() const override { return dropout_; }

  [[nodiscard]] std::vector<AdapterParameter> parameters() override {
    std::vector<AdapterParameter> all{{"lora_A", ".weight", &a_}, {"lora_B", ".weight", &b_}};
    if (facts_.kind == LayerKind::embedding) all = {{"lora_embedding_A", "", &a_}, {"lora_embedding_B", "", &b_}};
    if (has_beta_) all.push_back({"lora_B", ".bias", &beta_});
    if (dora_) all.push_back({"lora_magnitude_vector", ".weight", &dora_->magnitude, true, false});
    return all;
  }

  void initialise(std::uint64_t seed, std::string_view path) override {
    const std::string name(path);
    const bool is_embedding = facts_.kind == LayerKind::embedding;
    const bool is_identity = init_ != InitScheme::random;
    const double bound_a = 1 / std::sqrt(double(a_.shape().cols()));
    const double bound_b = 1 / std::sqrt(double(b_.shape().cols()));
    if (is_embedding) {
      if (is_identity) fill_constant(a_, 0);
      else fill_normal(a_, {seed, name + ".lora_embedding_A"}, 1);
      fill_normal(b_, {seed, name + ".lora_embedding_B"}, 1);
      return;
    }
    if (facts_.kind == LayerKind::linear && initial_) return copy_factors(*initial_);
    if (facts_.kind == LayerKind::linear && init_ == InitScheme::orthogonal)
      return copy_factors(to_parameters(detail::need_factorisers("init_lora_weights \"orthogonal\"").orthogonal(facts_.out, facts_.in, r_, seed, name)));
    if (init_ == InitScheme::gaussian) fill_normal(a_, {seed, name + ".lora_A.weight"}, 1 / double(r_));
    else fill_uniform(a_, {seed, name + ".lora_A.weight"}, bound_a);
    if (is_identity) fill_constant(b_, 0);
    else fill_uniform(b_, {seed, name + ".lora_B.weight"}, bound_b);
    if (!has_beta_) return;
    if (is_identity) fill_constant(beta_, 0);
    else fill_uniform(beta_, {seed, name + ".lora_B.bias"}, bound_b);
  }

  void take_initial_factors(const LowRank<double>& factors) override {
    initial_ = std::make_shared<const InitialFactors>(to_parameters(factors));
    if (dora_) dora_->initial = initial_;
  }
  [[nodiscard]] const InitialFactors* initial_factors() const override { return initial_.get(); }
  void start_from(const BaseWeight<T>& base) override {
    if (dora_) dora_->initialise(base, a_, b_, scaling_);
  }

  void update(const SiteInput<T>& x, Out<T> y, double weight, const BaseWeight<T>& base, Workspace* workspace) const override {
    add_product(x, y, scale_of(weight), base.first_row(), workspace);
    if (!dora_) return;
    const Scratch<T> memory(workspace, facts_.out);
    dora_->rescale(y, factors(base, weight, memory.data(), workspace), base, workspace);
  }

  [[nodiscard]] Index terms_of_update(Index n, Index out, double weight, const BaseWeight<T>& base,
                                      kernels::LowRankTerm<T>* terms) const override {
    if (is_narrow() || (dora_ && base.has_bias())) return 0;  // a bias is taken out of what DoRA scales
    return write_terms(n, base.first_row(), out, scale_of(weight), terms);
  }
  [[nodiscard]] const T* columns_of_update(double weight, const BaseWeight<T>& base, T* memory, Workspace* workspace) const override {
    return dora_ ? factors(base, weight, memory, workspace) : nullptr;
  }

  [[nodiscard]] std::optional<MergeRefusal> merge_refusal() const override {
    if (facts_.kind == LayerKind::conv && facts_.conv.groups > 1)
      return MergeRefusal{"its lora_A sees all input channels, and a grouped weight has room for those of its group only",
                          "leave it unmerged"};
    if (facts_.max_norm)
      return MergeRefusal{"the embedding has max_norm, which then would cut the sum instead of its two parts",
                          "leave it unmerged"};
    return {};
  }
  [[nodiscard]] bool is_additive() const override { return !dora_; }
  [[nodiscard]] double delta_bound(double weight) const override {
    const double products = largest(a_) * largest(b_) + (initial_ ? largest(initial_->a) * largest(initial_->b) : 0);
    return std::abs(weight * scaling_ * times_) * double(r_) * products;
  }
  [[nodiscard]] bool reads_base() const override { return dora_ != nullptr; }
  [[nodiscard]] bool folds_bias() const override { return has_beta_; }
  [[nodiscard]] bool needs_bias() const override { return has_beta_; }

  [[nodiscard]] bool wants_gradients() const {
    return a_.requires_grad() || b_.requires_grad() || (has_beta_ && beta_.requires_grad()) || update_wants_result();
  }
  [[nodiscard]] bool update_wants_result() const { return dora_ && dora_->magnitude.requires_grad(); }
  template <class = OnDemand>
  void update_vjp(const UpdateGradient<T>& to) const;
  template <class = OnDemand>
  void update_dropped(const SiteInput<T>& x, const DroppedInput<T>& dropped, Out<T> y, double weight, const BaseWeight<T>& base,
                      Workspace* workspace) const;

  void add_delta(Index begin, Out<T> rows, double weight, Workspace* workspace) const override {
    const T scale = scale_of(weight);
    if (initial_) return add_difference(begin, rows, scale, workspace);
    const Index width = rows.cols(), count = rows.rows();
    const detail::Values<T> a(a_, workspace), b(b_, workspace);
    const Scratch<T> scratch(workspace, kernels::low_rank_delta_scratch(width, r_));
    if (facts_.kind != LayerKind::embedding) {  // a convolution's kernels are the columns of a matrix
      kernels::add_low_rank_delta<T>(count, width, r_, b.data() + begin * r_, r_, nullptr, scale, a.data(), width, rows.data(),
                                     rows.outerStride(), scratch.data());
      return;
    }
    const Scratch<T> turned(workspace, r_ * (count + width));
    T* columns = turned.data();
    T* down = columns + count * r_;
    kernels::transpose(r_, count, a.data() + begin, facts_.in, columns, r_);
    kernels::transpose(width, r_, b.data(), r_, down, width);
    kernels::add_low_rank_delta<T>(count, width, r_, columns, r_, nullptr, scale, down, width, rows.data(), rows.outerStride(),
                                   scratch.data());
  }
  void fold_update(const WeightRows<T>& w, double weight) const override {
    add_delta(w.begin, w.rows, weight, w.workspace);
    if (!dora_) return;
    const Scratch<T> memory(w.workspace, facts_.out);
    const T* c = factors(w.base, weight, memory.data(), w.workspace);
    Out<T> rows = w.rows;
    for (Index i = 0; i < rows.rows(); ++i) {  // a factor for every row, or those of the dimensions for each
      T* row = rows.data() + i * rows.outerStride();
      if (facts_.kind == LayerKind::embedding) kernels::multiply<T>(1, rows.cols(), row, 0, c, 0, row, 0);
      else kernels::scale<T>(1, rows.cols(), c[w.begin + i], row, 0, row, 0);
    }
  }
  void fold_bias(T* bias, double weight, const BaseWeight<T>& base) const override {
    if (dora_) {  // what adapters before have added to the base's is scaled, as in a forward
      const Scratch<T> memory(nullptr, facts_.out);
      const T* c = factors(base, weight, memory.data(), nullptr);
      return dora_->rescale(out<T>(bias, 1, facts_.out), c, base, nullptr);
    }
    if (!has_beta_) return;
    const T scale = T(weight * scaling_);
    const detail::Values<T> beta(beta_);
    for (Index i = 0; i < facts_.out; ++i) bias[i] += scale * beta.data()[i];
  }

 private:
  friend struct detail::LoraVjp<T>;

  [[nodiscard]] T scale_of(double weight) const { return T(weight * scaling_ * times_); }
  [[nodiscard]] const T* factors(const BaseWeight<T>& base, double weight, T* memory, Workspace* workspace) const {
    return dora_->factors(base, a_, b_, scaling_, weight, memory, workspace);
  }

  void add_product(const SiteInput<T>& x, Out<T> y, T scale, Index first, Workspace* workspace) const {
    if (facts_.kind == LayerKind::linear) update_linear(x.rows, y, scale, first, workspace);
    else if (facts_.kind == LayerKind::embedding) update_embedding(x.ids, y, scale, workspace);
    else if (facts_.kind == LayerKind::conv) update_conv(x, y, scale, workspace);
  }
  /// B's rows from `first` on, and as many as y has columns: a packed layer's forward may need only some.
  void update_linear(const In<T>& x, Out<T> y, T scale, Index first, Workspace* workspace) const {
    if (is_narrow() && y.cols() == facts_.out)
      return detail::add_narrow_update<T>(x, a_, b_, packed_b_, nullptr, scale, has_beta_ ? &beta_ : nullptr, y, workspace);
    std::array<kernels::LowRankTerm<T>, AdapterState<T>::most_terms> terms;
    if (is_narrow()) {
      const detail::Values<T> a(a_, workspace), b(b_, workspace);
      terms[0] = {r_, a.data(), nullptr, nullptr, scale, nullptr, b.data() + first * r_};
      return detail::add_terms<T>(std::span(terms).first(1), x, nullptr, y, workspace);
    }
    const Index count = write_terms(x.rows(), first, y.cols(), scale, terms.data());
    detail::add_terms<T>(std::span(terms).first(std::size_t(count)), x, nullptr, y, workspace);
  }
  Index write_terms(Index n, Index first, Index out, T scale, kernels::LowRankTerm<T>* terms) const {
    const T* packed = out == facts_.out ? packed_b_.get(b_, n, out, r_) : nullptr;
    terms[0] = {r_, data(a_), packed, nullptr, scale, data(beta_), data(b_) + first * r_};
    if (!initial_) return 1;
    terms[1] = {r_, data(initial_->a), nullptr, nullptr, -scale, nullptr, data(initial_->b)};
    return 2;
  }
  [[nodiscard]] bool is_narrow() const {
    return detail::is_narrow<T>(a_) || detail::is_narrow<T>(b_) || (has_beta_ && detail::is_narrow<T>(beta_));
  }

  /// [B, −B₀]·[A; A₀], so that the difference too is formed from zero and added once.
  void add_difference(Index begin, Out<T> rows, T scale, Workspace* workspace) const {
    const Index width = rows.cols(), count = rows.rows(), r = 2 * r_;
    const Scratch<T> scratch(workspace, kernels::low_rank_delta_scratch(width, r)), both(workspace, r * (width + count));
    const detail::Values<T> own_a(a_, workspace), own_b(b_, workspace);
    T* a = both.data();
    T* b = a + r * width;
    detail::join_factors(r_, width, count, own_a.data(), own_b.data(), *initial_, a, b, begin);
    kernels::add_low_rank_delta<T>(count, width, r, b, r, nullptr, scale, a, width, rows.data(), rows.outerStride(), scratch.data());
  }

  [[nodiscard]] InitialFactors to_parameters(const LowRank<double>& factors) const {
    InitialFactors own{ParameterData(dtype_of<T>, a_.shape()), ParameterData(dtype_of<T>, b_.shape())};
    const auto fill = [](ParameterData& parameter, const Matrix<double>& values) {
      parameter.allocate();
      std::transform(values.data(), values.data() + values.size(), reinterpret_cast<T*>(parameter.data()), [](double v) { return T(v); });
    };
    fill(own.a, factors.a);
    fill(own.b, factors.b);
    return own;
  }
  /// The values alone: what was said about gradients stays.
  void copy_factors(const InitialFactors& factors) {
    assign(a_, factors.a);
    assign(b_, factors.b);
  }
  static void assign(ParameterData& parameter, const ParameterData& values) {
    parameter.allocate();
    detail::convert(values.dtype(), values.data(), parameter.dtype(), parameter.data(), parameter.shape().size());
  }

  void update_embedding(const Ids& ids, Out<T> y, T scale, Workspace* workspace) const {
    const Index n = ids.size(), num = facts_.in;
    for (Index i = 0; i < n; ++i)
      if (ids[i] < 0 || ids[i] >= num) detail::id_out_of_range(ids[i], num);
    const detail::Values<T> b(b_, workspace);
    const Scratch<T> scratch(workspace, r_ + kernels::low_rank_embedding_scratch(n, facts_.out, r_));
    scale *= T(facts_.embed_scale);
    if (!facts_.max_norm && !detail::is_narrow<T>(a_)) {
      kernels::low_rank_embedding_update<T>(
          n, [&](Index i) { return ids[i]; }, num, r_, facts_.out, data(a_), b.data(), scale, y.data(), y.outerStride(), scratch.data());
      return;
    }
    T* column = scratch.data();
    for (Index i = 0; i < n; ++i) {
      for (Index k = 0; k < r_; ++k) column[k] = element_as<T>(a_.dtype(), a_.data(), std::size_t(k * num + ids[i]));
      const T factor = facts_.max_norm ? scale * renorm_factor(column) : scale;
      for (Index k = 0; k < r_; ++k) column[k] *= factor;
      kernels::low_rank_expand<T>(1, facts_.out, r_, column, b.data(), y.data() + i * y.outerStride(), y.outerStride(), column + r_);
    }
  }
  /// torch looks A's columns up with the base's max_norm: longer ones are scaled down to it.
  [[nodiscard]] T renorm_factor(const T* column) const {
    double sum = 0;
    for (Index k = 0; k < r_; ++k) sum += std::pow(std::abs(double(column[k])), facts_.norm_type);
    return T(detail::renorm_factor(std::pow(sum, 1 / facts_.norm_type), *facts_.max_norm));
  }

  void update_conv(const SiteInput<T>& x, Out<T> y, T scale, Workspace* workspace) const {
    const kernels::ConvGeometry geometry = detail::conv_geometry(facts_.conv, x.row_shape);
    const detail::Values<T> a(a_, workspace), b(b_, workspace), beta(beta_, workspace);
    const Scratch<T> scratch(workspace, kernels::low_rank_conv_scratch(geometry, r_));
    for (Index i = 0; i < x.rows.rows(); ++i)
      kernels::low_rank_conv_update<T>(geometry, r_, x.rows.data() + i * x.rows.outerStride(), a.data(), b.data(), nullptr, scale,
                                       beta.data(), y.data() + i * y.outerStride(), scratch.data());
  }

  [[nodiscard]] static double largest(const ParameterData& parameter) {
    return double(kernels::largest_magnitude<T>(parameter.shape().size(), detail::Values<T>(parameter).data()));
  }
  [[nodiscard]] static const T* data(const ParameterData& parameter) { return reinterpret_cast<const T*>(parameter.data()); }

  LayerFacts facts_;
  Index r_;
  double scaling_;
  double times_;  // PEFT adds the update of an attention's output projection twice
  double dropout_;
  bool is_of_parameter_;
  InitScheme init_;
  std::shared_ptr<const InitialFactors> initial_{};  // never changes: copies share it
  ParameterData a_, b_, beta_;
  detail::PackedB<T> packed_b_;
  bool has_beta_ = false;
  std::shared_ptr<detail::Dora<T>> dora_{};  // with use_dora; of one state alone: clone() makes another
};

GRAFT_SHARED_CLASS(Lora::State<float>)

}  // namespace graft
