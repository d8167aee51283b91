#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/keys.hpp"
#include "../core/on_demand.hpp"
#include "control.hpp"
#include "merged.hpp"
#include "tied.hpp"

namespace graft {

/// How adapters are merged.
struct MergeOptions {
  bool safe = true;       ///< NaN or infinity in the result, anywhere, is an error before anything is written
  bool activate = false;  ///< adapters that are not active become so, instead of being an error
  Unmerge unmerge = Unmerge::by_delta;
  bool create_bias = false;  ///< a layer without a bias gets one for `lora_bias`
  Tied tied = Tied::refuse;
  bool requantize = false;  ///< quantised weights are rounded anew, and the report says what that cost
};

/// A quantised layer that was merged into, and what rounding its weight anew cost: of the merged weight, not of the delta.
struct RequantizedLayer {
  std::string layer;
  QuantizeReport error{};
};

/// What a merge or its undoing did, and how the model stands then.
struct MergeReport {
  std::vector<std::string> merged_adapters;  ///< those that are merged now, in the order of merging
  std::vector<std::string> layers;           ///< whose weights were changed
  std::vector<std::string> warnings;
  std::vector<RequantizedLayer> requantized{};
};

namespace detail {
/// Merging and its undoing change the weights that are in use. @throws MergeError
template <class = OnDemand>
void check_enabled(const ModelSites& model) {
  if (!is_enabled(model))
    fail<MergeError>("the model's adapters are disabled", "its base weights are in use as they are",
                     "let the AdapterGuard go first, or enable_adapter_layers() in a copy");
}

/// One merge over a whole model: everything is checked and kept before the first weight changes.
template <class = OnDemand>
class Merger {
 public:
  Merger(const ModelSites& model, const MergeOptions& options, bool for_good)
      : model_(model), options_(options), for_good_(for_good), tied_(model) {}

  [[nodiscard]] MergeReport merge(const Names& names) {
    check_enabled(model_);
    settle(names);
    if (!fresh_.empty() || for_good_) {
      plan();
      check_values();
      for (auto& site : sites_) site.merge->keep();
      commit();
    }
    for (const unsigned id : for_good_ ? done_ : merged_of(model_))
      if (const std::string& name = record(id)->name(); std::find(report_.merged_adapters.begin(), report_.merged_adapters.end(), name) ==
                                                        report_.merged_adapters.end())
        report_.merged_adapters.push_back(name);
    return std::move(report_);
  }
  /// Of a merge for good: the adapters that act in the base now.
  [[nodiscard]] const std::vector<unsigned>& done() const { return done_; }

 private:
  struct Site {
    const AnySite* site;
    std::unique_ptr<SiteMerge<>> merge;
    AnyModuleCopy* copy = nullptr;  ///< takes the base layer's place
  };

  [[nodiscard]] std::shared_ptr<AdapterRecord> record(unsigned id) const {
    return find_record(model_, id);
  }

  /// Decides which adapters are to be merged, and which will be active.
  void settle(const Names& names) {
    selected_ = selected_of(model_);
    const std::vector<unsigned> wanted = names.is_given() ? ids_of_names(model_, names.list()) : selected_;
    done_ = merged_of(model_);
    const std::vector<unsigned> merged = done_;
    for (const unsigned id : wanted) {
      if (std::find(selected_.begin(), selected_.end(), id) == selected_.end()) {
        if (!options_.activate)
          fail<MergeError>("adapter '" + record(id)->name() + "' is not active",
                           "merging it would put it into effect", "set_adapter() it first, or set MergeOptions::activate");
        selected_.push_back(id);
      }
    }
    for (const unsigned id : selected_)  // in the order of activation, in which a forward takes them
      if (std::find(wanted.begin(), wanted.end(), id) != wanted.end() && std::find(merged.begin(), merged.end(), id) == merged.end())
        fresh_.push_back(id);
    if (fresh_.empty())
      report_.warnings.push_back(wanted.empty() ? "there is no adapter to merge" : "these adapters are merged already");
    done_.insert(done_.end(), fresh_.begin(), fresh_.end());
  }

