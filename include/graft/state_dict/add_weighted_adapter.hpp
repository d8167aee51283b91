#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "combine.hpp"
#include "combine_ia3.hpp"

namespace graft {

namespace detail {
template <class = OnDemand>
void check_weights(const std::vector<double>& weights, std::size_t count) {
  if (weights.size() != count)
    fail<AdapterError>(std::to_string(weights.size()) + " weights for " + std::to_string(count) + " adapters",
                       "every adapter has one weight", "give as many weights as names");
  for (const double weight : weights)
    if (!std::isfinite(weight))
      fail<AdapterError>("a weight of a combination is " + std::to_string(weight),
                         "it is a factor of an adapter", "use finite numbers");
}

template <class S = double>
[[nodiscard]] DerivedAdapter combine(const ModelSites& model, const std::vector<std::string>& names,
                                     const std::vector<double>& weights, std::optional<CombinationType> type,
                                     const CombineOptions& options) {
  Records records = need_records(model, names, "a combination");
  check_weights(weights, records.size());
  check_derivable(records, "a combination");
  const bool is_ia3 = records.front()->type() == PeftType::ia3;
  for (const auto& record : records)
    if ((record->type() == PeftType::ia3) != is_ia3)
      fail<AdapterError>("a combination of '" + records.front()->name() + "' and '" + record->name() +
                             "', of different methods",
                         "(IA)³ scales activations, LoRA and AdaLoRA add to weights",
                         "combine adapters of one kind; both can be active side by side");
  if (!is_ia3)
    return LoraCombination<S>(model, std::move(records), weights, type.value_or(CombinationType::cat),
                              options)
        .make();
  if (type.value_or(CombinationType::linear) != CombinationType::linear)
    fail<AdapterError>("(IA)³ adapters can be combined by CombinationType::linear alone",
                       "their vectors have no ranks to concatenate or prune", "leave the type out");
  return combine_ia3<S>(model, records, weights, options);
}
GRAFT_SHARED_FUNCTION(combine<double>)
}  // namespace detail

/// Makes one adapter of several, each with a weight of any sign: PEFT's `add_weighted_adapter`. Adapters of
/// the LoRA family give a LoRA adapter of scale 1 (r = lora_alpha, no patterns): unset, the type is `cat`,
/// which is exact, its rank the sum of theirs; `linear` adds A to A and B to B and has cross terms; see
/// CombinationType. (IA)³ vectors add up. Each adapter counts with the strength that it has; one adapter
/// alone is always `linear`, and exact.
///
/// The new adapter is frozen and not active. Types that end in svd need graft/factorise.hpp.
/// @throws AdapterError for names, weights, ranks or methods that do not go together, ConfigError for options
/// that do not go with the type; nothing has changed then.
template <class M>
InjectReport add_weighted_adapter(M& model, Names adapters, std::vector<double> weights, std::string new_name,
                                  std::optional<CombinationType> type = {},
                                  const CombineOptions& options = {}) {
  const ModelSites sites = sites_of(model);
  detail::check_new_name(sites, new_name);
  return detail::add_derived(sites, detail::combine<double>(sites, adapters.list(), weights, type, options),
                             new_name);
}

}  // namespace graft
