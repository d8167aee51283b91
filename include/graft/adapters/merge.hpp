#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fold.hpp"

namespace graft::detail {

/// How one site is to be merged, settled for the whole model before anything changes.
struct MergePolicy {
  Unmerge how = Unmerge::by_delta;
  bool for_good = false;     ///< it is never undone: nothing is kept
  bool create_bias = false;
  bool in_place = false;         ///< even where the memory is shared with another layer
  bool new_memory = false;       ///< the weight is not to be changed where it is
  bool new_bias_memory = false;
};

[[noreturn]] inline void refuse_merge(const std::string& problem, const std::string& why, const std::string& fix) {
  fail<MergeError>(problem, why, fix);
}

/// What stands against folding `inner` first and leaving `outer` to be added by forwards, or to be folded in later: the
/// four steps of a forward would come out in another order. `outer_is_first`: it was activated before `inner`.
[[nodiscard]] inline std::optional<MergeRefusal> conflict_of(const SiteEntry& inner, const SiteEntry& outer, bool outer_is_first) {
  const AnyAdapterState* folded = inner.state();
  const AnyAdapterState* added = outer.state();
  const std::string in = "'" + inner.record->name() + "'", out = "'" + outer.record->name() + "'";
  if (outer.copy()) return MergeRefusal{out + " replaces the layer by a copy of its own, in which " + in + " would be missing", ""};
  if (outer.bias() && (inner.bias() || (folded && folded->folds_bias())))
    return MergeRefusal{out + " has a bias of its own in place of the one that " + in + " changes", ""};
  if (!folded || !added) return {};
  if (folded->has_factors() && added->has_update())
    return MergeRefusal{in + " scales what " + out + " adds, and would not once it is merged alone", ""};
  if (added->reads_base()) return MergeRefusal{out + " is computed from the base weight, which " + in + " would change", ""};
  if (folded->reads_base() && added->has_update() && outer_is_first)
    return MergeRefusal{in + " scales what " + out + " adds before it, and would not once it is merged alone", ""};
  return {};
}

/// Forward must not depend on which adapters are merged. @throws MergeError
inline void check_order(const SiteTable& table, const std::vector<unsigned>& inner, const std::vector<unsigned>& outer,
                        const std::vector<unsigned>& order) {
  const auto place = [&](unsigned id) { return std::find(order.begin(), order.end(), id); };
  for (const unsigned first : inner)
    for (const unsigned second : outer) {
      const SiteEntry* a = table.find(first);
      const SiteEntry* b = table.find(second);
      if (!a || !b || !a->record || !b->record) continue;
      if (const auto conflict = conflict_of(*a, *b, place(second) < place(first)))
        refuse_merge("'" + a->record->name() + "' cannot be merged at '" + table.path + "' while '" + b->record->name() +
                         "' stays beside it",
                     conflict->why, "merge both in one call, or deactivate '" + b->record->name() + "' (unmerge_adapter() first "
                     "where one is merged already)");
    }
}

/// Folds adapters into a site's layer in three acts: `check` throws or changes nothing, `keep` takes what memory undoing
/// needs, `commit` cannot fail.
class SiteMerge {
 public:
  /// `is_copy`: the layer is an adapter's copy, which has a bias of its own.
  SiteMerge(SiteTable& table, std::unique_ptr<AnyWeightDoor> door, Dtype activations, const std::vector<unsigned>& ids,
            bool is_copy = false)
      : table_(table), door_(std::move(door)) {
    for (const unsigned id : ids)
      if (const SiteEntry* entry = table.find(id); entry && (entry->state() || (entry->bias() && !is_copy))) {
        entries_.push_back(entry);
        step_.ids.push_back(id);
        if (const AnyAdapterState* state = entry->state()) {
          step_.changes_weight = true;
          is_additive_ = is_additive_ && state->is_additive();
          changes_bias_ = changes_bias_ || (state->folds_bias() && (state->needs_bias() || door_->has_bias()));
          needs_bias_ = needs_bias_ || state->needs_bias();
        }
        changes_bias_ = changes_bias_ || (entry->bias() && !is_copy);
      }
    fold_ = make_fold(*door_, activations, is_copy ? copy_bound_ : table.bound, entries_, !is_copy);
  }