  void plan() {
    check_copies(model_, selected_);
    if (!for_good_) check_selection(model_, selected_, "merge_adapter");
    for (const auto& site : model_.sites) {
      SiteTable* table = site->table();
      if (table && !table->entries.empty()) plan(*site, *table);
    }
    if (sites_.empty() && !fresh_.empty()) report_.warnings.push_back("these adapters change no weight that could be merged");
  }
  void plan(const AnySite& site, SiteTable& table) {
    AnyModuleCopy* copy = nullptr;
    std::vector<unsigned> here, beside;
    for (const unsigned id : for_good_ ? done_ : selected_)
      if (const SiteEntry* entry = table.find(id); entry && entry->copy()) copy = entry->copy();
    for (const unsigned id : fresh_)  // beside a copy, a trained bias has no effect
      if (const SiteEntry* entry = table.find(id); entry && acts_in_weight(*entry, copy != nullptr)) here.push_back(id);
    if (!for_good_) copy = nullptr;
    if (for_good_) check_order(table, table.merged, fresh_, selected_);
    if (here.empty() && !copy) return;
    if (!for_good_) {  // else what stays unmerged is gone afterwards
      for (const unsigned id : selected_)
        if (std::find(table.merged.begin(), table.merged.end(), id) == table.merged.end() &&
            std::find(here.begin(), here.end(), id) == here.end())
          beside.push_back(id);
      check_order(table, here, beside, selected_);
    }
    Site planned{&site, std::make_unique<SiteMerge<>>(table, site.door(copy), site.dtype(), here, workspace_, copy != nullptr), copy};
    MergePolicy& policy = planned.merge->policy();
    policy.how = options_.unmerge;
    policy.for_good = for_good_;
    policy.create_bias = options_.create_bias;
    policy.requantize = options_.requantize;
    if (!copy) settle_ties(*planned.merge);
    planned.merge->check();
    sites_.push_back(std::move(planned));
  }

  void settle_ties(SiteMerge<>& merge) {
    if (merge.changes_weight()) settle_tie(merge, merge.door().storage(), merge.door().parameter(), merge.policy().new_memory);
    if (merge.changes_bias()) settle_tie(merge, merge.door().bias_storage(), merge.door().bias_parameter(), merge.policy().new_bias_memory);
  }
  void settle_tie(SiteMerge<>& merge, const void* storage, const ParameterData* parameter, bool& new_memory) {
    const std::vector<std::string> names = tied_.names(storage);
    if (names.size() < 2) return;
    if (merge.is_tokens_alone() && storage == merge.door().storage() && is_same_at_all_ends(merge, names)) {
      merge.policy().in_place = tied_.is_owned(storage);
      return;
    }
    const std::string problem = "'" + join(names, "' and '") + "' are one memory";
    switch (options_.tied) {
      case Tied::refuse:
        fail<MergeError>(problem, "merging into '" + merge.path() + "' would change the other with it",
                         "set MergeOptions::tied to Tied::untie, or to Tied::change_both if that is meant");
      case Tied::untie:
        if (!parameter)
          fail<MergeError>(problem, "no Parameter holds the weight of '" + merge.path() + "', so it cannot be given other memory",
                           "hold it in a graft::Parameter, or set Tied::change_both");
        new_memory = true;
        return;
      case Tied::change_both:
        if (!tied_.is_owned(storage))
          fail<MergeError>(problem, "both are views of memory that belongs to neither", "set Tied::untie");
        merge.policy().in_place = true;
        report_.warnings.push_back(problem + ": both change");
    }
  }

  /// Whether the same trained tokens are merged at every layer that shares the weight: then each writes what the others do.
  [[nodiscard]] bool is_same_at_all_ends(const SiteMerge<>& merge, const std::vector<std::string>& names) const {
    for (const std::string& name : names) {
      const auto site = std::find_if(model_.sites.begin(), model_.sites.end(),
                                     [&](const auto& one) { return join_path(one->path(), "weight") == name; });
      if (site == model_.sites.end() || !(*site)->table()) return false;
      for (const unsigned id : merge.ids()) {
        const SiteEntry* here = model_.sites[site_of(merge)]->table()->find(id);
        const SiteEntry* there = (*site)->table()->find(id);
        if (!there || !there->tokens() || there->tokens() != here->tokens()) return false;
      }
    }
    return true;
  }
  [[nodiscard]] std::size_t site_of(const SiteMerge<>& merge) const {
    std::size_t place = 0;
    while (model_.sites[place]->path() != merge.path()) ++place;
    return place;
  }

  void check_values() {
    for (auto& site : sites_)
      if ((options_.safe || site.merge->door().is_quantized()) && !site.merge->stays_finite())
        fail<MergeError>("merging would put NaN or infinity into '" + site.merge->path() + "'",
                         "its weight or an adapter's holds such values, or their sum is too large",
                         "check the adapters' weights, or set safe = false to merge them all the same (not into a quantised weight)");
  }

