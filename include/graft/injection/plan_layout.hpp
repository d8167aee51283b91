#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "../adapters/config.hpp"
#include "site.hpp"

namespace graft::detail {

/// PEFT's `fan_in_fan_out` follows the linear layers that an adapter wraps first, in their order: where the flag says another
/// layout than a layer has, it changes, with a warning. Nothing here reads it; files have it.
inline void follow_layout(const AnySite& site, const AdapterPlan& adapter, PeftConfig& config, std::vector<std::string>& warnings) {
  const LayerFacts facts = site.facts();
  if (facts.kind != LayerKind::linear || facts.packed || adapter.with_outer || !adapter.parameter.empty()) return;
  const SiteTable* table = site.table();
  if (table && std::any_of(table->entries.begin(), table->entries.end(),
                           [&](const SiteEntry& entry) { return entry.wrapper() == Wrapper(int(config.index())); }))
    return;
  visit_config(config, [&](auto& one) {
    if (one.fan_in_fan_out == facts.transposed) return;
    one.fan_in_fan_out = facts.transposed;
    warnings.push_back("fan_in_fan_out becomes " + std::string(facts.transposed ? "true" : "false") + ": '" + adapter.path +
                       "' stores its weight as " + (facts.transposed ? "(in, out)" : "(out, in)"));
  });
}

}  // namespace graft::detail
