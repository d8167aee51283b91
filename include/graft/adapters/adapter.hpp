#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../core/make_unique_as.hpp"
#include "../core/on_demand.hpp"
#include "../modules/base_weight.hpp"
#include "../modules/expert_ids.hpp"
#include "../tensor/batch.hpp"
#include "../tensor/init.hpp"
#include "config.hpp"
#include "factorisers.hpp"

namespace graft {
namespace kernels {
template <class T>
struct LowRankTerm;
}
// what training asks of a state, in members that are templates: a program that does not train compiles none of them
template <class T>
struct UpdateGradient;
template <class T>
struct FactorGradient;
template <class T>
struct DroppedInput;

/// The methods that graft knows.
enum class PeftType { lora, adalora, ia3 };

/// The name in files: "LORA", "ADALORA", "IA3".
[[nodiscard]] constexpr std::string_view peft_type_name(PeftType type) {
  return type == PeftType::lora ? "LORA" : type == PeftType::adalora ? "ADALORA" : "IA3";
}

/// How one adapter looks at one layer: what a plan decides before anything is allocated.
struct AdapterPlan {
  Index r = 0;             ///< rank; of a pruned AdaLoRA layer the kept one
  double lora_alpha = 0;   ///< after `alpha_pattern`
  bool is_feedforward = false;
  bool low_cpu_mem_usage = false;  ///< leave the parameters on the meta device
  std::uint64_t seed = 0;
  std::string path;  ///< of the site: names the random streams
  unsigned depth = 0;  ///< how many wrappers of other methods, or of the module's other parameters, are around it
  std::string parameter{};  ///< the layer's parameter that it adapts, by name; empty: the layer as a whole
  bool with_outer = false;  ///< it comes with the adapter of the site around it: of an attention's output projection
  int times = 1;            ///< how often the update is added
};

/// A parameter of an adapter at a site, with PEFT's name: in memory `lora_A.<adapter>.weight`.
struct AdapterParameter {
  std::string_view name;    ///< "lora_A"
  std::string_view suffix;  ///< ".weight", ".bias" or nothing
  ParameterData* data;
  bool is_saved = true;  ///< part of an adapter's file
  bool has_suffix_in_file = true;
};

/// What comes into a site: rows, or ids at an embedding.
template <class T>
struct SiteInput {
  In<T> rows{nullptr, 0, 0, Eigen::OuterStride<>(0)};
  Ids ids{};
  Shape row_shape{};  ///< (channels, spatial…) at a convolution
  ExpertIds experts{};  ///< of the rows, at a stack of weights