  void commit() {
    for (auto& site : sites_) {
      const bool was_tied = site.copy && is_tied(*site.site);
      site.merge->commit();
      if (site.copy && site.site->adopt(*site.copy) && was_tied)
        report_.warnings.push_back("'" + site.merge->path() + "' was tied to another layer and is no longer: a copy of it took its place");
      report_.layers.push_back(site.merge->path());
      if (site.merge->changes_weight() && site.merge->door().is_quantized())
        report_.requantized.push_back({site.merge->path(), site.merge->door().report()});
      if (site.merge->kept_bytes() && options_.unmerge != Unmerge::backup)
        report_.warnings.push_back("'" + site.merge->path() + "': " + std::to_string(site.merge->kept_bytes()) +
                                   " bytes of its own weight are kept, which no delta would bring back");
    }
    if (selected_ != selected_of(model_)) select_everywhere(model_, selected_);
  }
  [[nodiscard]] bool is_tied(const AnySite& site) const {
    for (const BaseTensor& tensor : site.tensors())
      if (tied_.names(tensor.storage).size() > 1) return true;
    return false;
  }

  const ModelSites& model_;
  const MergeOptions& options_;
  bool for_good_;
  TiedTensors tied_;
  std::vector<unsigned> selected_, fresh_, done_;
  Workspace workspace_;
  std::vector<Site> sites_;
  MergeReport report_;
};
GRAFT_SHARED_CLASS(Merger<>)

template <class = OnDemand>
MergeReport unmerge(const ModelSites& model) {
  MergeReport report;
  if (merged_of(model).empty()) {
    report.warnings.push_back("no adapter is merged");
    return report;
  }
  check_enabled(model);
  for (const auto& site : model.sites)
    if (const SiteTable* table = site->table()) check_undo(*table);
  Workspace workspace;
  for (auto site = model.sites.rbegin(); site != model.sites.rend(); ++site) {
    SiteTable* table = (*site)->table();
    if (!table || table->steps.empty()) continue;
    const auto door = (*site)->door();
    while (!table->steps.empty()) undo_step(*table, *door, (*site)->dtype(), workspace);
    report.layers.insert(report.layers.begin(), (*site)->path());
  }
  return report;
}
GRAFT_SHARED_FUNCTION(unmerge<>)

/// Takes all adapters out and leaves the layers, with the biases of `kept` in those outside of sites.
template <class = OnDemand>
void drop_everything(const ModelSites& model, const std::vector<unsigned>& kept) {
  for (const auto& record : records_of(model)) {
    if (std::find(kept.begin(), kept.end(), record->id) == kept.end()) place_plain_biases(model, *record, false);
  }
  for (const auto& site : model.sites) {
    SiteTable* table = site->table();
    if (!table) continue;
    for (SiteEntry& entry : table->entries)
      if (entry.record) entry.record->identity().deleted.store(true, std::memory_order_relaxed);
    site->drop_table();
  }
}
GRAFT_SHARED_FUNCTION(drop_everything<>)
}  // namespace detail

/// Folds adapters into the base weights, in the order of activation; `{}` the active ones. Forward then computes the same without them. All checks
/// are made over the whole model before the first weight changes.
/// @throws AdapterError for an unknown name, MergeError with its remedy for what cannot be merged, MetaError for
/// parameters without memory.
template <class M>
MergeReport merge_adapter(M& model, Names names = {}, const MergeOptions& options = {}) {
  const ModelSites sites = sites_of(model);
  detail::share_records(sites);
  return detail::Merger(sites, options, false).merge(names);
}

/// Takes all merged adapters out of the base weights again, as `MergeOptions::unmerge` said when they were merged. They
/// stay active. @throws MergeError where an adapter's parameters changed since.
template <class M>
MergeReport unmerge_adapter(M& model) {
  return detail::unmerge(sites_of(model));
}

/// Folds adapters in for good and takes all out: plain layers stay, in which the adapters' copies and biases are the
/// layers' own. Adapters that are merged already stay merged. @throws as merge_adapter
template <class M>
MergeReport merge_and_unload(M& model, Names names = {}, const MergeOptions& options = {}) {
  const ModelSites sites = sites_of(model);
  detail::share_records(sites);
  detail::Merger merger(sites, options, true);
  MergeReport report = merger.merge(names);
  detail::drop_everything(sites, merger.done());
  return report;
}

/// Takes all adapters out: the base model, as it was. @throws MergeError while one is merged.
template <class M>
void unload(M& model) {
  const ModelSites sites = sites_of(model);
  detail::check_none_merged(sites, "unload");
  detail::drop_everything(sites, {});
}

}  // namespace graft