  [[nodiscard]] bool is_empty() const { return entries_.empty(); }
  [[nodiscard]] const std::vector<unsigned>& ids() const { return step_.ids; }
  [[nodiscard]] const std::string& path() const { return table_.path; }
  [[nodiscard]] AnyWeightDoor& door() { return *door_; }
  [[nodiscard]] bool changes_weight() const { return step_.changes_weight; }
  [[nodiscard]] bool changes_bias() const { return changes_bias_; }
  [[nodiscard]] MergePolicy& policy() { return policy_; }
  [[nodiscard]] std::size_t kept_bytes() const { return step_.weight && !step_.is_rebound ? step_.weight->bytes() : 0; }

  /// @throws MergeError, or MetaError for parameters without memory.
  void check() {
    for (const SiteEntry* entry : entries_) check(*entry);
    check_weight();
    check_bias();
    if (!policy_.in_place && is_borrowed(door_->parameter())) policy_.new_memory = true;
    if (!policy_.in_place && is_borrowed(door_->bias_parameter())) policy_.new_bias_memory = true;
    if (policy_.how == Unmerge::reread && !policy_.new_memory && step_.changes_weight && !policy_.for_good)
      refuse("cannot be read again: it is not a view of a file or of other memory",
             "there is nothing that it could be bound to again", "map the checkpoint, or use Unmerge::backup");
  }
  [[nodiscard]] bool stays_finite() { return fold_->stays_finite(); }

  /// Takes the memory that the merge and its undoing need.
  void keep() {
    if (step_.changes_weight) keep_weight();
    if (changes_bias_) keep_bias();
    if (!policy_.for_good && step_.changes_weight && !step_.weight && !policy_.new_memory)
      for (const SiteEntry* entry : entries_) step_.marks.push_back(entry->state() ? mark_of(*entry->state()) : 0);
    table_.steps.reserve(table_.steps.size() + 1);
    table_.merged.reserve(table_.merged.size() + step_.ids.size());
  }
  void commit() {
    if (fresh_weight_) rebind(*door_->parameter(), *fresh_weight_, step_.weight);
    if (fresh_bias_) rebind(*door_->bias_parameter(), *fresh_bias_, step_.bias);
    fold_->fold_bias();  // reads the weight as it was
    fold_->fold_weight();
    if (policy_.for_good) return;
    table_.merged.insert(table_.merged.end(), step_.ids.begin(), step_.ids.end());
    table_.steps.push_back(std::move(step_));
    table_.settle();
  }

 private:
  [[noreturn]] void refuse(const std::string& problem, const std::string& why, const std::string& fix) const {
    refuse_merge("the weight of '" + path() + "' " + problem, why, fix);
  }
  static bool is_borrowed(const ParameterData* parameter) { return parameter && parameter->is_borrowed(); }

  void check(const SiteEntry& entry) const {
    if (entry.bias() && entry.bias()->is_meta()) adapter_is_meta(entry.record->name(), path());
    const AnyAdapterState* state = entry.state();
    if (!state) return;
    if (state->is_meta()) adapter_is_meta(entry.record->name(), path());
    if (const auto refusal = state->merge_refusal())
      refuse_merge("'" + entry.record->name() + "' cannot be merged at '" + path() + "'", refusal->why, refusal->fix);
  }
  void check_weight() {
    if (!step_.changes_weight) return;
    if (!door_->is_readable() || !door_->is_writable())
      refuse(door_->is_readable() ? "can only be read" : "is not known", "merging changes it where it is",
             "give its layer_traits a weight(layer) that answers a writable (out, in) view");
    (void)door_->storage();  // a weight without memory is an error here, not later
    if (size_of(door_->dtype()) == 2 && policy_.how == Unmerge::by_delta && !policy_.for_good)
      refuse("is " + std::string(tag_of(door_->dtype())) + ", and by_delta would not bring its bits back",
             "a narrow weight loses more in a sum than the delta holds",
             "merge with Unmerge::backup, with Unmerge::reread over a mapped checkpoint, or merge_and_unload()");
  }
  void check_bias() const {
    if (!changes_bias_) return;
    if (!door_->has_bias()) {
      if (!policy_.create_bias)
        refuse_merge("'" + path() + "' has no bias that lora_bias could be merged into", "the layer was made without one",
                     "set MergeOptions::create_bias, or leave it unmerged");
      if (!door_->bias_parameter())
        refuse_merge("'" + path() + "' cannot be given a bias", "its layer_traits have no bias_parameter(layer) that could hold one",
                     "make the layer with a bias, or leave it unmerged");
      return;
    }
    if (!door_->is_bias_writable())
      refuse_merge("the bias of '" + path() + "' can only be read", "merging changes it where it is",
                   "give its layer_traits a bias(layer) that answers a writable vector");
  }

