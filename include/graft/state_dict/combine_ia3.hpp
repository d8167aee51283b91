#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../adapters/combination.hpp"
#include "../core/on_demand.hpp"
#include "derived_adapter.hpp"

namespace graft::detail {

/// An (IA)³ vector at a site, with the strength in it.
template <class S = double>
struct SiteVector {
  Matrix<S> l;
  Shape shape{};
  bool is_feedforward = false;
};

/// Nothing where the adapter is not at this site. @throws MetaError for a vector without memory.
template <class S = double>
[[nodiscard]] std::optional<SiteVector<S>> vector_at(const AnySite& site, const AdapterRecord& record) {
  const SiteEntry* entry = entry_at(site, record);
  if (!entry || !entry->state()) return std::nullopt;
  if (entry->state()->is_meta()) adapter_is_meta(record.name(), site.path());
  const ParameterData& l = *entry->state()->parameters().front().data;
  SiteVector<S> vector{values_of<S>(l), l.shape(), entry->state()->is_feedforward()};
  vector.l.array() = 1 + record.strength() * (vector.l.array() - 1);
  return vector;
}

/// Feed-forward modules by PEFT's rule where that means the same sites, else by their paths.
template <class = OnDemand>
void choose_feedforward(const Records& records, const std::vector<std::string>& paths,
                        const std::vector<std::string>& feedforward, Ia3Config& config) {
  std::vector<const TargetModules*> all;
  for (const auto& record : records)
    all.push_back(&std::get<Ia3Config>(record->config()).feedforward_modules);
  config.feedforward_modules = united(all, "feedforward_modules");
  std::vector<std::string> meant;
  for (const std::string& path : paths)
    if (match_index(config.feedforward_modules, path) >= 0) meant.push_back(path);
  const bool are_targets =
      config.feedforward_modules.kind() == TargetModules::Kind::regex ||
      config.target_modules.kind() == TargetModules::Kind::regex ||
      std::all_of(config.feedforward_modules.names().begin(), config.feedforward_modules.names().end(),
                  [&](const std::string& name) {
                    const auto& targets = config.target_modules.names();
                    return std::find(targets.begin(), targets.end(), name) != targets.end();
                  });
  if (meant == feedforward && are_targets) return;
  config.target_modules = TargetModules(paths);
  config.exclude_modules = TargetModules();
  config.feedforward_modules = TargetModules(feedforward);
}

/// l = Σ wᵢ·lᵢ at every site that one of them is at. One that is not at a site leaves it as it is, so it
/// counts as 1 there; with `absent_is_zero` as 0, which PEFT does.
template <class S = double>
[[nodiscard]] DerivedAdapter combine_ia3(const ModelSites& model, const Records& records,
                                         const std::vector<double>& weights, const CombineOptions& options) {
  const auto& first = std::get<Ia3Config>(records.front()->config());
  Ia3Config config{.init_ia3_weights = first.init_ia3_weights,
                   .fan_in_fan_out = first.fan_in_fan_out,
                   .inference_mode = first.inference_mode};
  DerivedAdapter derived;
  config.modules_to_save = take_copies(model, records, derived.tensors);
  std::vector<std::string> paths, feedforward;
  for (const auto& site : model.sites) {
    std::vector<std::optional<SiteVector<S>>> vectors;
    const SiteVector<S>* some = nullptr;
    for (const auto& record : records) vectors.push_back(vector_at<S>(*site, *record));
    for (const auto& vector : vectors) {
      if (!vector) continue;
      if (some && some->is_feedforward != vector->is_feedforward)
        fail<AdapterError>(
            "'" + site->path() + "' is a feed-forward module of some of the adapters, not of all",
            "one vector scales its input, the other its output",
            "combine adapters with the same feedforward_modules");
      some = &*vector;
    }
    if (!some) continue;
    Matrix<S> sum = Matrix<S>::Zero(some->l.rows(), some->l.cols());
    for (std::size_t i = 0; i < vectors.size(); ++i) {
      if (vectors[i])
        sum += weights[i] * vectors[i]->l;
      else if (!options.absent_is_zero)
        sum.array() += weights[i];
    }
    derived.tensors.insert(file_key(site->path(), "ia3_l", ""), tensor_of(site->dtype(), some->shape, sum));
    paths.push_back(site->path());
    if (some->is_feedforward) feedforward.push_back(site->path());
  }
  choose_targets(model, records, paths, config);
  choose_feedforward(records, paths, feedforward, config);
  derived.config = std::move(config);
  return derived;
}

}  // namespace graft::detail
