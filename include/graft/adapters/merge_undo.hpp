#pragma once

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "fold.hpp"

namespace graft::detail {

/// Takes a site's latest step out of its layer.
template <class = OnDemand>
void undo_step(SiteTable& table, AnyWeightDoor& door, Dtype activations, Workspace& workspace) {
  MergeStep& step = table.steps.back();
  if (step.weight && step.is_rebound) {
    *door.parameter() = std::move(*step.weight);
  } else if (step.weight) {
    if (ParameterData* parameter = door.parameter()) {
      if (parameter->bytes()) std::memcpy(parameter->data(), step.weight->data(), parameter->bytes());
      parameter->touch();
    } else {
      door.restore(*step.weight);
    }
  } else if (step.rows) {
    make_fold(door, activations, table.bound, {}, workspace)->write_rows(*step.rows);
  } else if (step.changes_weight) {
    std::vector<const SiteEntry*> entries;
    for (const unsigned id : step.ids) entries.push_back(table.find(id));
    make_fold(door, activations, table.bound, entries, workspace)->subtract();
  }
  if (step.bias && step.is_bias_rebound) *door.bias_parameter() = std::move(*step.bias);
  else if (step.bias) door.restore_bias(*step.bias);
  for (const unsigned id : step.ids) std::erase(table.merged, id);
  table.steps.pop_back();
  table.settle();
}
GRAFT_SHARED_FUNCTION(undo_step<>)

/// A delta can be subtracted only while it is the one that was added. @throws MergeError
template <class = OnDemand>
void check_undo(const SiteTable& table) {
  for (const MergeStep& step : table.steps)
    for (std::size_t i = 0; i < step.marks.size(); ++i) {
      const SiteEntry* entry = table.find(step.ids[i]);
      if (!entry || !entry->state() || mark_of(*entry->state()) == step.marks[i]) continue;
      fail<MergeError>("the parameters of '" + entry->record->name() + "' at '" + table.path + "' changed while it was merged",
                       "the delta that would be subtracted is not the one that was added",
                       "put the old values back first; with Unmerge::backup nothing has to be the same");
    }
}
GRAFT_SHARED_FUNCTION(check_undo<>)

/// Whether the layer can show its own weight for a while: some kept one lies below all steps, or they wrote rows alone,
/// which were kept.
[[nodiscard]] inline bool can_swap_out(const SiteTable& table) {
  bool is_first = true;
  for (const MergeStep& step : table.steps) {
    if (!step.changes_weight) continue;
    if (is_first && step.weight) return true;
    if (!step.rows) return false;
    is_first = false;
  }
  return true;
}
/// Exchanges what the layer holds and what it held before the first merge; once more brings it back.
template <class = OnDemand>
void swap_out(SiteTable& table, AnyWeightDoor& door) {
  const auto exchange = [](ParameterData& a, ParameterData& b) {
    ParameterData held = std::move(a);
    a = std::move(b);
    b = std::move(held);
  };
  for (MergeStep& step : table.steps) {
    if (step.rows) {
      Workspace workspace;
      const auto fold = make_fold(door, step.rows->rows().dtype(), table.bound, {}, workspace);
      TokenRows now = fold->keep_rows(step.rows->ids());
      fold->write_rows(*step.rows);
      step.rows = std::move(now);
    }
    if (!step.weight) continue;
    if (step.is_rebound) {
      exchange(*door.parameter(), *step.weight);
    } else if (ParameterData* parameter = door.parameter()) {
      std::swap_ranges(parameter->data(), parameter->data() + parameter->bytes(), step.weight->data());
      parameter->touch();
    } else {
      ParameterData now = door.save();
      door.restore(*step.weight);
      step.weight = std::move(now);
    }
    break;
  }
  for (MergeStep& step : table.steps) {
    if (!step.bias) continue;
    if (step.is_bias_rebound) {
      exchange(*door.bias_parameter(), *step.bias);
    } else {
      ParameterData now = door.save_bias();
      door.restore_bias(*step.bias);
      step.bias = std::move(now);
    }
    break;
  }
}
GRAFT_SHARED_FUNCTION(swap_out<>)

}  // namespace graft::detail
