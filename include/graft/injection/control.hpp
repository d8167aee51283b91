#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "merged.hpp"
#include "names.hpp"

namespace graft {

namespace detail {
template <class = OnDemand>
[[nodiscard]] std::vector<unsigned> ids_of_names(const ModelSites& model, const std::vector<std::string>& names) {
  std::vector<unsigned> ids;
  for (const std::string& name : names) ids.push_back(need_record(model, name)->id);
  return ids;
}
GRAFT_SHARED_FUNCTION(ids_of_names<>)

template <class = OnDemand>
void check_factor(double factor, std::string_view name) {
  if (!std::isfinite(factor))
    fail<AdapterError>("the strength of adapter '" + std::string(name) + "' would be " + std::to_string(factor),
                       "it is a factor of what the adapter adds", "use a finite number");
}

template <class = OnDemand>
void set_requires_grad_of(const ModelSites& model, unsigned id, bool value) {
  if (AdapterDirectory* directory = directory_of(model)) directory->set_wants_gradients(id, value);
  AdapterRecord* record = nullptr;
  for (const auto& site : model.sites) {
    SiteTable* table = site->table();
    SiteEntry* entry = table ? table->find(id) : nullptr;
    if (!entry || !entry->record) continue;
    if (AnyAdapterState* state = entry->state())
      for (const AdapterParameter& parameter : state->parameters())
        if (parameter.is_saved) parameter.data->set_requires_grad(value);
    if (SiteAdapter* here = entry->here()) here->copy_trains = here->copy && value;
    if (TokenRows* tokens = entry->tokens()) tokens->rows().set_requires_grad(value);
    if (ParameterData* bias = entry->bias()) bias->set_requires_grad(value);
    record = entry->record.get();
  }
  if (record) set_plain_biases_require_grad(model, *record, value);
}
GRAFT_SHARED_FUNCTION(set_requires_grad_of<>)

template <class = OnDemand>
void check_tokens(const SiteTable& table, const std::vector<unsigned>& ids) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const SiteEntry* entry = table.find(ids[i]);
    if (!entry || !entry->tokens()) continue;
    for (std::size_t j = 0; j < i; ++j)
      if (const SiteEntry* other = table.find(ids[j]); other && other->tokens() && other->tokens()->overlaps(*entry->tokens()))
        tokens_overlap(table.path, other->record->name(), entry->record->name());
  }
}
/// Two active adapters with a copy of one module, or with a row for one token, would both replace it.
template <class = OnDemand>
void check_copies(const ModelSites& model, const std::vector<unsigned>& ids) {
  for (const auto& site : model.sites) {
    const SiteTable* table = site->table();
    if (!table) continue;
    std::vector<std::string> owners;
    for (const unsigned id : ids)
      if (const SiteEntry* entry = table->find(id); entry && entry->copy()) owners.push_back(entry->record->name());
    if (owners.size() > 1)
      fail<AdapterError>((owners[0] == owners[1] ? "adapter " + owners[0] + " is named twice and has its own copy of '"
                                                 : "adapters " + join(owners, " and ") + " have their own copies of '") +
                             site->path() + "'",
                         "modules_to_save replaces a module, and it can be replaced only once", "activate one of them, once");
    check_tokens(*table, ids);
  }
}
GRAFT_SHARED_FUNCTION(check_copies<>)

template <class = OnDemand>
void activate(const ModelSites& model, const std::vector<unsigned>& ids) {
  check_copies(model, ids);
  check_selection(model, ids, "set_adapter");
  select_everywhere(model, ids);
  // of a thousand adapters only those are looked at whose flags may change
  const std::vector<unsigned> wanting = directory_of(model) ? directory_of(model)->wanting_gradients() : ids;
  for (const unsigned id : wanting)
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) set_requires_grad_of(model, id, false);
  for (const unsigned id : ids) set_requires_grad_of(model, id, !is_inference(find_record(model, id)->config()));
}
GRAFT_SHARED_FUNCTION(activate<>)

template <class = OnDemand>
void delete_everywhere(const ModelSites& model, std::string_view name) {
  const auto record = need_record(model, name);
  check_not_merged(model, *record, "delete_adapter");
  const bool was_active = !selected_of(model).empty();
  remove_everywhere(model, *record);
  if (!was_active || !selected_of(model).empty()) return;
  const auto records = records_of(model);
  const auto first = std::min_element(records.begin(), records.end(), [](const auto& a, const auto& b) { return a->name() < b->name(); });
  if (first != records.end()) activate(model, {(*first)->id});
}
GRAFT_SHARED_FUNCTION(delete_everywhere<>)
}  // namespace detail

