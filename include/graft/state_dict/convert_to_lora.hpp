#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "combine_ia3.hpp"
#include "derived_adapter.hpp"

namespace graft {

namespace detail {

/// Makes one LoRA adapter of the joint effect of adapters, without changing the model.
template <class S = double>
class LoraConversion {
 public:
  LoraConversion(const ModelSites& model, Records records, const RankOrShare& wanted)
      : model_(model),
        records_(std::move(records)),
        wanted_(wanted),
        by_(need_factorisers("a conversion to LoRA")) {
    if (wanted_.rank < 0 || (wanted_.rank == 0 && !(wanted_.share > 0 && wanted_.share <= 1)))
      fail<ConfigError>(
          "a conversion to rank " +
              (wanted_.share != 0 ? std::to_string(wanted_.share) : std::to_string(wanted_.rank)),
          "an integer is a rank, a number with a decimal point the share of the energy that is kept",
          "use a positive rank, or a share above 0 and up to 1");
    check_derivable(records_, "a conversion");
  }

  [[nodiscard]] DerivedAdapter make() const {
    const int usual = wanted_.rank ? int(wanted_.rank) : 1;
    LoraConfig config{.r = usual, .lora_alpha = double(usual)};
    DerivedAdapter derived;
    config.modules_to_save = take_copies(model_, records_, derived.tensors);
    std::vector<std::string> paths;
    std::vector<std::pair<std::string, int>> ranks;
    std::vector<std::pair<std::string, double>> alphas;
    std::vector<std::pair<const AnySite*, Matrix<S>>> biases;
    std::vector<std::pair<const AnySite*, Effect>> effects;
    for (const auto& site : model_.sites)
      if (std::optional<Effect> effect = effect_at(*site)) effects.emplace_back(site.get(), std::move(*effect));
    for (std::size_t i = 0; i < effects.size(); ++i) {
      auto& [site, effect] = effects[i];
      const bool is_inside = is_inside_adapted(*site);
      for (std::size_t other = i + 1; !is_inside && other < effects.size() && effects[other].first->outer() == site; ++other)
        share_rank(effect.product, effects[other].second.product);
      insert_factors(derived.tensors, *site, effect.product);
      config.lora_bias |= effect.bias.size() > 0;
      biases.emplace_back(site, effect.bias);
      if (is_inside) continue;
      paths.push_back(site->path());
      ranks.emplace_back(site->path(), int(effect.product.rank()));
      alphas.emplace_back(site->path(), double(effect.product.rank()));
    }
    for (auto& [site, bias] : biases) {  // lora_bias holds for all sites of an adapter
      if (!config.lora_bias || site->facts().kind == LayerKind::embedding) continue;
      if (!bias.size()) bias = Matrix<S>::Zero(1, site->facts().out);
      derived.tensors.insert(file_key(site->path(), "lora_B", ".bias"),
                             tensor_of<S>(site->dtype(), Shape{site->facts().out}, bias));
    }
    choose_targets(model_, records_, paths, config);
    config.rank_pattern = patterns_of(std::move(ranks), config.r);
    config.alpha_pattern = patterns_of(std::move(alphas), config.lora_alpha);
    config.inference_mode =
        std::visit([](const auto& c) { return c.inference_mode; }, records_.front()->config());
    derived.config = std::move(config);
    return derived;
  }

 private:
  struct Effect {
    LowRank<S> product;
    Matrix<S> bias;
  };

  /// An attention and its output projection have one rank: ranks that one of them lacks are zeros.
  static void share_rank(LowRank<S>& one, LowRank<S>& other) {
    for (const auto& [narrow, wide] : {std::pair(&one, &other), std::pair(&other, &one)}) {
      const Index own = narrow->rank(), wanted = wide->rank();
      if (own >= wanted) continue;
      LowRank<S> padded{Matrix<S>::Zero(narrow->b.rows(), wanted), Matrix<S>::Zero(wanted, narrow->a.cols())};
      padded.a.topRows(own) = narrow->a;
      padded.b.leftCols(own) = narrow->b;
      *narrow = std::move(padded);
    }
  }

  [[nodiscard]] std::optional<Effect> effect_at(const AnySite& site) const {
    std::vector<SiteFactors<S>> updates;
    std::vector<SiteVector<S>> vectors;
    for (const auto& record : records_) {
      if (record->type() != PeftType::ia3) {
        if (auto factors = factors_at<S>(site, *record)) updates.push_back(std::move(*factors));
      } else if (auto vector = vector_at<S>(site, *record)) {
        vectors.push_back(std::move(*vector));
      }
    }
    if (updates.empty() && vectors.empty()) return std::nullopt;
    const LayerFacts facts = site.facts();
    Effect effect;
    for (const SiteFactors<S>& update : updates)
      if (update.beta.size()) {
        if (!effect.bias.size()) effect.bias = Matrix<S>::Zero(1, facts.out);
        effect.bias += update.scale * update.beta;
      }
    if (vectors.empty())
      effect.product = of_updates(site, updates);
    else
      scale(site, updates, vectors, effect);
    return effect;
  }

