#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "../state_dict/staged.hpp"
#include "adapter_source.hpp"
#include "base_starts.hpp"
#include "serve_code.hpp"

namespace graft {

/// What a registry may hold; 0 is no limit.
struct ServeLimits {
  std::size_t max_adapters = 0;
  Index max_rank = 0;
  std::size_t max_adapter_bytes = 0;  ///< of one adapter's weights
  std::size_t byte_budget = 0;        ///< of all weights in memory: the least recently used are dropped
};

/// What a registry has done and holds.
struct ServeMetrics {
  std::size_t adapters = 0, resident = 0;  ///< registered; of these with weights in memory
  std::size_t bytes_resident = 0;          ///< of the weights that the registry holds
  std::size_t bytes_alive = 0;             ///< the same and those that only selections still hold
  std::size_t bytes_buffered = 0;          ///< of buffers that adapters were added from
  std::uint64_t hits = 0, misses = 0, materialisations = 0, evictions = 0;
  std::uint64_t replacements = 0, removals = 0, conflicts = 0;
};

/// An adapter of a registry.
struct ServedAdapter {
  std::string name;
  std::uint64_t generation = 0;  ///< never used again in this registry
  PeftType type = PeftType::lora;
  Index rank = 0;                ///< the largest of its ranks
  std::size_t bytes = 0;         ///< of its weights in memory
  bool is_resident = false;
  std::vector<std::string> warnings{};  ///< of adding it
};

namespace detail {

using Weights = std::shared_ptr<const AdapterGeneration>;

/// An adapter of a registry, with or without weights in memory.
struct ServedEntry {
  std::string name;
  AdapterSource source;
  std::uint64_t generation = 0;
  Index rank = 0;
  std::size_t bytes = 0;
  std::mutex loading{};

  // under the registry's mutex
  Weights resident{};
  std::weak_ptr<const AdapterGeneration> last{};  ///< dropped, and perhaps still in use
  BaseStarts<> starts{};                          ///< of those weights
  std::list<ServedEntry*>::iterator use{};
  bool is_current = true;
};

/// Reads adapters for the sites of one model, and makes their weights. For any number of threads.
class AdapterMaker {
 public:
  /// Gives every site a table, through which selections find its weights.
  explicit AdapterMaker(ModelSites sites) : sites_(std::move(sites)) {
    share_records(sites_);
    const bool enabled = is_enabled(sites_);
    const std::vector<unsigned> selected = selected_of(sites_);
    unsigned next = next_site(sites_);
    for (const auto& site : sites_.sites) {
      if (site->table()) continue;
      SiteTable& table = site->make_table(next++);
      table.enabled = enabled;
      table.select(selected);
    }
  }

  /// Reads an adapter whole, and keeps nothing of it in memory. @throws what adding it to a registry would.
  [[nodiscard]] std::shared_ptr<ServedEntry> read(const std::string& name, AdapterSource source, const ServeLimits& limits) const {
    const auto entry = std::make_shared<ServedEntry>();
    entry->name = name;
    entry->source = std::move(source);
    naming_source_of(*entry, [&] {
      StagedAdapter<> staged = stage(*entry);
      check_limits(staged, name, limits);
      const LoadReport report = staged.load(entry->source.weights, true);
      entry->source.warnings.insert(entry->source.warnings.end(), report.warnings.begin(), report.warnings.end());
      entry->rank = staged.rank();
      entry->bytes = staged.bytes();
    });
    return entry;
  }
  /// Reads its weights into memory of their own.
  [[nodiscard]] Weights make(const ServedEntry& entry) const {
    const auto made = std::make_shared<Counted>();
    naming_source_of(entry, [&] {
      StagedAdapter<> staged = stage(entry);
      (void)staged.load(entry.source.weights, false);
      staged.put_into(made->generation);
    });
    made->generation.number = unsigned(entry.generation);
    made->generation.identity->name = entry.name;
    made->bytes = entry.bytes;
    made->alive = alive_;
    alive_->fetch_add(entry.bytes, std::memory_order_relaxed);
    return Weights(made, &made->generation);
  }
  /// What these weights started from, as it is now.
  [[nodiscard]] BaseStarts<> starts_of(const AdapterGeneration& weights) const { return {sites_, weights}; }
  /// Of all weights that it made and somebody holds.
  [[nodiscard]] std::size_t bytes_alive() const { return alive_->load(std::memory_order_relaxed); }

 private:
  /// A generation that counts its bytes for as long as anybody holds it.
  struct Counted {
    AdapterGeneration generation{};
    std::size_t bytes = 0;
    std::shared_ptr<std::atomic<std::size_t>> alive{};
    Counted() = default;
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    ~Counted() {
      if (alive) alive->fetch_sub(bytes, std::memory_order_relaxed);
    }
  };

  static void check_limits(const StagedAdapter<>& staged, const std::string& name, const ServeLimits& limits) {
    const std::string problem = "adapter '" + name + "' ";
    if (limits.max_rank && staged.rank() > limits.max_rank)
      refuse<ServeCode::rank_too_large>(problem + "has rank " + std::to_string(staged.rank()),
                                        "the limit is " + std::to_string(limits.max_rank), "raise ServeLimits::max_rank");
    std::size_t most = limits.max_adapter_bytes;
    if (limits.byte_budget && (!most || limits.byte_budget < most)) most = limits.byte_budget;
    if (most && staged.bytes() > most)
      refuse<ServeCode::adapter_too_large>(problem + "needs " + std::to_string(staged.bytes()) + " bytes",
                                           "at most " + std::to_string(most) + " are allowed",
                                           "raise ServeLimits::max_adapter_bytes or byte_budget");
    if (!staged.plain_biases.empty())
      refuse<ServeCode::unsupported>(problem + "trains biases of layers without room for adapters",
                                     "these stand in the layers themselves, for the rows of all requests",
                                     "declare the layers graft::Adaptable<…>, or load it into a model of its own");
  }

  [[nodiscard]] StagedAdapter<> stage(const ServedEntry& entry) const {
    return {sites_, entry.source.config, entry.source.weights, entry.name, nullptr, "Registry"};
  }
  template <class F>
  static void naming_source_of(const ServedEntry& entry, F f) {
#if defined(__cpp_exceptions)
    try {
      f();
    } catch (const ServeError&) {
      throw;
    } catch (const Error& error) {
      fail_again(error, "adapter '" + entry.name + "' of " + entry.source.label + ": ");
    }
#else
    (void)entry;
    f();
#endif
  }

  const ModelSites sites_;
  const std::shared_ptr<std::atomic<std::size_t>> alive_ = std::make_shared<std::atomic<std::size_t>>(0);
};

}  // namespace detail
}  // namespace graft