  [[nodiscard]] Index count() const { return rows.data() ? rows.rows() : ids.size(); }
  [[nodiscard]] SiteInput part(Index begin, Index size) const {
    SiteInput some = *this;
    some.experts = experts.part(begin, size);
    if (rows.data()) new (&some.rows) In<T>(rows_of(rows, begin, size));
    else some.ids = ids.subspan(begin, size);
    return some;
  }
};

/// Why an adapter cannot be folded into its layer's weight, and what else can be done.
struct MergeRefusal {
  std::string why, fix;
};

/// The product that a scheme of `init_lora_weights` made of a base weight: a (r, in), b (out, r). PEFT takes it out of
/// the base; here the base keeps its values, and the adapter subtracts it.
struct InitialFactors {
  ParameterData a, b;
};

namespace detail {
/// [A; A₀] (2r, in) into `a`, and `count` rows of [B, −B₀] from `begin` on into `b`, (count, 2r): the difference of both
/// products as one.
template <class T>
void join_factors(Index r, Index in, Index count, const T* own_a, const T* own_b, const InitialFactors& initial, T* a, T* b,
                  Index begin = 0) {
  const T* initial_a = reinterpret_cast<const T*>(initial.a.data());
  const T* initial_b = reinterpret_cast<const T*>(initial.b.data()) + begin * r;
  own_b += begin * r;
  std::copy_n(own_a, r * in, a);
  std::copy_n(initial_a, r * in, a + r * in);
  for (Index i = 0; i < count; ++i)
    for (Index k = 0; k < r; ++k) {
      b[2 * i * r + k] = own_b[i * r + k];
      b[(2 * i + 1) * r + k] = -initial_b[i * r + k];
    }
}
}  // namespace detail

/// An adapter at one site, without its scalar: its parameters and what they mean.
class AnyAdapterState {
 public:
  virtual ~AnyAdapterState() = default;
  [[nodiscard]] virtual PeftType type() const = 0;
  /// Whether it adapts one parameter of its layer (`target_parameters`): then PEFT has another wrapper around that.
  [[nodiscard]] virtual bool is_of_parameter() const { return false; }
  [[nodiscard]] virtual std::unique_ptr<AnyAdapterState> clone() const = 0;
  /// In the order in which torch registers them.
  [[nodiscard]] virtual std::vector<AdapterParameter> parameters() = 0;
  /// Fills the parameters as the config says (1.4): by (seed, path and name, index), whenever it is called. Sites call
  /// it, with what starts from their weight after it (`AnySite::initialise`).
  virtual void initialise(std::uint64_t seed, std::string_view path) = 0;
  /// Lets `initialise` start from these factors, and every update subtract them.
  virtual void take_initial_factors(const LowRank<double>&) {}
  /// Those factors; null without such a scheme.
  [[nodiscard]] virtual const InitialFactors* initial_factors() const { return nullptr; }
  /// Whether some parameter has no memory yet.
  [[nodiscard]] virtual bool is_meta() const = 0;
  [[nodiscard]] virtual Index rank() const { return 0; }
  [[nodiscard]] virtual double scaling() const { return 1; }
  [[nodiscard]] virtual bool is_feedforward() const { return false; }
  [[nodiscard]] virtual double dropout() const { return 0; }
  /// Nothing where the layer with the adapter folded in computes what layer and adapter do.
  [[nodiscard]] virtual std::optional<MergeRefusal> merge_refusal() const { return {}; }
  /// Whether folding only adds to the weight: then the same sum, subtracted, takes it out again.
  [[nodiscard]] virtual bool is_additive() const { return true; }
  /// No element of ΔW is larger; infinity where that is not known without forming it.
  [[nodiscard]] virtual double delta_bound(double /*weight*/) const { return std::numeric_limits<double>::infinity(); }
  /// Whether it takes part in a forward's update.
  [[nodiscard]] virtual bool has_update() const { return true; }
  /// Whether it scales the input or the result, and so every update.
  [[nodiscard]] virtual bool has_factors() const { return false; }
  /// Whether its update depends on the base weight, and scales what stands in the result already.
  [[nodiscard]] virtual bool reads_base() const { return false; }
  /// Whether folding changes the bias too.
  [[nodiscard]] virtual bool folds_bias() const { return false; }
  /// Whether folding needs a bias where the layer has none.
  [[nodiscard]] virtual bool needs_bias() const { return false; }
};

/// Rows of a weight while adapters are folded into it: torch's layout, (out, the rest) or (num, dim).
template <class T>
struct WeightRows {
  Index begin;        ///< the first of them in the whole weight
  Out<T> rows;        ///< changed by one adapter after another
  BaseWeight<T> base;  ///< the whole weight before the first of them
  Workspace* workspace = nullptr;
};

/// An adapter at one site: the four steps of a site's forward, of which it takes part in those it needs, and the same
/// steps on the rows of a weight.
///
/// `weight` is the selection's weight times the adapter's strength: it multiplies the scaling of LoRA and
/// AdaLoRA; for (IA)³ the vector l becomes 1 + weight · (l − 1).
template <class T>
class AdapterState : public AnyAdapterState {
 public:
  /// Whether `before` must be called on a copy of the input.
  [[nodiscard]] virtual bool acts_before() const { return false; }
  /// Changes the input x (n, in), for base and update alike.
  virtual void before(Out<T> /*x*/, double /*weight*/) const {}
  /// Adds to y (n, out), in which the product with `base` stands already, and the updates of the adapters before.
  virtual void update(const SiteInput<T>& /*x*/, Out<T> /*y*/, double /*weight*/, const BaseWeight<T>& /*base*/,
                      Workspace*) const {}
  /// The most terms that one adapter answers.
  static constexpr Index most_terms = 2;
  /// For n rows of a linear layer: writes its update to `terms`, which has room for most_terms, as
  /// `kernels::low_rank_updates` takes it, and answers how many these are. y has `out` columns, the first of which is
  /// that of `base.first_row()`. They are valid until a parameter is written. 0: it is not such a sum; `update` adds it.
  [[nodiscard]] virtual Index terms_of_update(Index /*n*/, Index /*out*/, double /*weight*/, const BaseWeight<T>& /*base*/,
                                              kernels::LowRankTerm<T>* /*terms*/) const {
    return 0;
  }
  /// Where those terms are not all: the factors (out) of y's columns once they are added, or null. `memory` has room for
  /// them and may be what is answered.
  [[nodiscard]] virtual const T* columns_of_update(double /*weight*/, const BaseWeight<T>& /*base*/, T* /*memory*/, Workspace*) const {
    return nullptr;
  }
  /// Fills the parameters that start from the layer's weight: to be called after `initialise`.
  virtual void start_from(const BaseWeight<T>& /*base*/) {}
  /// Changes the result y (n, out).
  virtual void after(Out<T> /*y*/, double /*weight*/) const {}

  /// Adds ΔW, formed from zero and added once: of zeroed rows it makes those of ΔW itself. Additive adapters only.
  virtual void add_delta(Index /*begin*/, Out<T> /*rows*/, double /*weight*/, Workspace*) const {}
  /// The update folded in, after those of the adapters before.
  virtual void fold_update(const WeightRows<T>& w, double weight) const { add_delta(w.begin, w.rows, weight, w.workspace); }
  /// What `before` and `after` do to the input and the result, folded in after all updates.
  virtual void fold_factors(const WeightRows<T>& /*w*/, double /*weight*/) const {}
  /// What folding does to the bias (out), in which `base`'s stood at first.
  virtual void fold_bias(T* /*bias*/, double /*weight*/, const BaseWeight<T>& /*base*/) const {}
};

}  // namespace graft
