#pragma once

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "merged.hpp"
#include "tied.hpp"

namespace graft {

namespace detail {
/// Switches one site's adapters on or off, with what was merged into its layer. A site without a table has none.
inline void switch_site(const AnySite& site, bool enabled) {
  SiteTable* table = site.table();
  if (!table || table->enabled == enabled) return;
  table->enabled = enabled;
  if (!table->steps.empty()) table->steps.back().swap_out(*table, *site.door());
}
}  // namespace detail

/// Disables a model's adapters for a scope and then restores exactly what was, but for what other verbs changed
/// meanwhile. The model must outlive it and stay where it is. Guards of one model end in the order of scopes, the last one first.
class [[nodiscard]] AdapterGuard {
 public:
  /// @throws MergeError where a merged adapter cannot be taken out and put back without loss.
  explicit AdapterGuard(ModelSites model) : model_(std::move(model)) {
    const bool was_enabled = detail::is_enabled(model_);
    if (was_enabled) detail::check_swap_out(model_);
    for (const auto& site : model_.sites) {
      const SiteTable* table = site->table();
      was_enabled_.push_back(table ? table->enabled : was_enabled);
      detail::switch_site(*site, false);
    }
    detail::place_selected_biases(model_);
  }
  AdapterGuard(AdapterGuard&&) noexcept = default;
  AdapterGuard& operator=(AdapterGuard&&) = delete;
  ~AdapterGuard() {
    for (std::size_t i = model_.sites.size(); i-- > 0;)  // back to front: tied layers share what was exchanged
      detail::switch_site(*model_.sites[i], was_enabled_[i]);
    detail::place_selected_biases(model_);
  }

 private:
  ModelSites model_;
  std::vector<bool> was_enabled_;
};

namespace detail {
/// While a merged tie is off, what was merged is kept once, at one end: in a copy the other end would go without it.
template <class = OnDemand>
void check_ties(const ModelSites& model) {
  std::optional<TiedTensors> tied;
  for (const auto& site : model.sites) {
    const SiteTable* table = site->table();
    if (!table || table->enabled) continue;
    if (std::none_of(table->steps.begin(), table->steps.end(), [](const MergeStep& step) { return step.is_tied; })) continue;
    if (!tied) tied.emplace(model);
    const auto tensors = site->tensors();
    if (std::none_of(tensors.begin(), tensors.end(), [&](const BaseTensor& tensor) { return tied->names(tensor.storage).size() > 1; }))
      fail<MergeError>("enable_adapter_layers: '" + site->path() + "' was merged into memory that it shared with another layer",
                       "the copy was made while the adapters were off, and each layer of a copy has memory of its own",
                       "copy the model outside of the disable_adapter scope, or merge it with Tied::untie");
  }
}

template <class = OnDemand>
void enable_everywhere(const ModelSites& model) {
  check_ties(model);
  share_records(model);
  for (auto site = model.sites.rbegin(); site != model.sites.rend(); ++site) switch_site(**site, true);  // as the guard does
  place_selected_biases(model);
}
GRAFT_SHARED_FUNCTION(enable_everywhere<>)
}  // namespace detail

/// The base model alone, bit for bit, until the guard is gone. A copy that is made meanwhile has no guard and stays as it is:
/// `enable_adapter_layers` switches its adapters on.
/// @throws MergeError where an adapter is merged and the weight that it changed was not kept.
template <class M>
[[nodiscard]] AdapterGuard disable_adapter(M& model) {
  return AdapterGuard(sites_of(model));
}

/// Switches a model's adapters on where they are off, merged ones included: in a copy that was made inside of a
/// `disable_adapter` scope, or in the model itself before the scope ends.
/// @throws MergeError in a copy, where adapters were merged into memory that layers shared; nothing has changed then.
template <class M>
void enable_adapter_layers(M& model) {
  detail::enable_everywhere(sites_of(model));
}

}  // namespace graft
