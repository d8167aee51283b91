#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "staged.hpp"

namespace graft {

namespace detail {
template <class = OnDemand>
void check_same_sites(const ModelSites& model, const AdapterParts& old, const AdapterParts& next) {
  for (std::size_t i = 0; i < model.sites.size(); ++i) {
    if (!old.at[i] == !next.at[i]) continue;
    fail<AdapterError>("hotswap_adapter: the new weights of '" + old.name + "' " +
                           (next.at[i] ? "are for '" + model.sites[i]->path() + "' too" : "have nothing for '" + model.sites[i]->path() + "'"),
                       "an adapter is exchanged at the sites that it has, which running threads know",
                       "load it under another name, or with LoadAdapterOptions::replace while no thread is in forward");
  }
}

/// The layers hold the trained values while their adapter is active, and forwards read them there, one by one.
template <class = OnDemand>
[[nodiscard]] bool stand_in_layers(const ModelSites& model, const std::vector<PlainBias>& biases) {
  for (const PlainBias& bias : biases)
    for (const BaseTensor& tensor : model.plain) {
      if (tensor.key != bias.key) continue;
      const TensorView there = tensor.read();
      if (there.bytes() != bias.values.bytes() || std::memcmp(there.data, bias.values.data(), there.bytes()) != 0) return false;
    }
  return true;
}

template <class = OnDemand>
[[nodiscard]] bool any_wants_gradients(const AdapterParts& parts) {
  for (const SiteAdapter* here : parts.at) {
    if (!here) continue;
    if (here->copy_trains || (here->bias && here->bias->requires_grad()) ||
        (here->tokens && here->tokens->rows().requires_grad()))
      return true;
    if (here->state)
      for (const AdapterParameter& parameter : here->state->parameters())
        if (parameter.data->requires_grad()) return true;
  }
  return false;
}

template <class = OnDemand>
LoadReport hotswap(const ModelSites& model, const StateDict& state_dict, const PeftConfig& config,
                   std::string_view adapter_name, bool may_borrow = false) {
  constexpr std::string_view verb = "hotswap_adapter";
  const auto record = need_record(model, adapter_name);
  check_not_merged(model, *record, verb);
  if (config.index() != record->config().index())
    fail<AdapterError>("hotswap_adapter: '" + record->name() + "' is " + std::string(peft_type_name(record->type())) +
                           ", the new weights are " + std::string(peft_type_name(PeftType(config.index()))),
                       "an adapter keeps its method while its weights are exchanged",
                       "load the other one under a name of its own, and switch to it");
  StagedAdapter next(model, config, state_dict, record->name(), record.get(), verb);
  const AdapterParts old = parts_of(model, *record);
  check_same_sites(model, old, next.parts());
  LoadReport report = next.load(state_dict, may_borrow);
  if (record->plain_biases_in_place &&
      (next.plain_biases.size() != record->plain_biases.size() || !stand_in_layers(model, next.plain_biases)))
    fail<AdapterError>("hotswap_adapter: '" + record->name() + "' trains biases of layers without room, and is active",
                       "these stand in the layers themselves, and could not change together with the rest",
                       "set_adapter() another one while no thread is in forward, swap, and switch back");

  const std::vector<unsigned> selected = selected_of(model);
  const bool is_active = std::find(selected.begin(), selected.end(), record->id) != selected.end();
  next.set_requires_grad((is_active || any_wants_gradients(old)) && !is_inference(next.config()));
  share_records(model);
  auto generation = std::make_shared<AdapterGeneration>();
  next.put_into(*generation);
  generation->number = record->generation.own()->number + 1;
  generation->identity = record->generation.own()->identity;
  if (!record->plain_biases_in_place) record->plain_biases = std::move(next.plain_biases);
  (void)record->generation.publish(std::move(generation));
  return report;
}
GRAFT_SHARED_FUNCTION(hotswap<>)
}  // namespace detail

/// Exchanges the weights and the config of an adapter for others, while other threads may be in forward: a forward of
/// a selection goes on with the weights that it was selected with, any other has at each site the old or the new ones.
///
/// Everything is built off to the side and published at once: other ranks, scales and patterns, DoRA, copies and
/// biases included. Method, sites, name, number and strength stay. The state dict must hold the adapter exactly.
/// A copy of a model needs one verb (`set_adapter`, say) before it is swapped beside running threads.
/// @throws AdapterError for an unknown adapter, another method, other sites, or biases that cannot change at once;
/// MergeError for a merged adapter; StateDictError, ConfigError and TargetError as loading does. Nothing has changed then.
template <class Config, class M>
LoadReport hotswap_adapter(M& model, const StateDict& state_dict, const Config& config,
                           std::string_view adapter_name = "default") {
  static_assert(detail::AnyConfig<Config>, "graft: the config is a LoraConfig, AdaLoraConfig, Ia3Config or PeftConfig");
  return detail::hotswap(sites_of(model), state_dict, PeftConfig(config), adapter_name);
}

}  // namespace graft
