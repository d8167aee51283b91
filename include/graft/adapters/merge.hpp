#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "merge_undo.hpp"

namespace graft::detail {

/// How one site is to be merged, settled for the whole model before anything changes.
struct MergePolicy {
  Unmerge how = Unmerge::by_delta;
  bool for_good = false;     ///< it is never undone: nothing is kept
  bool create_bias = false;
  bool requantize = false;       ///< a quantised weight may be rounded anew
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
  if (inner.tokens() && added && added->reads_base())
    return MergeRefusal{out + " is computed from the base weight, of which " + in + " would change rows", ""};
  if (outer.tokens() && (folded || (inner.tokens() && inner.tokens()->overlaps(*outer.tokens()))))
    return MergeRefusal{out + " replaces rows of the weight, in which " + in + " would be missing", ""};
  if (!folded || !added) return {};
  const bool is_inside = outer.depth() > inner.depth(), is_level = outer.depth() == inner.depth();
  if (is_inside && added->has_factors() && folded->has_update())
    return MergeRefusal{out + " scales what is inside of " + in + ", and would scale " + in + " too", ""};
  if ((is_inside || is_level) && folded->has_factors() && added->has_update())
    return MergeRefusal{in + " scales what " + out + " adds, and would not once it is merged alone", ""};
  if (added->reads_base()) return MergeRefusal{out + " is computed from the base weight, which " + in + " would change", ""};
  if (folded->reads_base() && added->has_update() && (is_inside || (is_level && outer_is_first)))
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

/// Whether there is something of the entry that merging folds into the layer.
/// `is_copy`: into an adapter's copy of it, which has a bias of its own.
[[nodiscard]] inline bool acts_in_weight(const SiteEntry& entry, bool is_copy = false) {
  return entry.state() || entry.tokens() || (entry.bias() && !is_copy);
}

/// Folds adapters into a site's layer in three acts: `check` throws or changes nothing, `keep` takes what memory undoing
/// needs, `commit` cannot fail.
template <class = OnDemand>
class SiteMerge {
 public:
  /// `workspace` serves one site after the other. `is_copy`: the layer is an adapter's copy, which has a bias of its own.
  SiteMerge(SiteTable& table, std::unique_ptr<AnyWeightDoor> door, Dtype activations, const std::vector<unsigned>& ids,
            Workspace& workspace, bool is_copy = false)
      : table_(table), door_(std::move(door)) {
    for (const unsigned id : ids)
      if (const SiteEntry* entry = table.find(id); entry && acts_in_weight(*entry, is_copy)) {
        entries_.push_back(entry);
        step_.ids.push_back(id);
        if (entry->tokens()) step_.changes_weight = has_tokens_ = true;
        if (const AnyAdapterState* state = entry->state()) {
          step_.changes_weight = has_states_ = true;
          is_additive_ = is_additive_ && state->is_additive();
          changes_bias_ = changes_bias_ || (state->folds_bias() && (state->needs_bias() || door_->has_bias()));
          needs_bias_ = needs_bias_ || state->needs_bias();
        }
        changes_bias_ = changes_bias_ || (entry->bias() && !is_copy);
      }
    step_.swap_out = &swap_out<>;
    fold_ = make_fold(*door_, activations, is_copy ? copy_bound_ : table.bound, entries_, workspace, !is_copy);
  }

  /// Whether trained tokens are all that is written into the weight.
  [[nodiscard]] bool is_tokens_alone() const { return has_tokens_ && !has_states_; }
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
    if (!policy_.for_good && step_.changes_weight && !step_.weight && !step_.rows && !policy_.new_memory)
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
    step_.is_tied = policy_.in_place;
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
    if (entry.tokens()) check_tokens(entry);
    const AnyAdapterState* state = entry.state();
    if (!state) return;
    if (state->is_meta()) adapter_is_meta(entry.record->name(), path());
    if (const auto refusal = state->merge_refusal())
      refuse_merge("'" + entry.record->name() + "' cannot be merged at '" + path() + "'", refusal->why, refusal->fix);
  }
  void check_tokens(const SiteEntry& entry) const {
    if (entry.tokens()->rows().is_meta()) adapter_is_meta(entry.record->name(), path());
    for (const SiteEntry* other : entries_)
      if (other != &entry && other->tokens() && other->tokens()->overlaps(*entry.tokens()))
        tokens_overlap(path(), other->record->name(), entry.record->name());
  }
  void check_weight() {
    if (!step_.changes_weight) return;
    if (!door_->is_readable() || !door_->is_writable())
      refuse(door_->is_readable() ? "can only be read" : "is not known", "merging changes it where it is",
             "give its layer_traits a weight(layer) that answers a writable (out, in) view");
    if (door_->is_quantized()) return check_quantized();
    (void)door_->storage();  // a weight without memory is an error here, not later
    if (size_of(door_->dtype()) == 2 && has_states_ && policy_.how == Unmerge::by_delta && !policy_.for_good)
      refuse("is " + std::string(tag_of(door_->dtype())) + ", and by_delta would not bring its bits back",
             "a narrow weight loses more in a sum than the delta holds",
             "merge with Unmerge::backup, with Unmerge::reread over a mapped checkpoint, or merge_and_unload()");
  }
  void check_quantized() const {
    if (!policy_.requantize)
      refuse("is quantised", "with adapters in it, it would be rounded anew, and lose more than a wide one",
             "leave it unmerged, or set MergeOptions::requantize: MergeReport::requantized then says what was lost");
    if (policy_.how != Unmerge::backup && !policy_.for_good)
      refuse("is quantised, and only a kept copy of its bytes would bring them back",
             policy_.how == Unmerge::by_delta ? "a delta that is subtracted is rounded once more" : "it is no view of other memory",
             "merge with Unmerge::backup, or merge_and_unload()");
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
    } else if (!policy_.for_good && is_tokens_alone()) {
      std::vector<Index> ids;
      for (const SiteEntry* entry : entries_)
        if (entry->tokens()) ids.insert(ids.end(), entry->tokens()->ids().begin(), entry->tokens()->ids().end());
      step_.rows = fold_->keep_rows(ids);
    } else if (!policy_.for_good && (policy_.how == Unmerge::backup || !is_additive_ || has_tokens_)) {
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
  bool is_additive_ = true, changes_bias_ = false, needs_bias_ = false, has_states_ = false, has_tokens_ = false;
};
GRAFT_SHARED_CLASS(SiteMerge<>)

}  // namespace graft::detail
