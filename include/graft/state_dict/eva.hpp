#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "derived_adapter.hpp"

namespace graft {

/// What `initialize_lora_eva_weights` may be told: the fields of PEFT's `EvaConfig` that do not concern its
/// data loader.
struct EvaOptions {
  double rho = 2;       ///< no site gets more than rho · r ranks; 1: ranks stay where they are
  bool whiten = false;  ///< divide each direction by the root of its singular value
  bool adjust_scaling_factors = true;  ///< lora_alpha follows the rank, so that the scaling stays
};

/// Inputs of sites by their paths: rows (n, in).
template <class T>
using Activations = std::vector<std::pair<std::string, Matrix<T>>>;

namespace detail {

/// EVA (Paischer et al., arXiv:2410.07170): A of a site starts with the principal directions of its inputs,
/// and ranks go to where they explain most.
template <class S = double>
class EvaStart {
 public:
  EvaStart(const ModelSites& model, const Activations<S>& activations, std::string_view name,
           const EvaOptions& options)
      : model_(model), activations_(activations), record_(need_record(model, name)), options_(options) {
    (void)need_factorisers("init_lora_weights \"eva\"");
    const auto* config = std::get_if<LoraConfig>(&record_->config());
    if (!config || init_scheme(config->init_lora_weights) != InitScheme::eva)
      fail<ConfigError>("adapter '" + record_->name() + "' was not injected with init_lora_weights \"eva\"",
                        "its file would not say how it started",
                        "inject it with init_lora_weights = \"eva\" first");
    if (!(options_.rho >= 1 && std::isfinite(options_.rho)))
      fail<ConfigError>("rho is " + std::to_string(options_.rho), "no site gets more than rho · r ranks",
                        "use 1 or more");
    check_not_merged(model_, *record_, "initialize_lora_eva_weights");
    config_ = *config;
  }

  InjectReport run() {
    find_directions();
    distribute();
    std::vector<std::string> without_data;
    DerivedAdapter derived = rewrite(without_data);
    const double strength = record_->strength();
    const std::string name = record_->name();
    const unsigned old_id = record_->id;
    std::vector<unsigned> selected = selected_of(model_);
    InjectReport report = inject(model_, derived.config, name,
                                 {.low_cpu_mem_usage = true,
                                  .activate = false,
                                  .replace = true,
                                  .state_dict = &derived.tensors,
                                  .file = &derived.tensors});
    (void)load_adapter_state(model_, derived.tensors, name, {});
    const auto record = need_record(model_, name);
    record->set_strength(strength);
    std::replace(selected.begin(), selected.end(), old_id, record->id);
    select_everywhere(model_, selected);
    if (!without_data.empty())
      report.warnings.push_back("no activations were given for " + join(without_data, ", ") +
                                ": they start as with init_lora_weights true");
    return report;
  }

 private:
  struct Start {
    const AnySite* site;
    Index r, most, given = 0;
    Principal principal;
  };

  void find_directions() {
    for (const auto& [path, rows] : activations_) {
      const auto place =
          std::find_if(model_.sites.begin(), model_.sites.end(),
                       [&, &wanted = path](const auto& site) { return site->path() == wanted; });
      const SiteEntry* entry = place == model_.sites.end() ? nullptr : entry_at(**place, *record_);
      if (!entry || !entry->state() || (*place)->facts().kind != LayerKind::linear)
        fail<AdapterError>(
            "activations for '" + path + "', which is no linear site of adapter '" + record_->name() + "'",
            "EVA needs the inputs of the layers that it initialises",
            "see the report of the injection for its sites");
      const LayerFacts facts = (*place)->facts();
      const Index r = entry->state()->rank(),
                  most = std::min(Index(std::nearbyint(double(r) * options_.rho)), facts.in);
      if (rows.cols() != facts.in || rows.rows() < most)
        fail<ShapeError>("activations of shape " + to_string(Shape{rows.rows(), rows.cols()}) + " for '" +
                             path + "', which takes " + std::to_string(facts.in) + " features",
                         "rho · r directions need as many rows at least",
                         "give (n, in) with n >= " + std::to_string(most));
      starts_.push_back(
          {place->get(), r, most, 0, factorisers->principal(rows.template cast<double>(), most)});
    }
    if (starts_.empty())
      fail<AdapterError>("EVA without activations", "it starts from the inputs of layers",
                         "give the inputs of at least one site");
  }

