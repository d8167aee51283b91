#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/keys.hpp"
#include "../core/on_demand.hpp"
#include "../injection/records.hpp"
#include "wrapped_modules.hpp"

namespace graft::detail {

/// One tensor of an adapter: where it stands in a file and in memory, and how to read and replace it.
struct AdapterSlot {
  std::string key;                      ///< in a file, without prefix
  std::vector<std::string> other_keys;  ///< further spellings that PEFT accepts
  std::string key_beside{};             ///< a spelling that PEFT writes beside the key, for the same tensor
  Dtype dtype = Dtype::f32;
  Shape shape{};
  std::function<TensorView()> read;
  std::function<void(const TensorView&, bool may_borrow)> write;
  std::string memory_key;               ///< in the model's own state dict
  ParameterData* parameter = nullptr;   ///< at a site, where it is the adapter's own and of any dtype
  bool is_bias = false;                 ///< one of the base's that the adapter trains
};

/// What an adapter has, be it in the model or still off to the side.
struct AdapterParts {
  std::string name;
  std::vector<SiteAdapter*> at;  ///< by the site's place in the model, null where it has nothing
  const std::vector<PlainBias>* plain_biases;
  bool plain_biases_in_place;
};

template <class = OnDemand>
[[nodiscard]] AdapterParts parts_of(const ModelSites& model, const AdapterRecord& record) {
  AdapterParts parts{record.name(), {}, &record.plain_biases, record.plain_biases_in_place};
  for (const auto& site : model.sites) {
    const SiteTable* table = site->table();
    const SiteEntry* entry = table ? table->find(record.id) : nullptr;
    parts.at.push_back(entry ? entry->here() : nullptr);
  }
  return parts;
}

/// The tensors of one adapter, as PEFT orders them: site by site, its parameters, copies and trained biases.
template <class = OnDemand>
[[nodiscard]] std::vector<AdapterSlot> adapter_slots(const ModelSites& model, const AdapterParts& parts) {
  std::vector<AdapterSlot> slots;
  const WrappedModules modules(model, [&](std::size_t i) { return parts.at[i] && parts.at[i]->state; });
  const auto of_data = [&](std::string key, std::vector<std::string> others, ParameterData* data, std::string in_memory) {
    slots.push_back({std::move(key), std::move(others), {}, data->dtype(), data->shape(), [data] { return data->view(); },
                     [data](const TensorView& source, bool may_borrow) { assign(*data, source, may_borrow); },
                     std::move(in_memory), nullptr});
  };
  const auto add_plain_biases = [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i)
      for (const PlainBias& bias : *parts.plain_biases) {
        const BaseTensor& tensor = model.plain[i];
        if (tensor.key != bias.key) continue;
        const std::string key = modules.inside(bias.key);
        if (!parts.plain_biases_in_place) {
          of_data(key, {bias.key}, const_cast<ParameterData*>(&bias.values), key);
          slots.back().is_bias = true;
          continue;
        }
        slots.push_back({key, {bias.key}, {}, tensor.dtype, tensor.shape, tensor.read, tensor.write, key, nullptr, true});
      }
  };
  std::size_t plain = 0;
  for (std::size_t i = 0; i < model.sites.size(); ++i) {
    add_plain_biases(plain, model.plain_before[i]);
    plain = model.plain_before[i];
    const AnySite& site = *model.sites[i];
    SiteAdapter* here = parts.at[i];
    if (!here) continue;
    const std::string path = modules.inside(site.path());
    const std::string module = modules.holder(site, here->depth, here->with_outer);
    if (ParameterData* bias = here->bias.get()) {
      const std::string wrapped = join_path(module, "base_layer.bias"), bare = join_path(path, "bias");
      // PEFT's key depends on whether this adapter wraps the layer
      const std::string beside_rows = join_path(join_path(path, token_base), "bias");
      if (here->tokens) of_data(beside_rows, {bare, wrapped}, bias, beside_rows);
      else if (here->state) of_data(wrapped, {bare}, bias, wrapped);
      else of_data(bare, {wrapped}, bias, bare);
      slots.back().parameter = bias;
      slots.back().is_bias = true;
    }
    if (AnyAdapterState* state = here->state.get())
      for (const AdapterParameter& parameter : state->parameters()) {
        if (!parameter.is_saved) continue;
        const std::string in_memory = memory_key(module, parameter.name, parts.name, parameter.suffix);
        std::vector<std::string> others{in_memory};
        std::string key = file_key(module, parameter.name, parameter.suffix);
        if (!parameter.has_suffix_in_file) others.push_back(std::exchange(key, file_key(module, parameter.name, "")));
        of_data(std::move(key), std::move(others), parameter.data, in_memory);
        slots.back().parameter = parameter.data;
      }
    if (here->copy)
      for (const BaseTensor& tensor : site.tensors(here->copy.get())) {
        const bool is_part = here->saved_above != 0;
        const std::string in_memory = join_path(modules.inside(copied_module(site, "modules_to_save." + parts.name, here->saved_above)), tensor.key);
        // PEFT takes the adapter's name out of the first, and leaves it in where a module has modules of its own
        const std::string beside = is_part ? in_memory : join_path(join_path(path, "modules_to_save"), tensor.key);
        slots.push_back({join_path(path, tensor.key),
                         is_part ? std::vector<std::string>{} : std::vector<std::string>{in_memory},
                         beside, tensor.dtype, tensor.shape, tensor.read, tensor.write, in_memory, nullptr});
      }
  }
  add_plain_biases(plain, model.plain.size());
  for (std::size_t i = 0; i < model.sites.size(); ++i) {  // of a tied head the embedding's
    SiteAdapter* here = parts.at[i];
    if (!here || !here->tokens || !here->tied_to.empty()) continue;
    const std::string path = modules.inside(model.sites[i]->path());
    const std::string in_memory = memory_key(path, token_parameter, parts.name, "");
    of_data(file_key(path, token_parameter, ""), {in_memory}, &here->tokens->rows(), in_memory);
  }
  return slots;
}
template <class = OnDemand>
[[nodiscard]] std::vector<AdapterSlot> adapter_slots(const ModelSites& model, const AdapterRecord& record) {
  return adapter_slots(model, parts_of(model, record));
}

}  // namespace graft::detail
