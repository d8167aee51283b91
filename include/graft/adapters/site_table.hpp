#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "directory.hpp"
#include "merge_step.hpp"

namespace graft {

/// What PEFT puts around a layer for an adapter: a method's tuner layer, or the wrapper of `modules_to_save`, of
/// `trainable_token_indices` or of `target_parameters`.
enum class Wrapper { lora, adalora, ia3, copies, tokens, parameter };

/// One adapter at one site. What it has there stands in its record's current generation.
struct SiteEntry {
  unsigned id = 0;
  unsigned site = 0;                        ///< the site's number
  std::shared_ptr<AdapterRecord> record{};  ///< null: deleted; the number stays so that stale selections are seen
  std::optional<Wrapper> left_behind{};     ///< by a deleted adapter: PEFT keeps the wrapper, empty
  unsigned left_above = 0;                  ///< where around the site such a wrapper of a copy is

  // for verbs, of which one runs at a time; null where there is none
  [[nodiscard]] SiteAdapter* here() const { return record ? record->generation.own()->at(site) : nullptr; }
  [[nodiscard]] AnyAdapterState* state() const { return here() ? here()->state.get() : nullptr; }
  [[nodiscard]] AnyModuleCopy* copy() const { return here() ? here()->copy.get() : nullptr; }
  [[nodiscard]] TokenRows* tokens() const { return here() ? here()->tokens.get() : nullptr; }
  [[nodiscard]] unsigned depth() const { return here() ? here()->depth : 0; }
  [[nodiscard]] ParameterData* bias() const { return here() ? here()->bias.get() : nullptr; }
  /// How many segments above the site the module is that its wrapper of a copy is around.
  [[nodiscard]] unsigned saved_above() const { return here() ? here()->saved_above : left_above; }

  /// None for an adapter that trains no more than the bias.
  [[nodiscard]] std::optional<Wrapper> wrapper() const {
    if (const AnyAdapterState* own = state()) return own->is_of_parameter() ? Wrapper::parameter : Wrapper(int(own->type()));
    if (copy()) return Wrapper::copies;
    if (tokens()) return Wrapper::tokens;
    return left_behind;
  }
  /// For the site's copy: a record of its own, that holds no more than this site's part.
  [[nodiscard]] SiteEntry copy_for(const SiteTable& table) const {
    SiteEntry twin;
    twin.id = id;
    twin.site = site;
    twin.left_behind = left_behind;
    twin.left_above = left_above;
    if (!record) return twin;
    twin.record = std::make_shared<AdapterRecord>(id, record->name(), record->config());
    twin.record->set_strength(record->strength());
    twin.record->plain_biases = record->plain_biases;
    twin.record->plain_biases_in_place = record->plain_biases_in_place;
    AdapterGeneration& generation = *twin.record->generation.own();
    generation.number = record->generation.own()->number;
    if (const SiteAdapter* own = here()) generation.put(site, &table, own->clone());
    return twin;
  }
};

/// What a site holds once something was injected into it. It stays where it is while its site lives.
struct SiteTable {
  std::string path;
  unsigned number = 0;             ///< of the site on its model
  std::vector<SiteEntry> entries;  ///< by ascending id
  std::vector<unsigned> selected;  ///< ids of the model's active adapters, in the order of activation
  std::vector<unsigned> active;    ///< those of them that are here
  std::vector<unsigned> merged;    ///< those of the active that are folded into the base, in the order of merging
  std::vector<unsigned> pending;   ///< active minus merged: what a forward adds
  std::vector<unsigned> places;    ///< of the pending, among the entries
  std::vector<MergeStep> steps;    ///< how they were folded in, the latest last
  std::optional<WeightBound> bound;  ///< of the base weight
  bool enabled = true;
  std::shared_ptr<AdapterDirectory> directory{};  ///< the model's; null until a verb has changed a copy

  SiteTable() = default;
  SiteTable(SiteTable&&) = default;
  SiteTable& operator=(SiteTable&&) = default;
  SiteTable(const SiteTable& other)
      : path(other.path),
        number(other.number),
        selected(other.selected),
        active(other.active),
        merged(other.merged),
        pending(other.pending),
        places(other.places),
        steps(other.steps),
        enabled(other.enabled) {
    entries.reserve(other.entries.size());
    for (const SiteEntry& entry : other.entries) entries.push_back(entry.copy_for(*this));
  }

