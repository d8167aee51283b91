#pragma once

#include <cstddef>
#include <new>
#include <span>

#include "site_table.hpp"

namespace graft::detail {

/// An adapter that the rows of a segment want at a site, found there, and held for the call.
struct Selected {
  const Segment* segment = nullptr;
  const SiteAdapter* adapter = nullptr;
  const AdapterIdentity* identity = nullptr;
  double weight = 1;  ///< the selection's times the adapter's strength
  Published<AdapterGeneration>::Reader reader{};  ///< where no selection holds the generation
};

/// Whether the same adapter stands before `one`: named twice, it adds twice, and takes the place of something once.
[[nodiscard]] inline bool is_again(std::span<const Selected> here, const Selected& one) {
  for (const Selected& other : here)
    if (&other == &one) return false;
    else if (other.adapter == one.adapter) return true;
  return false;
}

/// Everything that a batch wants at a site, found once per call: selection by selection, in the order of their first
/// segments.
class SelectedAdapters {
 public:
  /// @throws AdapterError for an adapter that was deleted, MergeError for a selection at a merged site.
  SelectedAdapters(const SiteTable* table, const BatchView& batch)  // whole before it adds: what throws lets go of the rest
      : SelectedAdapters(batch.workspace, table, table && table->enabled ? most_of(*table, batch) : 0) {
    if (!table || !table->enabled) return;
    for (const Segment& segment : batch.segments) {
      if (!segment.leads) continue;
      if (segment.active) {
        for (const unsigned place : table->places) add_current(segment, table->entries[place], 1);
        continue;
      }
      for (const WeightedAdapter& wanted : batch.adapters.subspan(segment.first, segment.count)) add(*table, segment, wanted);
    }
  }
  SelectedAdapters(const SelectedAdapters&) = delete;
  SelectedAdapters& operator=(const SelectedAdapters&) = delete;
  ~SelectedAdapters() {
    for (std::size_t i = 0; i < count_; ++i) places_.data()[i].~Selected();
  }

  [[nodiscard]] std::span<const Selected> all() const { return {places_.data(), count_}; }
  /// Where they were found: null at a site that never had any.
  [[nodiscard]] const SiteTable* table() const { return table_; }
  [[nodiscard]] bool empty() const { return count_ == 0; }

  /// Calls f(the first segment, its adapters) for every selection that has some here.
  template <class F>
  void for_each_selection(F f) const {
    for (std::size_t begin = 0, end; begin < count_; begin = end) {
      for (end = begin + 1; end < count_ && all()[end].segment == all()[begin].segment;) ++end;
      f(*all()[begin].segment, all().subspan(begin, end - begin));
    }
  }

 private:
  SelectedAdapters(Workspace* workspace, const SiteTable* table, std::size_t most) : table_(table), places_(workspace, Index(most)) {}
  static std::size_t most_of(const SiteTable& table, const BatchView& batch) {
    std::size_t most = 0;
    for (const Segment& segment : batch.segments) {
      if (!segment.active && !table.merged.empty()) selection_meets_merged(table.path);
      if (segment.leads) most += segment.active ? table.pending.size() : segment.count;
    }
    return most;
  }
  void add(const SiteTable& table, const Segment& segment, const WeightedAdapter& wanted) {
    if (wanted.generation) {
      const AdapterIdentity& identity = *wanted.generation->identity;
      if (identity.deleted.load(std::memory_order_relaxed)) adapter_was_deleted(wanted.id, table.path);
      if (const SiteAdapter* adapter = wanted.generation->find(table)) {
        append({&segment, adapter, &identity, wanted.weight * identity.strength.load(std::memory_order_relaxed)});
        return;
      }
      if (wanted.id == unnumbered_adapter) {
        if (wanted.generation->at(table.number)) selection_of_another_model(identity.name, table.path);
        return;
      }
    }
    const SiteEntry* entry = table.find(wanted.id);
    if (!entry) return;
    if (!entry->record) adapter_was_deleted(wanted.id, table.path);
    add_current(segment, *entry, wanted.weight);
  }
  void add_current(const Segment& segment, const SiteEntry& entry, double weight) {
    auto reader = entry.record->generation.read();
    const SiteAdapter* adapter = reader->at(entry.site);
    if (!adapter) return;
    const AdapterIdentity* identity = reader->identity.get();
    weight *= identity->strength.load(std::memory_order_relaxed);
    append({&segment, adapter, identity, weight, std::move(reader)});
  }
  void append(Selected selected) { new (places_.data() + count_++) Selected(std::move(selected)); }

  static constexpr std::size_t few = 4;
  const SiteTable* table_;
  Scratch<Selected, few> places_;
  std::size_t count_ = 0;
};

}  // namespace graft::detail