/// Makes these adapters, in this order, the active ones; `{}` none. One that is named twice is added twice, as in PEFT. Their
/// parameters want gradients unless they were loaded for inference, all others' do not. @throws AdapterError for an unknown name,
/// MergeError if a merged adapter would be inactive.
template <class M>
void set_adapter(M& model, Names names) {
  const ModelSites sites = sites_of(model);
  detail::activate(sites, detail::ids_of_names(sites, names.list()));
}

/// The names of the active adapters, in order.
template <class M>
[[nodiscard]] std::vector<std::string> active_adapters(const M& model) {
  const ModelSites sites = sites_of(model);
  return detail::names_of_ids(sites, detail::selected_of(sites));
}

/// The names of all adapters, in the order of their injection.
template <class M>
[[nodiscard]] std::vector<std::string> adapter_names(const M& model) {
  std::vector<std::string> names;
  for (const auto& record : detail::records_of(sites_of(model))) names.push_back(record->name());
  return names;
}

/// Takes an adapter out. If it was active, the other active ones stay; if it was the only one, the first by name of those that
/// are left is made active, as in PEFT. Returns the names of the active ones. @throws AdapterError for an unknown name,
/// MergeError for a merged one.
template <class M>
std::vector<std::string> delete_adapter(M& model, std::string_view name) {
  const ModelSites sites = sites_of(model);
  detail::delete_everywhere(sites, name);
  return detail::names_of_ids(sites, detail::selected_of(sites));
}

/// Whether these adapters' parameters want gradients; `{}` the active ones'.
template <class M>
void set_requires_grad(M& model, Names names, bool value) {
  const ModelSites sites = sites_of(model);
  const std::vector<unsigned> ids = names.is_given() ? detail::ids_of_names(sites, names.list()) : detail::selected_of(sites);
  for (const unsigned id : ids) detail::set_requires_grad_of(sites, id, value);
}

/// A factor on the adapter's own scale: not cumulative, 1 restores it. Other threads may be in forward.
/// @throws AdapterError for an unknown name or a factor that is not finite, MergeError for a merged adapter.
template <class M>
void set_scale(M& model, std::string_view name, double factor) {
  const ModelSites sites = sites_of(model);
  const auto record = detail::need_record(sites, name);
  detail::check_factor(factor, name);
  detail::check_not_merged(sites, *record, "set_scale");
  // no sharing of records, nor anything else that a forward in another thread could notice
  for (const auto& site : sites.sites)
    if (SiteTable* table = site->table())
      if (SiteEntry* entry = table->find(record->id); entry && entry->record) entry->record->set_strength(factor);
}

namespace detail {
/// What is current of an adapter at all its sites. Where a copy's sites have records of their own, nothing: then its
/// number says it all.
template <class = OnDemand>
[[nodiscard]] std::shared_ptr<const AdapterGeneration> pinned(const ModelSites& model, const AdapterRecord& record) {
  for (const auto& site : model.sites)
    if (const SiteTable* table = site->table())
      if (const SiteEntry* entry = table->find(record.id); entry && entry->record.get() != &record) return nullptr;
  return record.generation.pin();
}
GRAFT_SHARED_FUNCTION(pinned<>)
}  // namespace detail

/// Names to numbers, once per request; an adapter of weight 0 and PEFT's "__base__" are left out. The selection keeps the
/// adapters' weights as they are now: it goes on with them if an adapter is exchanged meanwhile. @throws AdapterError for
/// unknown names.
template <class M>
[[nodiscard]] AdapterSelection select(const M& model, const std::vector<NamedWeight>& adapters) {
  const ModelSites sites = sites_of(model);
  std::vector<WeightedAdapter> selection;
  auto pins = std::make_shared<std::vector<std::shared_ptr<const AdapterGeneration>>>();
  for (const auto& [name, weight] : adapters) {
    if (name == detail::base_name) continue;
    const auto record = detail::need_record(sites, name);
    detail::check_factor(weight, name);
    if (weight == 0) continue;
    if (auto generation = detail::pinned(sites, *record)) pins->push_back(std::move(generation));
    else pins->push_back(nullptr);
    selection.push_back({record->id, weight, pins->back().get()});
  }
  return AdapterSelection(std::move(selection), std::move(pins));
}

}  // namespace graft
