#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "../adapters/content_mark.hpp"
#include "../core/on_demand.hpp"
#include "../injection/records.hpp"

namespace graft::detail {

/// Notices that the weights from which adapters started (PiSSA, OLoRA) become others. What such an adapter subtracts was made
/// of the weight that was there when it was injected, and is not made anew.
template <class = OnDemand>
class StartMarks {
 public:
  /// Looks at the weights as they are.
  explicit StartMarks(const ModelSites& model) : model_(model) {
    for (std::size_t i = 0; i < model.sites.size(); ++i)
      if (has_start(model.sites[i]->table())) marks_.emplace_back(i, mark_of_weight(*model.sites[i]));
  }

  /// One for every adapter that started from weights which are others now.
  [[nodiscard]] std::vector<std::string> warnings() const {
    std::vector<const AnySite*> changed;
    for (const auto& [site, mark] : marks_)
      if (mark_of_weight(*model_.sites[site]) != mark) changed.push_back(model_.sites[site].get());
    std::vector<std::string> warnings;
    if (changed.empty()) return warnings;
    for (const auto& record : records_of(model_)) {
      std::string layers;
      std::size_t count = 0;
      for (const AnySite* site : changed)
        if (const SiteEntry* entry = site->table()->find(record->id); entry && starts(*entry) && ++count == 1) layers = "'" + site->path() + "'";
      if (!count) continue;
      if (count > 1) layers += " and " + std::to_string(count - 1) + " more";
      warnings.push_back("adapter '" + record->name() + "' started (" + std::get<LoraConfig>(record->config()).init_lora_weights.scheme() +
                         ") from other weights of " + layers + ", and still subtracts what it took of those: load the base before it, " +
                         "or load the adapter again");
    }
    return warnings;
  }

 private:
  [[nodiscard]] static bool starts(const SiteEntry& entry) { return entry.state() && entry.state()->initial_factors(); }
  [[nodiscard]] static bool has_start(const SiteTable* table) {
    if (table)
      for (const SiteEntry& entry : table->entries)
        if (starts(entry)) return true;
    return false;
  }
  [[nodiscard]] static std::uint64_t mark_of_weight(const AnySite& site) {
    for (const BaseTensor& tensor : site.tensors()) {
      if (tensor.key != "weight") continue;
      const TensorView weight = tensor.read();
      ParameterData values(weight.dtype, Shape(weight.shape));
      values.borrow(const_cast<std::byte*>(weight.data), nullptr);
      return content_mark(values);
    }
    return 0;
  }

  const ModelSites& model_;
  std::vector<std::pair<std::size_t, std::uint64_t>> marks_;  // by the site's place in the model
};

}  // namespace graft::detail
