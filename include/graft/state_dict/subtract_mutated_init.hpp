#pragma once

#include <numbers>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "../core/compile_once.hpp"
#include "derived_adapter.hpp"

namespace graft {

namespace detail {
template <class S = double>
[[nodiscard]] DerivedAdapter without_mutated_init(const ModelSites& model, const std::string& name) {
  const Records records = need_records(model, {name}, "a conversion");
  check_derivable(records, "a conversion", true);
  const auto* source = std::get_if<LoraConfig>(&records.front()->config());
  if (!source || !takes_from_base(init_scheme(source->init_lora_weights)))
    fail<AdapterError>("adapter '" + name + "' takes nothing out of the base",
                       "only init_lora_weights \"pissa\", \"pissa_niter_N\" and \"olora\" do",
                       "save it as it is");
  LoraConfig config = *source;
  const double factor = config.use_rslora ? std::numbers::sqrt2 : 2;  // of alpha, so that the scaling stays
  config.init_lora_weights = true;
  config.r *= 2;
  config.lora_alpha *= factor;
  for (auto& [pattern, r] : config.rank_pattern) r *= 2;
  for (auto& [pattern, alpha] : config.alpha_pattern) alpha *= factor;
  DerivedAdapter derived;
  (void)take_copies(model, records, derived.tensors);
  for (const auto& site : model.sites) {
    const auto factors = factors_at<S>(*site, *records.front());
    if (!factors) continue;
    const SiteEntry* entry = entry_at(*site, *records.front());
    const LowRank<S>& own = factors->product;
    LowRank<S> doubled{Matrix<S>::Zero(own.b.rows(), 2 * entry->state()->rank()),
                       Matrix<S>::Zero(2 * entry->state()->rank(), own.a.cols())};
    doubled.b.leftCols(own.b.cols()) =
        own.b;  // an embedding has nothing to subtract: its further ranks are zeros
    doubled.a.topRows(own.rank()) = own.a;
    insert_factors(derived.tensors, *site, doubled);
    for (const AdapterParameter& parameter : entry->state()->parameters())
      if (parameter.name == "lora_magnitude_vector")
        derived.tensors.insert(file_key(site->path(), parameter.name, ""), parameter.data->view());
  }
  derived.config = std::move(config);
  return derived;
}
GRAFT_SHARED_FUNCTION(without_mutated_init<double>)
}  // namespace detail

/// Makes a plain LoRA adapter of one that was initialised from the base weight (PiSSA, OLoRA): [A; A₀] and
/// [B, −B₀], with twice the rank and the same scaling. Any base model takes its file, and other adapters
/// beside it: PEFT's `path_initial_model_for_weight_conversion`. The new adapter is frozen and not active.
/// @throws AdapterError for an adapter that starts otherwise; nothing has changed then.
template <class M>
InjectReport subtract_mutated_init(M& model, std::string_view adapter_name, std::string new_name) {
  const ModelSites sites = sites_of(model);
  detail::check_new_name(sites, new_name);
  return detail::add_derived(sites, detail::without_mutated_init<double>(sites, std::string(adapter_name)),
                             new_name);
}

}  // namespace graft
