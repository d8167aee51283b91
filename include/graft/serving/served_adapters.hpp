#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../injection/control.hpp"
#include "adapter_maker.hpp"

namespace graft::detail {

/// The registry without its model's type.
///
/// One mutex guards names, order of use and counts, and is held for look-ups alone. Weights are made outside
/// of it, under a mutex of their adapter, so that threads which want one adapter make it once.
class ServedAdapters {
 public:
  ServedAdapters(ModelSites sites, const ServeLimits& limits) : maker_(std::move(sites)), limits_(limits) {}

  ServedAdapter add(const std::string& name, AdapterSource source) {
    check_name(name);
    {
      const std::lock_guard lock(mutex_);
      check_room(name);
    }
    const std::shared_ptr<Entry> entry = maker_.read(name, std::move(source), limits());
    const std::lock_guard lock(mutex_);
    check_room(name);
    put(entry);
    return describe(*entry);
  }

  ServedAdapter replace(const std::string& name, std::uint64_t expected, AdapterSource source) {
    bool was_resident = false;
    {
      const std::lock_guard lock(mutex_);
      was_resident = expect(name, expected)->resident != nullptr;
    }
    const std::shared_ptr<Entry> next = maker_.read(name, std::move(source), limits());
    const Weights weights = was_resident ? maker_.make(*next) : nullptr;
    if (weights) next->starts = maker_.starts_of(*weights);
    Dropped dropped;
    std::shared_ptr<Entry> old;
    const std::lock_guard lock(mutex_);
    old = expect(name, expected);
    take_out(*old, dropped);
    put(next);
    ++metrics_.replacements;
    if (weights) {
      ++metrics_.materialisations;
      make_resident(*next, weights, dropped);
    }
    return describe(*next);
  }

  void remove(std::string_view name, std::optional<std::uint64_t> expected) {
    Dropped dropped;
    std::shared_ptr<Entry> entry;
    const std::lock_guard lock(mutex_);
    entry = expected ? expect(name, *expected) : need(name);
    take_out(*entry, dropped);
    entries_.erase(entry->name);
    ++metrics_.removals;
  }

  /// The weights of an adapter, made if they are not in memory.
  [[nodiscard]] Weights acquire(std::string_view name) {
    Dropped dropped;
    std::shared_ptr<Entry> entry;
    {
      const std::lock_guard lock(mutex_);
      entry = need(name);
      if (Weights weights = find(*entry, dropped)) {
        ++metrics_.hits;
        return weights;
      }
      ++metrics_.misses;
    }
    const std::lock_guard loading(entry->loading);
    {
      const std::lock_guard lock(mutex_);
      if (Weights weights = find(*entry, dropped)) return weights;  // made while this thread waited
    }
    const Weights weights = maker_.make(*entry);
    BaseStarts<> starts = maker_.starts_of(*weights);
    const std::lock_guard lock(mutex_);
    entry->starts = std::move(starts);
    ++metrics_.materialisations;
    if (entry->is_current) make_resident(*entry, weights, dropped);
    return weights;
  }

  [[nodiscard]] AdapterSelection select(const std::vector<NamedWeight>& adapters) {
    std::vector<WeightedAdapter> selection;
    auto pins = std::make_shared<std::vector<Weights>>();
    for (const auto& [name, weight] : adapters) {
      check_factor(weight, name);
      Weights weights = acquire(name);
      if (weight == 0) continue;
      selection.push_back({unnumbered_adapter, weight, weights.get()});
      pins->push_back(std::move(weights));
    }
    return AdapterSelection(std::move(selection), std::move(pins));
  }

  bool evict(std::string_view name) {
    Dropped dropped;
    const std::lock_guard lock(mutex_);
    const std::shared_ptr<Entry> entry = need(name);
    if (!entry->resident) return false;
    ++metrics_.evictions;
    drop(*entry, dropped);
    return true;
  }
  void set_byte_budget(std::size_t bytes) {
    Dropped dropped;
    const std::lock_guard lock(mutex_);
    limits_.byte_budget = bytes;
    make_room(0, dropped);
  }

  [[nodiscard]] std::optional<ServedAdapter> look_up(std::string_view name) const {
    const std::lock_guard lock(mutex_);
    const auto place = entries_.find(name);
    if (place == entries_.end()) return std::nullopt;
    return describe(*place->second);
  }
  [[nodiscard]] std::vector<ServedAdapter> list() const {
    const std::lock_guard lock(mutex_);
    std::vector<ServedAdapter> all;
    for (const auto& [name, entry] : entries_) all.push_back(describe(*entry));
    return all;
  }
  [[nodiscard]] ServeMetrics metrics() const {
    const std::lock_guard lock(mutex_);
    ServeMetrics now = metrics_;
    now.adapters = entries_.size();
    now.resident = by_use_.size();
    now.bytes_alive = maker_.bytes_alive();
    return now;
  }

