#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "../adapters/config.hpp"
#include "../core/error.hpp"
#include "site.hpp"

namespace graft::detail {

/// What a user's traits show as the weight has the sizes that they name. @throws TargetError
inline void check_shown_weight(const AnySite& site) {
  const LayerFacts facts = site.facts();
  if ((facts.kind != LayerKind::linear && facts.kind != LayerKind::embedding) || facts.packed) return;
  const Shape shown = site.shown_weight(), want = facts.kind == LayerKind::embedding ? Shape{facts.in, facts.out} : Shape{facts.out, facts.in};
  // one that has no memory yet has no sizes; a single row or column may be a vector either way
  if (shown.rank() == 0 || shown.size() == 0 || shown == want || (shown.size() == want.size() && (facts.in == 1 || facts.out == 1))) return;
  const std::string name(site.layer_name());
  fail<TargetError>("the target '" + site.path() + "' shows a weight of " + to_string(shown) + ", and its sizes ask for " + to_string(want),
                    "layer_traits<" + name + ">::weight answers " +
                        (facts.kind == LayerKind::embedding ? "(num_embeddings, embedding_dim)" : "(out, in), also where the layer stores (in, out)"),
                    shown == Shape{want[1], want[0]} ? "return its transpose()" : "correct the traits");
}

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
