#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string_view>
#include <string>
#include <utility>
#include <vector>

#include "adapter.hpp"

namespace graft {

/// A whole copy of a layer, kept for one adapter: `modules_to_save`.
class AnyModuleCopy {
 public:
  virtual ~AnyModuleCopy() = default;
  [[nodiscard]] virtual std::unique_ptr<AnyModuleCopy> clone() const = 0;
};

/// What PEFT puts around a layer for an adapter: a method's tuner layer, or the wrapper of `modules_to_save`.
enum class Wrapper { lora, adalora, ia3, copies };

/// One adapter at one site: its state, or a copy of the layer, or only a bias.
struct SiteEntry {
  unsigned id = 0;
  std::shared_ptr<AdapterRecord> record{};    ///< null: deleted; the number stays so that stale selections are seen
  std::unique_ptr<AnyAdapterState> state{};
  std::unique_ptr<AnyModuleCopy> copy{};
  std::unique_ptr<ParameterData> bias{};      ///< the base's bias as this adapter trained it, (out)
  std::optional<Wrapper> left_behind{};       ///< by a deleted adapter: PEFT keeps the wrapper, empty

  SiteEntry() = default;
  SiteEntry(SiteEntry&&) noexcept = default;
  SiteEntry& operator=(SiteEntry&&) noexcept = default;
  SiteEntry(const SiteEntry& other)
      : id(other.id),
        record(other.record ? std::make_shared<AdapterRecord>(*other.record) : nullptr),
        state(other.state ? other.state->clone() : nullptr),
        copy(other.copy ? other.copy->clone() : nullptr),
        bias(other.bias ? std::make_unique<ParameterData>(*other.bias) : nullptr),
        left_behind(other.left_behind) {}

  /// None for an adapter that trains no more than the bias.
  [[nodiscard]] std::optional<Wrapper> wrapper() const {
    if (state) return Wrapper(int(state->type()));
    if (copy) return Wrapper::copies;
    return left_behind;
  }
};

/// What a site holds once something was injected into it.
struct SiteTable {
  std::string path;
  std::vector<SiteEntry> entries;  ///< by ascending id
  std::vector<unsigned> selected;  ///< ids of the model's active adapters, in the order of activation
  std::vector<unsigned> active;    ///< those of them that are here
  bool enabled = true;

  [[nodiscard]] const SiteEntry* find(unsigned id) const {
    const auto place = std::lower_bound(entries.begin(), entries.end(), id,
                                        [](const SiteEntry& entry, unsigned wanted) { return entry.id < wanted; });
    return place == entries.end() || place->id != id ? nullptr : &*place;
  }
  [[nodiscard]] SiteEntry* find(unsigned id) { return const_cast<SiteEntry*>(std::as_const(*this).find(id)); }
  [[nodiscard]] const SiteEntry* find(std::string_view name) const {
    for (const SiteEntry& entry : entries)
      if (entry.record && entry.record->name == name) return &entry;
    return nullptr;
  }
  [[nodiscard]] SiteEntry* find(std::string_view name) { return const_cast<SiteEntry*>(std::as_const(*this).find(name)); }
  /// Whether forward is the base layer alone while no batch says otherwise.
  [[nodiscard]] bool is_idle() const { return !enabled || active.empty(); }
};

namespace detail {
[[noreturn]] inline void adapter_is_meta(const AdapterRecord& record, const std::string& path) {
  fail<MetaError>("adapter '" + record.name + "' at '" + path + "' has parameters on the meta device",
                  "it was injected with low_cpu_mem_usage and not loaded yet",
                  "load its state dict or files first, or select another adapter");
}
[[noreturn]] inline void adapter_was_deleted(unsigned id, const std::string& path) {
  fail<AdapterError>("a batch selects adapter number " + std::to_string(id) + " at '" + path + "', which was deleted",
                     "a selection holds numbers, and numbers are never used again", "select() again");
}
}  // namespace detail

}  // namespace graft
