#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "../injection/merged.hpp"

namespace graft::detail {

/// One layer of an AdaLoRA adapter that is trained: the model's own parameters.
struct AdaLoraLayer {
  std::string path;
  const SiteTable* table;
  ParameterData *a, *b, *e;  ///< (r, in), (out, r), (r, 1)

  [[nodiscard]] Index rank() const { return a->shape().rows(); }
};

/// The layers of an AdaLoRA adapter in the model's order.
struct AdaLoraLayers {
  std::shared_ptr<AdapterRecord> record;
  std::vector<AdaLoraLayer> layers;

  [[nodiscard]] const AdaLoraConfig& config() const { return std::get<AdaLoraConfig>(record->config()); }
};

/// @throws AdapterError for an unknown name or another method, MetaError without memory, TrainingError for an adapter that is
/// not trained, or merged. `who`: "RankAllocator".
template <class = OnDemand>
[[nodiscard]] AdaLoraLayers adalora_layers(const ModelSites& model, std::string_view adapter_name, std::string_view who) {
  AdaLoraLayers all{need_record(model, adapter_name), {}};
  const std::string adapter = std::string(who) + ": adapter '" + all.record->name() + "'";
  if (all.record->type() != PeftType::adalora)
    fail<AdapterError>(adapter + " is " + std::string(peft_type_name(all.record->type())), "only AdaLoRA has ranks to give up",
                       "name an adapter that was injected with an AdaLoraConfig");
  if (is_merged(model, all.record->id))
    fail<TrainingError>(adapter + " is merged", "the base weights hold what it adds", "unmerge_adapter() first");
  for (const auto& site : model.sites) {
    const SiteTable* table = site->table();
    const SiteEntry* entry = table ? table->find(all.record->id) : nullptr;
    AnyAdapterState* state = entry ? entry->state() : nullptr;
    if (!state) continue;
    if (state->is_meta())
      fail<MetaError>(adapter + " has no memory at '" + site->path() + "'", "it is on the meta device", "load its state dict first");
    const std::vector<AdapterParameter> parameters = state->parameters();  // A, B, E, ranknum
    const AdaLoraLayer layer{site->path(), table, parameters[0].data, parameters[1].data, parameters[2].data};
    if (!layer.a->requires_grad() || !layer.b->requires_grad() || !layer.e->requires_grad())
      fail<TrainingError>(adapter + " wants no gradients at '" + site->path() + "'",
                          "it was injected with inference_mode, is not active, or set_requires_grad switched it off",
                          "set_adapter() it, or set_requires_grad(model, \"" + all.record->name() + "\", true)");
    all.layers.push_back(layer);
  }
  return all;
}
GRAFT_SHARED_FUNCTION(adalora_layers<>)

}  // namespace graft::detail
