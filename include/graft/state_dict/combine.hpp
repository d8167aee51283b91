#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "../adapters/combination.hpp"
#include "derived_adapter.hpp"

namespace graft::detail {

/// Makes one LoRA adapter of several of its family, without changing the model.
template <class S = double>
class LoraCombination {
 public:
  LoraCombination(const ModelSites& model, Records records, std::vector<double> weights, CombinationType type,
                  const CombineOptions& options)
      : model_(model),
        records_(std::move(records)),
        weights_(std::move(weights)),
        options_(options),
        type_(type) {
    check_density(type_, options_);
    if (records_.size() == 1) type_ = CombinationType::linear;  // without cross terms it is exact
    if (ends_in_svd(type_)) (void)need_factorisers("a combination by SVD");
  }

  [[nodiscard]] DerivedAdapter make() const {
    const Index r = new_rank();
    LoraConfig config{.r = int(r), .lora_alpha = double(r)};
    DerivedAdapter derived;
    config.modules_to_save = take_copies(model_, records_, derived.tensors);
    std::vector<std::string> paths;
    for (const auto& site : model_.sites) {
      std::vector<Present> present;
      for (std::size_t i = 0; i < records_.size(); ++i)
        if (auto factors = factors_at<S>(*site, *records_[i])) present.push_back({i, std::move(*factors)});
      if (present.empty()) continue;
      const LayerFacts facts = site->facts();
      Matrix<S> beta;
      for (const auto& [adapter, factors] : present) {
        if (!factors.beta.size()) continue;
        if (!beta.size()) beta = Matrix<S>::Zero(1, facts.out);
        beta += weights_[adapter] * factors.scale * factors.beta;
      }
      config.lora_bias |= beta.size() > 0;
      insert_factors(derived.tensors, *site, product_of(facts, site->path(), present, r), beta);
      if (!is_inside_adapted(*site)) paths.push_back(site->path());
    }
    if (config.lora_bias) complete_biases(paths, derived.tensors);
    choose_targets(model_, records_, paths, config);
    std::visit(
        [&](const auto& first) {
          config.fan_in_fan_out = first.fan_in_fan_out;
          config.inference_mode = first.inference_mode;
          if constexpr (requires { first.lora_dropout; }) config.lora_dropout = first.lora_dropout;
        },
        records_.front()->config());
    derived.config = std::move(config);
    return derived;
  }

 private:
  struct Present {
    std::size_t adapter;
    SiteFactors<S> factors;
  };

  /// The largest rank that an adapter has anywhere, as its config says.
  [[nodiscard]] static Index config_rank(const PeftConfig& config) {
    if (const auto* ada = std::get_if<AdaLoraConfig>(&config)) return std::max(ada->init_r, 1);
    const auto& lora = std::get<LoraConfig>(config);
    int r = lora.r;
    for (const auto& [pattern, rank] : lora.rank_pattern) r = std::max(r, rank);
    return takes_from_base(init_scheme(lora.init_lora_weights)) ? 2 * r : r;
  }

  [[nodiscard]] Index new_rank() const {
    Index largest = 0, sum = 0;
    for (const auto& record : records_) {
      const Index r = config_rank(record->config());
      if (largest && r != largest && type_ != CombinationType::cat && !ends_in_svd(type_))
        unequal_ranks("r in their configs");
      largest = std::max(largest, r);
      sum += r;
    }
    if (type_ == CombinationType::cat) return sum;
    if (!ends_in_svd(type_) || !options_.svd_rank) return largest;
    if (*options_.svd_rank <= 0)
      fail<ConfigError>("svd_rank is " + std::to_string(*options_.svd_rank), "a rank is at least 1",
                        "use a positive number");
    return *options_.svd_rank;
  }
  [[noreturn]] static void unequal_ranks(const std::string& where) {
    fail<AdapterError>("the adapters of a combination have unequal ranks: " + where,
                       "this type adds A to A and B to B, which must have one shape",
                       "use CombinationType::cat, or one that ends in svd");
  }

  /// `lora_bias` holds for all sites of an adapter.
  void complete_biases(const std::vector<std::string>& paths, StateDict& tensors) const {
    for (const auto& site : model_.sites) {
      const std::string key = file_key(site->path(), "lora_B", ".bias");
      const LayerFacts facts = site->facts();
      if (std::find(paths.begin(), paths.end(), site->path()) == paths.end() || tensors.contains(key))
        continue;
      if (facts.kind == LayerKind::embedding) continue;  // the plan refuses it
      tensors.insert(key, tensor_of<S>(site->dtype(), Shape{facts.out}, Matrix<S>::Zero(1, facts.out)));
    }
  }

