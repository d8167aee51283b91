#pragma once

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "../injection/merged.hpp"
#include "saved_modules.hpp"
#include "trainable_tensors.hpp"
#include "wrappers.hpp"

namespace graft {

/// How one adapted layer stands: PEFT's TunerLayerStatus.
struct LayerStatus {
  std::string name;         ///< its path: where modules_to_save names a module of several layers, that module's
  std::string module_type;  ///< as PEFT prints it: "lora.Linear"
  bool enabled = true;
  std::vector<std::string> active_adapters;   ///< the model's; where a module or tokens are saved whole, those that have some here
  std::vector<std::string> merged_adapters;   ///< in the order of merging
  std::vector<std::string> available_adapters;  ///< those at this layer, sorted
  std::map<std::string, bool> requires_grad;    ///< of adapters: whether all of their parameters do
  std::map<std::string, std::vector<std::string>> devices;  ///< of adapters: "cpu", "meta"
  std::vector<std::string> irregular;           ///< adapters with some parameters that require gradients and some not
};

/// How a whole model stands: PEFT's TunerModelStatus.
struct ModelStatus {
  std::string base_model_type;
  std::map<std::string, std::string> peft_types;  ///< of adapters: "LORA", "ADALORA", "IA3"
  Index trainable_params = 0, total_params = 0;
  Index num_adapter_layers = 0;
  bool enabled = true;
  std::vector<std::string> active_adapters;  ///< in order; the others are sorted
  std::vector<std::string> merged_adapters, available_adapters;
  std::map<std::string, bool> requires_grad;
  std::map<std::string, std::vector<std::string>> devices;
  std::vector<std::string> irregular;  ///< what layers disagree about: "active_adapters", "merged_adapters", "requires_grad.<adapter>"
};

/// How many numbers a model has, and how many of them want gradients.
struct ParameterCounts {
  Index trainable = 0, total = 0;
};

namespace detail {
/// What one adapter has in one layer, seen tensor by tensor.
class AdapterStatus {
 public:
  void add(bool requires_grad, Device device) {
    ++(requires_grad ? wants_ : wants_not_);
    devices_.insert(device == Device::meta ? "meta" : "cpu");
  }
  void add_copy(const AnySite& site, const SiteEntry& entry) {
    for (const BaseTensor& tensor : site.tensors(entry.copy())) add(entry.here()->copy_trains, tensor.read().device());
  }
  void write(const std::string& name, LayerStatus& status) const {
    status.available_adapters.push_back(name);
    status.requires_grad[name] = wants_ > 0 && wants_not_ == 0;
    if (wants_ > 0 && wants_not_ > 0) status.irregular.push_back(name);
    status.devices[name] = {devices_.begin(), devices_.end()};
  }