  /// The sum of low-rank updates, which is not formed.
  [[nodiscard]] LowRank<S> of_updates(const AnySite& site, const std::vector<SiteFactors<S>>& updates) const {
    const LayerFacts facts = site.facts();
    const Index groups = groups_of(facts), out = facts.out / groups;
    std::vector<LowRank<S>> parts;
    Index largest = 0;
    for (Index g = 0; g < groups; ++g) {
      Index r = 0, at = 0;
      for (const auto& update : updates) r += update.product.rank() / groups;
      LowRank<S> all{Matrix<S>(out, r), Matrix<S>(r, width_of(facts))};
      for (const auto& update : updates) {
        const Index own = update.product.rank() / groups;
        all.a.middleRows(at, own) = update.scale * update.product.a.middleRows(g * own, own);
        all.b.middleCols(at, own) = update.product.b.middleRows(g * out, out);
        at += own;
      }
      parts.push_back(by_.truncate_product(all, part_of(site, groups)));
      largest = std::max(largest, parts.back().rank());
    }
    LowRank<S> whole{Matrix<S>::Zero(facts.out, largest), Matrix<S>::Zero(groups * largest, width_of(facts))};
    for (Index g = 0; g < groups; ++g) {
      const LowRank<S>& part = parts[std::size_t(g)];
      whole.a.middleRows(g * largest, part.rank()) = part.a;
      whole.b.block(g * out, 0, out, part.rank()) = part.b;
    }
    return whole;
  }

  /// What is asked for of one group's matrix.
  [[nodiscard]] RankOrShare part_of(const AnySite& site, Index groups) const {
    const LayerFacts facts = site.facts();
    const Index most = std::min(facts.out / groups, width_of(facts)) * groups;
    if (wanted_.rank > most || wanted_.rank % groups != 0)
      fail<ConfigError>("a conversion to rank " + std::to_string(wanted_.rank) + " at '" + site.path() +
                            "', of " + facts.shape_text() +
                            (groups > 1 ? " in " + std::to_string(groups) + " groups" : ""),
                        groups > 1 ? "every group has an equal part of the ranks"
                                   : "its update has no more ranks than its smaller dimension",
                        "choose a rank of at most " + std::to_string(most) + ", or a share of the energy");
    RankOrShare part = wanted_;
    part.rank /= groups;
    return part;
  }

  /// (IA)³ scales what the layer and the updates make together: ΔW = lₒ∘(W + ΣΔ)∘lᵢ − W, and the bias
  /// likewise.
  void scale(const AnySite& site, const std::vector<SiteFactors<S>>& updates,
             const std::vector<SiteVector<S>>& vectors, Effect& effect) const {
    const LayerFacts facts = site.facts();
    if (groups_of(facts) > 1)
      fail<AdapterError>("a conversion of (IA)³ at '" + site.path() + "', a grouped convolution",
                         "its lora_A would see the channels of all groups",
                         "leave the convolution out of the adapter");
    const Matrix<S> weight = weight_matrix(site);
    Matrix<S> scaled = weight;
    for (const auto& update : updates) scaled += update.scale * update.product.b * update.product.a;
    const Index kernel = facts.kind == LayerKind::conv ? facts.conv.kernel.size() : 1;
    Matrix<S> outward = Matrix<S>::Ones(1, facts.out);
    for (const auto& vector : vectors) {
      const S* l = vector.l.data();
      if (vector.is_feedforward)
        for (Index column = 0; column < scaled.cols(); ++column) scaled.col(column) *= l[column / kernel];
      else
        for (Index row = 0; row < scaled.rows(); ++row) outward(0, row) *= l[row];
    }
    for (Index row = 0; row < scaled.rows(); ++row) scaled.row(row) *= outward(0, row);
    effect.product = by_.truncate(scaled - weight, part_of(site, 1));
    Matrix<S> bias = Matrix<S>::Zero(1, facts.out);
    for (const BaseTensor& tensor : site.tensors())
      if (tensor.key == "bias") {
        const TensorView view = tensor.read();
        for (Index i = 0; i < facts.out; ++i)
          bias(0, i) = element_as<S>(view.dtype, view.data, std::size_t(i));
      }
    Matrix<S> changed = bias;
    if (effect.bias.size()) changed += effect.bias;
    changed.array() *= outward.array();
    changed -= bias;
    if (changed.cwiseAbs().maxCoeff() > 0 || effect.bias.size()) effect.bias = changed;
  }

  /// (out, in) or (out, in · kernel).
  [[nodiscard]] static Matrix<S> weight_matrix(const AnySite& site) {
    const LayerFacts facts = site.facts();
    if (facts.kind == LayerKind::linear) return base_weight_values(site);
    const TensorView view = base_weight_view(site);
    Matrix<S> weight(facts.out, width_of(facts));
    check_size(view.size(), Shape{weight.rows(), weight.cols()});
    for (Index i = 0; i < weight.size(); ++i)
      weight.data()[i] = element_as<S>(view.dtype, view.data, std::size_t(i));
    return weight;
  }

  const ModelSites& model_;
  Records records_;
  RankOrShare wanted_;
  const Factorisers& by_;
};
GRAFT_SHARED_CLASS(LoraConversion<double>)

}  // namespace detail

/// Makes a LoRA adapter of scale 1 of the joint effect of one or several adapters of any method, by truncated
/// SVD of what they change: to a rank (an integer), or per site to the least rank that holds a share of the
/// energy (a number up to 1 with a decimal point): PEFT's `convert_to_lora`. Low-rank updates are not formed.
/// What (IA)³ does to a bias becomes a `lora_bias`. The new adapter is frozen and not active. Needs
/// graft/factorise.hpp.
/// @throws AdapterError for adapters that no LoRA can stand for (DoRA, trained biases, …), ConfigError for a
/// rank that does not fit; nothing has changed then.
template <class M>
InjectReport convert_to_lora(M& model, Names adapters, std::string new_name, RankOrShare rank) {
  const ModelSites sites = sites_of(model);
  detail::check_new_name(sites, new_name);
  auto records = detail::need_records(sites, adapters.list(), "a conversion");
  return detail::add_derived(sites, detail::LoraConversion<double>(sites, std::move(records), rank).make(),
                             new_name);
}

}  // namespace graft