  /// ΔW of several adapters at one site, of rank r; ranks that are not needed are zeros.
  [[nodiscard]] LowRank<S> product_of(const LayerFacts& facts, const std::string& path,
                                      const std::vector<Present>& present, Index r) const {
    const Index groups = groups_of(facts), width = width_of(facts), out = facts.out / groups,
                r_group = r / groups;
    LowRank<S> result{Matrix<S>::Zero(facts.out, r_group), Matrix<S>::Zero(r, width)};
    if (r % groups != 0) return result;  // the plan refuses it
    const auto put = [&](Index group, const LowRank<S>& part) {
      result.a.middleRows(group * r_group, part.rank()) = part.a;
      result.b.block(group * out, 0, out, part.rank()) = part.b;
    };
    if (type_ == CombinationType::cat) {
      for (Index g = 0; g < groups; ++g) put(g, stacked(present, g, groups));
    } else if (type_ == CombinationType::svd) {
      for (Index g = 0; g < groups; ++g)
        put(g, factorisers->truncate_product(stacked(present, g, groups), r_group));
    } else if (ends_in_svd(type_)) {
      const Matrix<S> delta = combined_delta(facts, path, present);
      for (Index g = 0; g < groups; ++g)
        put(g, factorisers->truncate(delta.middleRows(g * out, out), r_group));
    } else {
      const LowRank<S> sum = combined_factors(path, present);
      for (Index g = 0; g < groups; ++g) put(g, group_of(sum, g, groups));
    }
    return result;
  }

  /// The part of a grouped convolution's matrices that belongs to one group of outputs.
  [[nodiscard]] static LowRank<S> group_of(const LowRank<S>& product, Index group, Index groups) {
    const Index r = product.rank() / groups, out = product.b.rows() / groups;
    return {product.b.middleRows(group * out, out), product.a.middleRows(group * r, r)};
  }

  /// [B₁ B₂ …] and [w₁s₁A₁; w₂s₂A₂; …]: exact.
  [[nodiscard]] LowRank<S> stacked(const std::vector<Present>& present, Index group, Index groups) const {
    Index r = 0;
    for (const auto& one : present) r += one.factors.product.rank() / groups;
    const LowRank<S>& first = present.front().factors.product;
    LowRank<S> all{Matrix<S>(first.b.rows() / groups, r), Matrix<S>(r, first.a.cols())};
    Index row = 0;
    for (const auto& [adapter, factors] : present) {
      const LowRank<S> part = group_of(factors.product, group, groups);
      all.a.middleRows(row, part.rank()) = weights_[adapter] * factors.scale * part.a;
      all.b.middleCols(row, part.rank()) = part.b;
      row += part.rank();
    }
    return all;
  }

  [[nodiscard]] LowRank<S> combined_factors(const std::string& path,
                                            const std::vector<Present>& present) const {
    std::vector<Matrix<S>> a, b;
    std::vector<double> of_a, of_b;
    std::vector<std::string> a_names, b_names;
    for (const auto& [adapter, factors] : present) {
      if (factors.product.rank() != present.front().factors.product.rank()) unequal_ranks("'" + path + "'");
      const double weight = weights_[adapter] * factors.scale, root = std::sqrt(std::abs(weight));
      of_a.push_back(weight < 0 ? -root : root);
      of_b.push_back(root);
      a.push_back(factors.product.a);
      b.push_back(factors.product.b);
      a_names.push_back(stream(path, adapter) + ".lora_A");
      b_names.push_back(stream(path, adapter) + ".lora_B");
    }
    return {combine_tensors(type_, std::move(b), of_b, options_, b_names),
            combine_tensors(type_, std::move(a), of_a, options_, a_names)};
  }

  [[nodiscard]] Matrix<S> combined_delta(const LayerFacts& facts, const std::string& path,
                                         const std::vector<Present>& present) const {
    std::vector<Matrix<S>> deltas;
    std::vector<double> weights;
    std::vector<std::string> names;
    const Index groups = groups_of(facts), out = facts.out / groups;
    for (const auto& [adapter, factors] : present) {
      Matrix<S> delta(facts.out, width_of(facts));
      for (Index g = 0; g < groups; ++g) {
        const LowRank<S> part = group_of(factors.product, g, groups);
        delta.middleRows(g * out, out) = factors.scale * part.b * part.a;
      }
      deltas.push_back(std::move(delta));
      weights.push_back(weights_[adapter]);
      names.push_back(stream(path, adapter));
    }
    return combine_tensors(type_, std::move(deltas), weights, options_, names);
  }
  [[nodiscard]] std::string stream(const std::string& path, std::size_t adapter) const {
    return path + "." + records_[adapter]->name();
  }

  const ModelSites& model_;
  Records records_;
  std::vector<double> weights_;
  CombineOptions options_;
  CombinationType type_;
};

}  // namespace graft::detail
