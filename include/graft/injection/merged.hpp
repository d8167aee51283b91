#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "../adapters/merge.hpp"
#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "records.hpp"

/// Merged ⊆ active, always: what verbs may not do while adapters are merged.
namespace graft::detail {

/// The adapters that are merged somewhere, in the order of merging.
[[nodiscard]] inline std::vector<unsigned> merged_of(const ModelSites& model) {
  std::vector<unsigned> ids;
  for (const auto& site : model.sites)
    if (const SiteTable* table = site->table())
      for (const unsigned id : table->merged)
        if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  return ids;
}
[[nodiscard]] inline bool is_merged(const ModelSites& model, unsigned id) {
  const std::vector<unsigned> ids = merged_of(model);
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

/// @throws MergeError if this adapter is merged. `verb`: "delete_adapter".
inline void check_not_merged(const ModelSites& model, const AdapterRecord& record, std::string_view verb) {
  if (is_merged(model, record.id))
    fail<MergeError>(std::string(verb) + ": adapter '" + record.name() + "' is merged",
                     "the base weights hold what it adds, and could not be brought back", "unmerge_adapter() first");
}
/// @throws MergeError if any adapter is merged.
inline void check_none_merged(const ModelSites& model, std::string_view verb) {
  for (const auto& record : records_of(model)) check_not_merged(model, *record, verb);
}
/// Some adapters scale what was added before them: what is merged was folded in the order that was active then.
template <class = OnDemand>
void check_merged_order(const SiteTable& table, const std::vector<unsigned>& ids, std::string_view verb) {
  const auto place = [&](unsigned id) { return std::find(ids.begin(), ids.end(), id); };
  for (std::size_t i = 0; i < table.merged.size(); ++i)
    for (std::size_t j = i + 1; j < table.merged.size(); ++j) {
      const SiteEntry* first = table.find(table.merged[i]);
      const SiteEntry* second = table.find(table.merged[j]);
      if (!first || !second || !first->state() || !second->state() || place(first->id) <= place(second->id)) continue;
      if (first->state()->reads_base() || second->state()->reads_base())
        fail<MergeError>(std::string(verb) + " would activate '" + second->record->name() + "' before '" + first->record->name() +
                             "', which are merged at '" + table.path + "' the other way round",
                         "one of them scales what the other adds, so their order matters", "unmerge_adapter() first, or keep their order");
    }
}
GRAFT_SHARED_FUNCTION(check_merged_order<>)
/// @throws MergeError if the active adapters cannot be these: a merged one would not be active, or forward would no
/// longer be what it is without merging.
template <class = OnDemand>
void check_selection(const ModelSites& model, const std::vector<unsigned>& ids, std::string_view verb) {
  for (const unsigned merged : merged_of(model))
    if (std::find(ids.begin(), ids.end(), merged) == ids.end())
      if (const auto record = find_record(model, merged))
        fail<MergeError>(std::string(verb) + " would deactivate adapter '" + record->name() + "', which is merged",
                         "its part of the base weights would stay in effect", "unmerge_adapter() first, or keep it active");
  for (const auto& site : model.sites) {
    const SiteTable* table = site->table();
    if (!table || table->merged.empty()) continue;
    for (const unsigned merged : table->merged)
      if (std::count(ids.begin(), ids.end(), merged) != std::count(table->merged.begin(), table->merged.end(), merged))
        fail<MergeError>(std::string(verb) + " would have '" + table->find(merged)->record->name() + "' active another number of times than " +
                             "it is merged at '" + table->path + "'",
                         "an adapter that is named twice is added twice", "unmerge_adapter() first");
    std::vector<unsigned> beside;
    for (const unsigned id : ids)
      if (std::find(table->merged.begin(), table->merged.end(), id) == table->merged.end()) beside.push_back(id);
    check_order(*table, table->merged, beside, ids);
    check_merged_order(*table, ids, verb);
  }
}
GRAFT_SHARED_FUNCTION(check_selection<>)
/// @throws MergeError where a kept weight is needed and is not there.
template <class = OnDemand>
void check_swap_out(const ModelSites& model) {
  for (const auto& site : model.sites)
    if (const SiteTable* table = site->table(); table && !can_swap_out(*table))
      fail<MergeError>("disable_adapter: '" + table->path + "' has merged adapters and its own weight was not kept",
                       "subtracting and adding them again would change bits",
                       "unmerge_adapter() first, or merge with Unmerge::backup");
}
GRAFT_SHARED_FUNCTION(check_swap_out<>)
/// @throws MergeError where a copy or a bias of the base layer would be taken of a merged one.
inline void check_base_is_pristine(const SiteTable* table, std::string_view verb) {
  if (table && !table->merged.empty())
    fail<MergeError>(std::string(verb) + ": '" + table->path + "' has merged adapters in its weights",
                     "they would become part of what is taken from, or loaded into, the base layer", "unmerge_adapter() first");
}

}  // namespace graft::detail