 private:
  using Entry = ServedEntry;
  /// Weights to be freed once the mutex is not held any more.
  using Dropped = std::vector<Weights>;

  static void check_name(const std::string& name) {
    bool is_wrong = name.empty() || name == "__base__";
    for (const char c : name) is_wrong = is_wrong || static_cast<unsigned char>(c) < ' ' || c == 127;
    if (is_wrong)
      refuse<ServeCode::invalid_name>("an adapter cannot be called '" + name + "'",
                                      "a name is not empty, has no control characters, and '__base__' means no adapter",
                                      "choose another name");
  }
  void check_room(const std::string& name) const {
    if (entries_.find(name) != entries_.end())
      refuse<ServeCode::name_taken>("the registry has an adapter '" + name + "' already", "names are unique",
                                    "replace() it, or remove() it first");
    if (limits_.max_adapters && entries_.size() >= limits_.max_adapters)
      refuse<ServeCode::too_many_adapters>("the registry has " + std::to_string(entries_.size()) + " adapters",
                                           "that is its limit", "remove() one, or raise ServeLimits::max_adapters");
  }
  [[nodiscard]] ServeLimits limits() const {
    const std::lock_guard lock(mutex_);
    return limits_;
  }

  // All below with the mutex held.
  [[nodiscard]] std::shared_ptr<Entry> need(std::string_view name) const {
    const auto place = entries_.find(name);
    if (place == entries_.end())
      refuse<ServeCode::unknown_adapter>("the registry has no adapter '" + std::string(name) + "'",
                                         "it was never added, or was removed", "add() it first");
    return place->second;
  }
  [[nodiscard]] std::shared_ptr<Entry> expect(std::string_view name, std::uint64_t generation) {
    std::shared_ptr<Entry> entry = need(name);
    if (entry->generation != generation) {
      ++metrics_.conflicts;
      refuse<ServeCode::generation_conflict>(
          "adapter '" + std::string(name) + "' is generation " + std::to_string(entry->generation) + ", not " + std::to_string(generation),
          "somebody else replaced it meanwhile", "look at it again, and decide again");
    }
    return entry;
  }
  void put(const std::shared_ptr<Entry>& entry) {
    entry->generation = ++last_generation_;
    metrics_.bytes_buffered += entry->source.kept_bytes;
    entries_.insert_or_assign(entry->name, entry);
  }
  void take_out(Entry& entry, Dropped& dropped) {
    if (entry.resident) drop(entry, dropped);
    entry.is_current = false;
    metrics_.bytes_buffered -= entry.source.kept_bytes;
  }
  [[nodiscard]] Weights find(Entry& entry, Dropped& dropped) {
    if (entry.starts.are_outdated()) {  // another base was loaded
      if (entry.resident) drop(entry, dropped);
      entry.last.reset();
      entry.starts = {};
    }
    if (entry.resident) {
      by_use_.splice(by_use_.begin(), by_use_, entry.use);
      return entry.resident;
    }
    Weights weights = entry.last.lock();
    if (weights && entry.is_current) make_resident(entry, weights, dropped);
    return weights;
  }
  void make_resident(Entry& entry, const Weights& weights, Dropped& dropped) {
    if (entry.resident) return;
    make_room(entry.bytes, dropped);
    entry.resident = weights;
    entry.last = weights;
    by_use_.push_front(&entry);
    entry.use = by_use_.begin();
    metrics_.bytes_resident += entry.bytes;
  }
  void make_room(std::size_t bytes, Dropped& dropped) {
    while (limits_.byte_budget && !by_use_.empty() && metrics_.bytes_resident + bytes > limits_.byte_budget) {
      ++metrics_.evictions;
      drop(*by_use_.back(), dropped);
    }
  }
  void drop(Entry& entry, Dropped& dropped) {
    dropped.push_back(std::move(entry.resident));
    entry.resident = nullptr;
    by_use_.erase(entry.use);
    metrics_.bytes_resident -= entry.bytes;
  }
  [[nodiscard]] static ServedAdapter describe(const Entry& entry) {
    return {entry.name, entry.generation, PeftType(entry.source.config.index()), entry.rank, entry.bytes, entry.resident != nullptr,
            entry.source.warnings};
  }

  const AdapterMaker maker_;
  ServeLimits limits_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Entry>, std::less<>> entries_;
  std::list<Entry*> by_use_;  ///< those in memory, the latest used first
  std::uint64_t last_generation_ = 0;
  ServeMetrics metrics_{};
};

}  // namespace graft::detail
