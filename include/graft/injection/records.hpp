#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "../core/text.hpp"
#include "site.hpp"

namespace graft::detail {

/// What the sites of a model share, or null where they do not: in a copy of a model, or with a layer that came from
/// elsewhere, until a verb has changed it.
[[nodiscard]] inline AdapterDirectory* directory_of(const ModelSites& model) {
  AdapterDirectory* shared = nullptr;
  std::size_t tables = 0;
  for (const auto& site : model.sites) {
    const SiteTable* table = site->table();
    if (!table) continue;
    if (!table->directory || (shared && table->directory.get() != shared)) return nullptr;
    shared = table->directory.get();
    ++tables;
  }
  return shared && shared->tables == tables ? shared : nullptr;
}

/// The adapters of a model in the order of their injection: one record each, shared by its sites again where a
/// copy of the model had given every site its own.
[[nodiscard]] inline std::vector<std::shared_ptr<AdapterRecord>> records_of(const ModelSites& model) {
  if (const AdapterDirectory* directory = directory_of(model)) return directory->records();
  std::vector<std::shared_ptr<AdapterRecord>> records;
  for (const auto& site : model.sites) {
    SiteTable* table = site->table();
    if (!table) continue;
    for (SiteEntry& entry : table->entries) {
      if (!entry.record) continue;
      const auto place = std::lower_bound(records.begin(), records.end(), entry.id,
                                          [](const auto& record, unsigned id) { return record->id < id; });
      if (place == records.end() || (*place)->id != entry.id) records.insert(place, entry.record);
    }
  }
  return records;
}

/// The first number that no site of the model has.
[[nodiscard]] inline unsigned next_site(const ModelSites& model) {
  unsigned next = 0;
  for (const auto& site : model.sites)
    if (const SiteTable* table = site->table()) next = std::max(next, table->number + 1);
  return next;
}

/// Whether the sites of each adapter share one record and have numbers of their own. A copy of a model, or of a layer
/// inside of one, does not until a verb has changed it.
[[nodiscard]] inline bool shares_records(const ModelSites& model) {
  std::vector<const void*> tables, records;  // by number
  for (const auto& site : model.sites) {
    const SiteTable* table = site->table();
    if (!table) continue;
    if (table->number >= tables.size()) tables.resize(table->number + 1);
    if (tables[table->number]) return false;
    tables[table->number] = table;
    for (const SiteEntry& entry : table->entries) {
      if (!entry.record) continue;
      if (entry.id >= records.size()) records.resize(entry.id + 1);
      if (records[entry.id] && records[entry.id] != entry.record.get()) return false;
      records[entry.id] = entry.record.get();
    }
  }
  return true;
}

/// Lets tied sites share their rows again, of which a copy of the model gave each its own.
inline void tie_again(const ModelSites& model, const AdapterGeneration& generation) {
  for (const auto& site : model.sites) {
    SiteAdapter* here = site->table() ? generation.at(site->table()->number) : nullptr;
    if (!here || !here->tokens || here->tied_to.empty()) continue;
    for (const auto& other : model.sites)
      if (const SiteTable* table = other->table(); table && other->path() == here->tied_to)
        if (const SiteAdapter* there = generation.at(table->number); there && there->tokens) here->tokens = there->tokens;
  }
}

/// Gives all tables of a model one directory, in which `records` are.
inline void share_directory(const ModelSites& model, const std::vector<std::shared_ptr<AdapterRecord>>& records) {
  const auto directory = std::make_shared<AdapterDirectory>();
  for (const auto& record : records) {
    directory->add(record);
    directory->set_wants_gradients(record->id, true);  // some may
  }
  for (const auto& site : model.sites)
    if (SiteTable* table = site->table()) {
      table->directory = directory;
      ++directory->tables;
    }
}

/// Lets all sites of each adapter share one record: to be called by every verb that changes one.
inline void share_records(const ModelSites& model) {
  if (directory_of(model)) return;
  if (shares_records(model)) return share_directory(model, records_of(model));
  const auto records = records_of(model);
  std::vector<std::shared_ptr<AdapterGeneration>> generations;
  for (const auto& record : records) {
    const AdapterGeneration& own = *record->generation.own();
    auto whole = std::make_shared<AdapterGeneration>(own.identity, own.config);
    whole->number = own.number;
    generations.push_back(std::move(whole));
  }
  unsigned next = next_site(model);
  std::vector<bool> is_taken(next);
  for (const auto& site : model.sites) {
    SiteTable* table = site->table();
    if (!table) continue;
    const unsigned number = is_taken[table->number] ? next++ : table->number;
    if (number < is_taken.size()) is_taken[number] = true;
    table->number = number;
    for (SiteEntry& entry : table->entries) {
      if (!entry.record) continue;
      const auto place = std::find_if(records.begin(), records.end(), [&](const auto& record) { return record->id == entry.id; });
      if (auto here = entry.record->generation.own()->shared_at(entry.site))
        generations[std::size_t(place - records.begin())]->put(number, table, std::move(here));
      entry.site = number;
    }
  }
  for (const auto& generation : generations) tie_again(model, *generation);
  for (std::size_t i = 0; i < records.size(); ++i) (void)records[i]->generation.publish(std::move(generations[i]));
  for (const auto& site : model.sites)
    if (SiteTable* table = site->table())
      for (SiteEntry& entry : table->entries)
        if (entry.record)
          for (const auto& record : records)
            if (record->id == entry.id) entry.record = record;
  share_directory(model, records);
}

/// Makes a new adapter known, and the tables that were made for it. Its entries stand in the tables already.
inline void enroll(const ModelSites& model, const std::shared_ptr<AdapterRecord>& record, bool wants_gradients) {
  std::shared_ptr<AdapterDirectory> directory;
  for (const auto& site : model.sites)
    if (const SiteTable* table = site->table(); table && table->directory) directory = table->directory;
  if (!directory) directory = std::make_shared<AdapterDirectory>();
  directory->tables = 0;
  for (const auto& site : model.sites)
    if (SiteTable* table = site->table()) {
      table->directory = directory;
      ++directory->tables;
    }
  directory->add(record);
  directory->set_wants_gradients(record->id, wants_gradients);
}

[[nodiscard]] inline std::shared_ptr<AdapterRecord> find_record(const ModelSites& model, std::string_view name) {
  if (const AdapterDirectory* directory = directory_of(model)) return directory->find(name);
  for (auto& record : records_of(model))
    if (record->name() == name) return record;
  return nullptr;
}

[[nodiscard]] inline std::shared_ptr<AdapterRecord> find_record(const ModelSites& model, unsigned id) {
  if (const AdapterDirectory* directory = directory_of(model)) return directory->find(id);
  for (auto& record : records_of(model))
    if (record->id == id) return record;
  return nullptr;
}

template <class = OnDemand>
[[noreturn]] void unknown_adapter(const ModelSites& model, std::string_view name) {
  std::vector<std::string> names;
  for (const auto& record : records_of(model)) names.push_back(record->name());
  const auto near = nearest_names(name, names);
  fail<AdapterError>("no adapter is called '" + std::string(name) + "'",
                     names.empty() ? "nothing was injected into this model" : "its adapters are " + join(names, ", "),
                     near.empty() ? "inject or load it first" : "did you mean '" + near.front() + "'?");
}

template <class = OnDemand>
[[nodiscard]] std::shared_ptr<AdapterRecord> need_record(const ModelSites& model, std::string_view name) {
  if (auto record = find_record(model, name)) return record;
  unknown_adapter(model, name);
}
GRAFT_SHARED_FUNCTION(need_record<>)

/// The first number that no adapter of the model has had.
[[nodiscard]] inline unsigned next_id(const ModelSites& model) {
  unsigned next = 0;
  for (const auto& site : model.sites)
    if (const SiteTable* table = site->table(); table && !table->entries.empty())
      next = std::max(next, table->entries.back().id + 1);
  return next;
}

/// The ids of the model's active adapters, in order.
[[nodiscard]] inline std::vector<unsigned> selected_of(const ModelSites& model) {
  for (const auto& site : model.sites)
    if (const SiteTable* table = site->table()) return table->selected;
  return {};
}

/// Puts the trained biases of plain layers into the layers, or the base's own back.
inline void place_plain_biases(const ModelSites& model, AdapterRecord& record, bool in_place) {
  if (record.plain_biases.empty() || record.plain_biases_in_place == in_place) return;
  for (PlainBias& bias : record.plain_biases)
    for (const BaseTensor& tensor : model.plain) {
      if (tensor.key != bias.key) continue;
      ParameterData current(tensor.dtype, tensor.shape);
      assign(current, tensor.read(), false);
      current.set_requires_grad(bias.values.requires_grad());
      tensor.write(bias.values.view(), false);
      bias.values = std::move(current);
      if (!tensor.parameter) continue;
      if (in_place) bias.base_trains = tensor.parameter->requires_grad();
      tensor.parameter->set_requires_grad(in_place ? bias.values.requires_grad() : bias.base_trains);
    }
  record.plain_biases_in_place = in_place;
}

/// Whether they want gradients: the layers that hold them, too.
inline void set_plain_biases_require_grad(const ModelSites& model, AdapterRecord& record, bool value) {
  for (PlainBias& bias : record.plain_biases) {
    bias.values.set_requires_grad(value);
    if (!record.plain_biases_in_place) continue;
    for (const BaseTensor& tensor : model.plain)
      if (tensor.key == bias.key && tensor.parameter) tensor.parameter->set_requires_grad(value);
  }
}

/// What a plain tensor of the base holds, or would hold if no adapter's bias stood in it.
[[nodiscard]] inline TensorView base_values(const std::vector<std::shared_ptr<AdapterRecord>>& records, const BaseTensor& tensor) {
  for (const auto& record : records)
    for (const PlainBias& bias : record->plain_biases)
      if (record->plain_biases_in_place && bias.key == tensor.key) return bias.values.view();
  return tensor.read();
}

/// Whether the model's adapters act: not inside of `disable_adapter`.
[[nodiscard]] inline bool is_enabled(const ModelSites& model) {
  for (const auto& site : model.sites)
    if (const SiteTable* table = site->table()) return table->enabled;
  return true;
}

/// Puts the plain biases of the active adapters into their layers, none of a disabled model.
template <class = OnDemand>
void place_selected_biases(const ModelSites& model) {
  if (const AdapterDirectory* directory = directory_of(model); directory && !directory->has_plain_biases()) return;
  const std::vector<unsigned> ids = is_enabled(model) ? selected_of(model) : std::vector<unsigned>{};
  const auto is_selected = [&](const auto& record) { return std::find(ids.begin(), ids.end(), record->id) != ids.end(); };
  const auto records = records_of(model);
  for (const auto& record : records)  // out before in: two adapters may mean the same layer
    if (!is_selected(record)) place_plain_biases(model, *record, false);
  for (const auto& record : records)
    if (is_selected(record)) place_plain_biases(model, *record, true);
}
GRAFT_SHARED_FUNCTION(place_selected_biases<>)

/// Makes these adapters, in this order, the active ones everywhere.
template <class = OnDemand>
void select_everywhere(const ModelSites& model, const std::vector<unsigned>& ids) {
  share_records(model);
  for (const auto& site : model.sites) {
    if (SiteTable* table = site->table()) table->select(ids);
  }
  place_selected_biases(model);
}
GRAFT_SHARED_FUNCTION(select_everywhere<>)

/// The names of adapters, of those that are there.
template <class = OnDemand>
[[nodiscard]] std::vector<std::string> names_of_ids(const ModelSites& model, const std::vector<unsigned>& ids) {
  std::vector<std::string> names;
  const auto records = records_of(model);
  for (const unsigned id : ids)
    for (const auto& record : records)
      if (record->id == id) names.push_back(record->name());
  return names;
}

/// Takes an adapter out of every site; its number stays.
template <class = OnDemand>
void remove_everywhere(const ModelSites& model, const AdapterRecord& record) {
  std::vector<unsigned> selected = selected_of(model);
  selected.erase(std::remove(selected.begin(), selected.end(), record.id), selected.end());
  select_everywhere(model, selected);
  const unsigned id = record.id;
  record.identity().deleted.store(true, std::memory_order_relaxed);
  for (const auto& site : model.sites)
    if (SiteTable* table = site->table())
      if (SiteEntry* entry = table->find(id)) {
        SiteEntry left;
        left.id = id;
        left.left_behind = entry->wrapper();
        left.left_above = entry->saved_above();
        *entry = std::move(left);
      }
  if (AdapterDirectory* directory = directory_of(model)) directory->remove(id);
}
GRAFT_SHARED_FUNCTION(remove_everywhere<>)

}  // namespace graft::detail
