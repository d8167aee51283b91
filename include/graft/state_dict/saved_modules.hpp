#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "../core/keys.hpp"
#include "../core/on_demand.hpp"
#include "../core/text.hpp"
#include "../injection/site.hpp"

namespace graft::detail {

/// A module that is saved whole and holds sites, and the adapters that have a copy of it.
struct SavedModule {
  struct Copy {
    unsigned id;
    std::string name;
  };
  std::string path;
  std::vector<Copy> copies{};  ///< by ascending id; none once the adapters are deleted, for PEFT keeps the wrapper
};

/// Those of a model, the outer ones first. A site that is saved by itself is none.
template <class = OnDemand>
[[nodiscard]] std::vector<SavedModule> saved_modules(const ModelSites& model) {
  std::vector<SavedModule> all;
  for (const auto& site : model.sites) {
    const SiteTable* table = site->table();
    if (!table) continue;
    for (const SiteEntry& entry : table->entries) {
      if (!entry.saved_above() || entry.wrapper() != Wrapper::copies) continue;
      const std::string_view path = ancestor_path(site->path(), entry.saved_above());
      auto module = std::find_if(all.begin(), all.end(), [&](const SavedModule& one) { return one.path == path; });
      if (module == all.end()) {
        const auto place = std::find_if(all.begin(), all.end(), [&](const SavedModule& one) { return is_key_of(one.path, path); });
        module = all.insert(place, {std::string(path)});
      }
      const auto copy = std::find_if(module->copies.begin(), module->copies.end(), [&](const auto& one) { return one.id >= entry.id; });
      if (entry.record && (copy == module->copies.end() || copy->id != entry.id)) module->copies.insert(copy, {entry.id, entry.record->name()});
    }
  }
  return all;
}

}  // namespace graft::detail
