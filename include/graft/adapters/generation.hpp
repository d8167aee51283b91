#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../core/published.hpp"
#include "adapter.hpp"
#include "token_rows.hpp"

namespace graft {

struct SiteTable;

/// A whole copy of a layer, kept for one adapter: `modules_to_save`.
class AnyModuleCopy {
 public:
  virtual ~AnyModuleCopy() = default;
  [[nodiscard]] virtual std::unique_ptr<AnyModuleCopy> clone() const = 0;
};

/// What one adapter has at one site: its state, or a copy of the layer, or rows of it, or only a bias.
struct SiteAdapter {
  std::unique_ptr<AnyAdapterState> state{};
  std::unique_ptr<AnyModuleCopy> copy{};
  std::unique_ptr<ParameterData> bias{};  ///< the base's bias as this adapter trained it, (out)
  bool copy_trains = false;               ///< whether the copy's parameters want gradients
  std::shared_ptr<TokenRows> tokens{};    ///< shared by an embedding and the head that is tied to it
  std::string tied_to{};                  ///< at such a head: the path of the embedding

  unsigned depth = 0;                     ///< how many wrappers of other methods are around it, whose base it is part of
  bool with_outer = false;                ///< it came with what the adapter has at the site around it, and its keys stand inside of that site's
  unsigned saved_above = 0;               ///< its copy is part of one of the module so many segments up its path: 0 for the site itself

  [[nodiscard]] std::shared_ptr<SiteAdapter> clone() const {
    auto twin = std::make_shared<SiteAdapter>();
    if (state) twin->state = state->clone();
    if (copy) twin->copy = copy->clone();
    if (bias) twin->bias = std::make_unique<ParameterData>(*bias);
    twin->copy_trains = copy_trains;
    if (tokens) twin->tokens = std::make_shared<TokenRows>(*tokens);
    twin->tied_to = tied_to;
    twin->depth = depth;
    twin->with_outer = with_outer;
    twin->saved_above = saved_above;
    return twin;
  }
};

/// What stays of an adapter while its weights are exchanged. Threads in forward read it.
struct AdapterIdentity {
  std::string name;
  std::atomic<double> strength{1};   ///< `set_scale`: a factor on the adapter's own scale
  std::atomic<bool> deleted{false};  ///< from its model: selections of it are stale

  explicit AdapterIdentity(std::string adapter_name) : name(std::move(adapter_name)) {}
};

/// Everything of an adapter that is exchanged at once: its config and what it has at every site. A selection holds
/// one, so that a forward sees one generation throughout. Sites are told by their numbers on the model.
class AdapterGeneration {
 public:
  AdapterGeneration() = default;
  AdapterGeneration(std::shared_ptr<AdapterIdentity> adapter, const PeftConfig& adapter_config)
      : config(adapter_config), identity(std::move(adapter)) {}

  PeftConfig config{};
  unsigned number = 0;
  std::shared_ptr<AdapterIdentity> identity = std::make_shared<AdapterIdentity>("");

  /// What it has at the site of that number, or null.
  [[nodiscard]] SiteAdapter* at(unsigned site) const {
    const Slot* slot = slot_of(site);
    return slot ? slot->adapter.get() : nullptr;
  }
  [[nodiscard]] std::shared_ptr<SiteAdapter> shared_at(unsigned site) const {
    const Slot* slot = slot_of(site);
    return slot ? slot->adapter : nullptr;
  }
  /// What it has at this very site: null for that of a copy of the model, whose weights are others.
  [[nodiscard]] const SiteAdapter* find(const SiteTable& table) const;
  /// `table` is the site's, which the weights were made for.
  void put(unsigned site, const SiteTable* table, std::shared_ptr<SiteAdapter> adapter) {
    if (slots_.empty()) first_ = site;
    if (site < first_) {
      const std::size_t added = first_ - site;
      slots_.resize(slots_.size() + added);
      for (std::size_t i = slots_.size(); i-- > added;) slots_[i] = std::exchange(slots_[i - added], Slot{});
      first_ = site;
    }
    if (site - first_ >= slots_.size()) slots_.resize(site - first_ + 1);
    slots_[site - first_] = {table, std::move(adapter)};
  }

 private:
  struct Slot {
    const SiteTable* table = nullptr;
    std::shared_ptr<SiteAdapter> adapter{};
  };
  [[nodiscard]] const Slot* slot_of(unsigned site) const {
    return site >= first_ && site - first_ < slots_.size() ? &slots_[site - first_] : nullptr;
  }

  unsigned first_ = 0;  ///< the number of the first slot's site: an adapter of few sites has few slots
  std::vector<Slot> slots_;
};

/// A bias of a layer without room for adapters, as an adapter with bias = all trained it. While that adapter is
/// active the layer holds the trained values and this the base's own; else the other way round.
struct PlainBias {
  std::string key;  ///< "norm.bias"
  ParameterData values;
  bool base_trains = false;  ///< while the layer holds the trained values: whether the base's own want gradients
};

/// One adapter of a model: shared by all its sites.
class AdapterRecord {
 public:
  explicit AdapterRecord(unsigned number = 0, const std::string& adapter_name = "", const PeftConfig& adapter_config = {})
      : id(number),
        generation(std::make_shared<AdapterGeneration>(std::make_shared<AdapterIdentity>(adapter_name), adapter_config)),
        identity_(generation.own()->identity) {}

  unsigned id;  ///< never used again on this model
  std::vector<PlainBias> plain_biases{};
  bool plain_biases_in_place = false;
  Published<AdapterGeneration> generation;

  /// The same for every generation: `select` may ask while another thread exchanges one.
  [[nodiscard]] AdapterIdentity& identity() const { return *identity_; }
  [[nodiscard]] const std::string& name() const { return identity().name; }

  // for verbs, of which one runs at a time
  void rename(std::string name) { identity().name = std::move(name); }
  [[nodiscard]] const PeftConfig& config() const { return generation.own()->config; }
  [[nodiscard]] PeftType type() const { return PeftType(config().index()); }
  [[nodiscard]] double strength() const { return identity().strength.load(std::memory_order_relaxed); }
  void set_strength(double strength) { identity().strength.store(strength, std::memory_order_relaxed); }

 private:
  std::shared_ptr<AdapterIdentity> identity_;
};

}  // namespace graft