  /// The directions that explain most, wherever they are, share the sum of all ranks.
  void distribute() {
    std::vector<std::pair<double, Start*>> all;
    Index budget = 0;
    for (Start& start : starts_) {
      budget += start.r;
      for (const double share : start.principal.shares) all.emplace_back(share, &start);
    }
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    for (Index i = 0; i < budget && i < Index(all.size()); ++i) ++all[std::size_t(i)].second->given;
  }

  [[nodiscard]] DerivedAdapter rewrite(std::vector<std::string>& without_data) const {
    DerivedAdapter derived;
    const StateDict old = adapter_state_dict(model_, record_->name());
    for (const auto& [key, view] : old) derived.tensors.insert(key, view);
    std::vector<std::string> targets;
    std::vector<std::pair<std::string, int>> ranks;
    std::vector<std::pair<std::string, double>> alphas;
    for (const auto& site : model_.sites) {
      const SiteEntry* entry = entry_at(*site, *record_);
      if (!entry || !entry->state()) continue;
      const std::string& path = site->path();
      const AnyAdapterState& state = *entry->state();
      double alpha = config_.lora_alpha;
      for (auto own = config_.alpha_pattern.rbegin(); own != config_.alpha_pattern.rend();
           ++own)  // the first match wins
        if (matches_pattern(own->first, path)) alpha = own->second;
      Index r = state.rank();
      const auto start = std::find_if(starts_.begin(), starts_.end(),
                                      [&](const Start& one) { return one.site == site.get(); });
      if (start == starts_.end()) {
        without_data.push_back(path);
      } else {
        for (const std::string_view name : {"lora_A.weight", "lora_B.weight"})
          derived.tensors.erase(join_path(path, name));
        r = start->given;
        if (r == 0) derived.tensors.erase(join_path(path, "base_layer.bias"));
        if (r == 0) continue;
        if (options_.adjust_scaling_factors && r != state.rank()) alpha *= double(r) / double(state.rank());
        LowRank<S> factors{Matrix<S>::Zero(site->facts().out, r), start->principal.directions.topRows(r)};
        if (options_.whiten)
          for (Index i = 0; i < r; ++i)
            factors.a.row(i) /= std::sqrt(start->principal.singular_values[std::size_t(i)]);
        insert_factors(derived.tensors, *site, factors);
      }
      targets.push_back(path);
      ranks.emplace_back(path, int(r));
      alphas.emplace_back(path, alpha);
    }
    LoraConfig config = config_;
    config.target_modules = TargetModules(std::move(targets));
    config.exclude_modules = TargetModules();
    config.layers_to_transform.clear();
    config.layers_pattern.clear();
    config.rank_pattern = patterns_of(std::move(ranks), config.r);
    config.alpha_pattern = patterns_of(std::move(alphas), config.lora_alpha);
    derived.config = std::move(config);
    return derived;
  }

  const ModelSites& model_;
  const Activations<S>& activations_;
  std::shared_ptr<AdapterRecord> record_;
  EvaOptions options_;
  LoraConfig config_;
  std::vector<Start> starts_;
};
GRAFT_SHARED_CLASS(EvaStart<double>)

}  // namespace detail

/// Starts an adapter that was injected with `init_lora_weights = "eva"` from the inputs of its linear sites,
/// given by path as (n, in): PEFT's `initialize_lora_eva_weights`. A takes their principal directions, B is
/// zero. The sum of ranks stays; they go to the sites where they explain most, at most rho · r to one. A site
/// without ranks is taken out of the adapter, and targets and patterns of its config are rewritten. Needs
/// graft/factorise.hpp.
/// @throws ConfigError, AdapterError, MergeError or ShapeError; nothing has changed then.
template <class M, class T = float>
InjectReport initialize_lora_eva_weights(M& model, const Activations<T>& activations,
                                         std::string_view adapter_name = "default",
                                         const EvaOptions& options = {}) {
  const ModelSites sites = sites_of(model);
  Activations<double> wide;
  for (const auto& [path, rows] : activations) wide.emplace_back(path, rows.template cast<double>());
  return detail::EvaStart<double>(sites, wide, adapter_name, options).run();
}

}  // namespace graft