  [[nodiscard]] const SiteEntry* find(unsigned id) const {
    if (entries.empty() || id < entries.front().id) return nullptr;
    // no entry stands further back than its number says; where every adapter is at this site, each stands just there
    const std::size_t latest = std::min<std::size_t>(id - entries.front().id, entries.size() - 1);
    if (entries[latest].id == id) return &entries[latest];
    const auto end = entries.begin() + std::ptrdiff_t(latest);
    const auto place = std::lower_bound(entries.begin(), end, id,
                                        [](const SiteEntry& entry, unsigned wanted) { return entry.id < wanted; });
    return place == end || place->id != id ? nullptr : &*place;
  }
  [[nodiscard]] SiteEntry* find(unsigned id) { return const_cast<SiteEntry*>(std::as_const(*this).find(id)); }
  [[nodiscard]] const SiteEntry* find(std::string_view name) const {
    for (const SiteEntry& entry : entries)
      if (entry.record && entry.record->name() == name) return &entry;
    return nullptr;
  }
  [[nodiscard]] SiteEntry* find(std::string_view name) { return const_cast<SiteEntry*>(std::as_const(*this).find(name)); }

  /// Whether PEFT would have replaced the layer by a tuner layer, whose own tensors it calls `base_layer.…`.
  [[nodiscard]] bool is_wrapped() const {
    return std::any_of(entries.begin(), entries.end(), [](const SiteEntry& entry) {
      const auto wrapper = entry.wrapper();
      return wrapper && *wrapper != Wrapper::copies && *wrapper != Wrapper::tokens;
    });
  }

  /// Makes the model's active adapters these.
  void select(const std::vector<unsigned>& ids) {
    selected = ids;
    active.clear();
    for (const unsigned id : ids)
      if (const SiteEntry* entry = find(id); entry && entry->record) active.push_back(id);
    settle();
  }
  /// To be called when `active`, `merged` or `entries` has changed.
  void settle() {
    pending.clear();
    places.clear();
    for (const unsigned id : active)
      if (std::find(merged.begin(), merged.end(), id) == merged.end()) {
        pending.push_back(id);
        places.push_back(unsigned(find(id) - entries.data()));
      }
  }
  /// Whether forward is the base layer alone while no batch says otherwise.
  [[nodiscard]] bool is_idle() const { return !enabled || pending.empty(); }
};

inline const SiteAdapter* AdapterGeneration::find(const SiteTable& table) const {
  const Slot* slot = slot_of(table.number);
  return slot && slot->table == &table ? slot->adapter.get() : nullptr;
}

namespace detail {
[[noreturn]] inline void adapter_is_meta(const std::string& name, const std::string& path) {
  fail<MetaError>("adapter '" + name + "' at '" + path + "' has parameters on the meta device",
                  "it was injected with low_cpu_mem_usage and not loaded yet",
                  "load its state dict or files first, or select another adapter");
}
[[noreturn]] inline void adapter_was_deleted(unsigned id, const std::string& path) {
  fail<AdapterError>("a batch selects adapter number " + std::to_string(id) + " at '" + path + "', which was deleted",
                     "a selection holds numbers, and numbers are never used again", "select() again");
}
[[noreturn]] inline void selection_of_another_model(const std::string& name, const std::string& path) {
  fail<AdapterError>("a batch selects '" + name + "' at '" + path + "', which a registry holds for another model",
                     "its weights were made for the sites of that model, and a copy has sites of its own",
                     "give the model a registry of its own");
}
[[noreturn]] inline void tokens_overlap(const std::string& path, const std::string& first, const std::string& second) {
  fail<AdapterError>("adapters '" + first + "' and '" + second + "' both have a row of their own for a token of '" + path + "'",
                     "trained tokens replace rows, and a row can be replaced only once",
                     "use adapters whose trainable_token_indices have no id in common together");
}
[[noreturn]] inline void selection_meets_merged(const std::string& path) {
  fail<MergeError>("a batch selects its adapters, and '" + path + "' has others merged into its weight",
                   "the merged ones would act on all rows, whatever they select", "unmerge_adapter() first");
}
}  // namespace detail

}  // namespace graft