 private:
  int wants_ = 0, wants_not_ = 0;
  std::set<std::string> devices_;
};

/// What the model says of every layer of it: here of one with that site.
template <class = OnDemand>
[[nodiscard]] LayerStatus started_status(const ModelSites& model, const SiteTable& table) {
  LayerStatus status;
  status.enabled = table.enabled;
  status.active_adapters = names_of_ids(model, table.selected);
  return status;
}

/// Where rows or whole modules are exchanged, PEFT knows as active only the adapters that have some there.
template <class = OnDemand>
void keep_available(LayerStatus& status) {
  std::erase_if(status.active_adapters, [&](const std::string& name) {
    return std::find(status.available_adapters.begin(), status.available_adapters.end(), name) == status.available_adapters.end();
  });
}

/// Whether there is more in a site than biases and copies that are parts of a module's: that one is PEFT's layer then.
template <class = OnDemand>
[[nodiscard]] bool is_layer_itself(const AnySite& site, const std::vector<SavedModule>& saved) {
  const bool is_module = std::any_of(saved.begin(), saved.end(), [&](const SavedModule& one) { return one.path == site.path(); });
  return std::any_of(site.table()->entries.begin(), site.table()->entries.end(), [&](const SiteEntry& entry) {
    const auto wrapper = entry.wrapper();
    return wrapper && (*wrapper != Wrapper::copies || (!entry.saved_above() && !is_module));
  });
}

template <class = OnDemand>
[[nodiscard]] LayerStatus status_of(const ModelSites& model, const AnySite& site) {
  const SiteTable& table = *site.table();
  LayerStatus status = started_status(model, table);
  status.name = site.path();
  status.merged_adapters = names_of_ids(model, table.merged);
  bool is_exchanged = true, has_tokens = false;
  for (const SiteEntry& entry : table.entries)
    if (const auto wrapper = entry.wrapper()) {
      has_tokens |= *wrapper == Wrapper::tokens;
      is_exchanged &= *wrapper == Wrapper::tokens || *wrapper == Wrapper::copies;
    }
  const std::string text = site_text("", site.facts(), &table);
  status.module_type = text.empty() ? std::string(site.layer_name()) : text.substr(0, text.find('('));
  for (const SiteEntry& entry : table.entries) {
    if (!entry.record || !entry.wrapper() || (entry.copy() && entry.saved_above())) continue;
    AdapterStatus own;
    if (AnyAdapterState* state = entry.state())
      for (const AdapterParameter& parameter : state->parameters())
        if (parameter.is_saved) own.add(parameter.data->requires_grad(), parameter.data->device());
    if (entry.copy()) own.add_copy(site, entry);
    if (const TokenRows* tokens = entry.tokens()) own.add(tokens->rows().requires_grad(), tokens->rows().device());
    if (const ParameterData* bias = entry.bias()) own.add(bias->requires_grad(), bias->device());
    own.write(entry.record->name(), status);
  }
  std::sort(status.available_adapters.begin(), status.available_adapters.end());
  if (is_exchanged) keep_available(status);
  if (is_exchanged && has_tokens) {
    status.name = join_path(status.name, "token_adapter");
    status.module_type = "TrainableTokensLayer";
  }
  return status;
}

template <class = OnDemand>
[[nodiscard]] LayerStatus status_of(const ModelSites& model, const SavedModule& module, const SiteTable& table) {
  LayerStatus status = started_status(model, table);
  status.name = module.path;
  status.module_type = "ModulesToSaveWrapper";
  for (const SavedModule::Copy& copy : module.copies) {
    AdapterStatus own;
    for (const auto& site : model.sites)
      if (const SiteTable* other = site->table(); other && is_key_of(site->path(), module.path))
        if (const SiteEntry* entry = other->find(copy.id); entry && entry->copy()) own.add_copy(*site, *entry);
    own.write(copy.name, status);
  }
  std::sort(status.available_adapters.begin(), status.available_adapters.end());
  keep_available(status);
  return status;
}

template <class = OnDemand>
[[nodiscard]] std::vector<LayerStatus> layer_status(const ModelSites& model) {
  std::vector<LayerStatus> all;
  const std::vector<SavedModule> saved = saved_modules(model);
  std::vector<SavedModule> waiting = saved;
  for (const auto& site : model.sites) {
    const SiteTable* table = site->table();
    if (!table || table->entries.empty()) continue;
    for (const SavedModule& module : waiting)
      if (is_key_of(site->path(), module.path)) all.push_back(status_of(model, module, *table));
    std::erase_if(waiting, [&](const SavedModule& module) { return is_key_of(site->path(), module.path); });
    if (is_layer_itself(*site, saved)) all.push_back(status_of(model, *site));
  }
  if (all.empty())
    fail<AdapterError>("the model has no adapter layers", "nothing was injected into it, or it was unloaded",
                       "inject_adapter_in_model() or load_adapter() first");
  return all;
}
GRAFT_SHARED_FUNCTION(layer_status<>)

template <class = OnDemand>
[[nodiscard]] ParameterCounts count_parameters(const ModelSites& model) {
  ParameterCounts counts;
  std::set<const void*> seen;  // tied tensors are one parameter
  const auto add_base = [&](const BaseTensor& tensor) {
    if (!tensor.storage || seen.insert(tensor.storage).second) counts.total += tensor.shape.size();
  };
  std::set<std::pair<const AdapterRecord*, const void*>> copied;  // so are copies of both ends of a tie
  for (const BaseTensor& tensor : model.plain) add_base(tensor);
  for (const auto& site : model.sites) {
    for (const BaseTensor& tensor : site->tensors()) add_base(tensor);
    SiteTable* table = site->table();
    if (!table) continue;
    for (const SiteEntry& entry : table->entries) {
      if (AnyAdapterState* state = entry.state())
        for (const AdapterParameter& parameter : state->parameters()) counts.total += parameter.data->shape().size();
      if (entry.copy())
        for (const BaseTensor& tensor : site->tensors(entry.copy()))
          if (!tensor.storage || copied.emplace(entry.record.get(), tensor.storage).second) counts.total += tensor.shape.size();
      if (const TokenRows* tokens = entry.tokens(); tokens && entry.here()->tied_to.empty()) counts.total += tokens->rows().shape().size();
    }
  }
  // a trained bias is the base's own in PEFT: it is part of the total already
  for (const TrainableTensor& tensor : trainable_tensors(model)) counts.trainable += tensor.shape.size();
  return counts;
}
GRAFT_SHARED_FUNCTION(count_parameters<>)

template <class = OnDemand>
[[nodiscard]] ModelStatus model_status(const ModelSites& model) {
  const std::vector<LayerStatus> layers = layer_status(model);
  const ParameterCounts counts = count_parameters(model);
  ModelStatus status;
  status.base_model_type = model.nodes.empty() ? "" : std::string(model.nodes.front().type);
  status.trainable_params = counts.trainable;
  status.total_params = counts.total;
  status.num_adapter_layers = Index(layers.size());
  status.enabled = is_enabled(model);
  status.active_adapters = names_of_ids(model, selected_of(model));
  status.merged_adapters = names_of_ids(model, merged_of(model));
  std::sort(status.merged_adapters.begin(), status.merged_adapters.end());
  for (const auto& record : records_of(model)) {
    const std::string& name = record->name();
    status.available_adapters.push_back(name);
    status.peft_types[name] = std::string(peft_type_name(record->type()));
    int wants = 0, wants_not = 0;
    bool is_irregular = false;
    std::set<std::string> devices;
    for (const LayerStatus& layer : layers) {
      const auto here = layer.requires_grad.find(name);
      if (here == layer.requires_grad.end()) continue;
      ++(here->second ? wants : wants_not);
      is_irregular = is_irregular || std::count(layer.irregular.begin(), layer.irregular.end(), name);
      const auto& on = layer.devices.at(name);
      devices.insert(on.begin(), on.end());
    }
    status.requires_grad[name] = wants > 0 && wants_not == 0;
    if (is_irregular || (wants > 0 && wants_not > 0)) status.irregular.push_back("requires_grad." + name);
    status.devices[name] = {devices.begin(), devices.end()};
  }
  std::sort(status.available_adapters.begin(), status.available_adapters.end());
  const auto disagrees = [&](const LayerStatus& layer) {  // an adapter that is merged elsewhere is here, and is not
    return std::any_of(layer.available_adapters.begin(), layer.available_adapters.end(), [&](const std::string& name) {
      const auto is_in = [&](const auto& names) { return std::find(names.begin(), names.end(), name) != names.end(); };
      return is_in(status.merged_adapters) && !is_in(layer.merged_adapters);
    });
  };
  if (std::any_of(layers.begin(), layers.end(), [&](const LayerStatus& layer) { return layer.active_adapters != layers[0].active_adapters; }))
    status.irregular.push_back("active_adapters");
  if (std::any_of(layers.begin(), layers.end(), disagrees)) status.irregular.push_back("merged_adapters");
  return status;
}
GRAFT_SHARED_FUNCTION(model_status<>)
}  // namespace detail

/// Every layer that has adapters, as it stands. @throws AdapterError if there is none.
template <class M>
[[nodiscard]] std::vector<LayerStatus> get_layer_status(const M& model) {
  return detail::layer_status(sites_of(model));
}
/// The model as a whole. @throws AdapterError if it has no adapters.
template <class M>
[[nodiscard]] ModelStatus get_model_status(const M& model) {
  return detail::model_status(sites_of(model));
}
/// How many parameters want gradients, and how many there are: base, adapters and copies.
template <class M>
[[nodiscard]] ParameterCounts get_nb_trainable_parameters(const M& model) {
  return detail::count_parameters(sites_of(model));
}

}  // namespace graft
