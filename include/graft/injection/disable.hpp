#pragma once

#include <utility>
#include <vector>

#include "merged.hpp"

namespace graft {

/// Disables a model's adapters for a scope and then restores exactly what was, but for what other verbs changed
/// meanwhile. The model must outlive it and stay where it is.
class [[nodiscard]] AdapterGuard {
 public:
  /// @throws MergeError where a merged adapter cannot be taken out and put back without loss.
  explicit AdapterGuard(ModelSites model) : model_(std::move(model)) {
    const bool was_enabled = detail::is_enabled(model_);
    if (was_enabled) detail::check_swap_out(model_);
    for (const auto& site : model_.sites) {
      SiteTable* table = site->table();
      const bool is_on = table ? table->enabled : was_enabled;
      was_enabled_.push_back(is_on);
      if (!table || !is_on) continue;
      table->enabled = false;
      if (!table->steps.empty()) table->steps.back().swap_out(*table, *site->door());
    }
    detail::place_selected_biases(model_);
  }
  AdapterGuard(AdapterGuard&&) noexcept = default;
  AdapterGuard& operator=(AdapterGuard&&) = delete;
  ~AdapterGuard() {
    for (std::size_t i = model_.sites.size(); i-- > 0;) {  // back to front: tied layers share what was exchanged
      SiteTable* table = model_.sites[i]->table();
      if (!table || table->enabled == was_enabled_[i]) continue;
      table->enabled = was_enabled_[i];
      if (!table->steps.empty()) table->steps.back().swap_out(*table, *model_.sites[i]->door());
    }
    detail::place_selected_biases(model_);
  }

 private:
  ModelSites model_;
  std::vector<bool> was_enabled_;
};

/// The base model alone, bit for bit, until the guard is gone.
/// @throws MergeError where an adapter is merged and the weight that it changed was not kept.
template <class M>
[[nodiscard]] AdapterGuard disable_adapter(M& model) {
  return AdapterGuard(sites_of(model));
}

}  // namespace graft