  [[nodiscard]] static ParameterData owned(const ParameterData& like) {
    ParameterData fresh(like.dtype(), like.shape());
    fresh.set_requires_grad(like.requires_grad());
    fresh.allocate();
    if (like.data() && like.bytes()) std::memcpy(fresh.data(), like.data(), like.bytes());
    return fresh;
  }
  void keep_weight() {
    if (policy_.new_memory) {
      fresh_weight_ = owned(*door_->parameter());
      step_.is_rebound = true;
    } else if (!policy_.for_good && (policy_.how == Unmerge::backup || !is_additive_)) {
      const ParameterData* parameter = door_->parameter();
      step_.weight = parameter ? owned(*parameter) : door_->save();
    }
  }
  void keep_bias() {
    if (!door_->has_bias()) {
      ParameterData created(door_->bias_parameter()->dtype(), bias_shape());
      created.allocate();
      fresh_bias_ = std::move(created);
      step_.is_bias_rebound = true;
    } else if (policy_.new_bias_memory) {
      fresh_bias_ = owned(*door_->bias_parameter());
      step_.is_bias_rebound = true;
    } else if (!policy_.for_good) {
      step_.bias = door_->save_bias();
    }
  }
  [[nodiscard]] Shape bias_shape() const {
    for (const SiteEntry* entry : entries_)
      if (AnyAdapterState* state = entry->state())
        for (const AdapterParameter& parameter : state->parameters())
          if (parameter.suffix == ".bias") return parameter.data->shape();
    return Shape{0};
  }
  void rebind(ParameterData& parameter, ParameterData& fresh, std::optional<ParameterData>& kept) const {
    if (!policy_.for_good) kept = std::move(parameter);
    parameter = std::move(fresh);
  }

  SiteTable& table_;
  std::unique_ptr<AnyWeightDoor> door_;
  std::unique_ptr<AnyFold> fold_;
  std::vector<const SiteEntry*> entries_;
  MergePolicy policy_;
  MergeStep step_;
  std::optional<ParameterData> fresh_weight_, fresh_bias_;
  std::optional<WeightBound> copy_bound_;
  bool is_additive_ = true, changes_bias_ = false, needs_bias_ = false;
};

/// Takes a site's latest step out of its layer.
inline void undo_step(SiteTable& table, AnyWeightDoor& door, Dtype activations) {
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
  } else if (step.changes_weight) {
    std::vector<const SiteEntry*> entries;
    for (const unsigned id : step.ids) entries.push_back(table.find(id));
    make_fold(door, activations, table.bound, entries)->subtract();
  }
  if (step.bias && step.is_bias_rebound) *door.bias_parameter() = std::move(*step.bias);
  else if (step.bias) door.restore_bias(*step.bias);
  for (const unsigned id : step.ids) std::erase(table.merged, id);
  table.steps.pop_back();
  table.settle();
}

/// A delta can be subtracted only while it is the one that was added. @throws MergeError
inline void check_undo(const SiteTable& table) {
  for (const MergeStep& step : table.steps)
    for (std::size_t i = 0; i < step.marks.size(); ++i) {
      const SiteEntry* entry = table.find(step.ids[i]);
      if (!entry || !entry->state() || mark_of(*entry->state()) == step.marks[i]) continue;
      refuse_merge("the parameters of '" + entry->record->name() + "' at '" + table.path + "' changed while it was merged",
                   "the delta that would be subtracted is not the one that was added",
                   "put the old values back first; with Unmerge::backup nothing has to be the same");
    }
}

/// Whether the layer can show its own weight for a while: some kept one lies below all steps.
[[nodiscard]] inline bool can_swap_out(const SiteTable& table) {
  for (const MergeStep& step : table.steps)
    if (step.changes_weight) return step.weight.has_value();
  return true;
}
/// Exchanges what the layer holds and what it held before the first merge; once more brings it back.
inline void swap_out(SiteTable& table, AnyWeightDoor& door) {
  const auto exchange = [](ParameterData& a, ParameterData& b) {
    ParameterData held = std::move(a);
    a = std::move(b);
    b = std::move(held);
  };
  for (MergeStep& step : table.steps) {
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

}  // namespace graft::detail
