#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "../core/sort.hpp"
#include "../injection/merged.hpp"
#include "../state_dict/collect.hpp"
#include "../state_dict/slots.hpp"
#include "../state_dict/trainable_tensors.hpp"

namespace graft {

/// One parameter that training changes.
struct TrainableParameter {
  std::string key;        ///< in the model's state dict: "linear.lora_A.default.weight"
  std::string name;       ///< in its module: "lora_A", "weight", "bias"
  ParameterData* parameter;
  std::vector<ParameterData*> tied{};  ///< others of the base on the same memory
  std::shared_ptr<ParameterData> held{};  ///< `parameter`, where a copy's layer has a matrix of its own: as that lies in memory

  [[nodiscard]] const Shape& shape() const { return parameter->shape(); }
};

/// The parameters that training changes, in the order of the model's state dict; tied ones once, under their first name.
/// They are the model's own: valid until it is injected into, loaded into with other memory, merged, moved or deleted from.
class TrainableParameters {
 public:
  explicit TrainableParameters(std::vector<TrainableParameter> parameters = {}) : parameters_(std::move(parameters)) {}

  [[nodiscard]] std::size_t size() const { return parameters_.size(); }
  [[nodiscard]] bool empty() const { return parameters_.empty(); }
  [[nodiscard]] auto begin() const { return parameters_.begin(); }
  [[nodiscard]] auto end() const { return parameters_.end(); }
  [[nodiscard]] const TrainableParameter& operator[](std::size_t i) const { return parameters_[i]; }
  /// Null for a key that is none of theirs.
  [[nodiscard]] const TrainableParameter* find(std::string_view key) const {
    for (const TrainableParameter& one : parameters_)
      if (one.key == key) return &one;
    return nullptr;
  }
  /// How many numbers they have together.
  [[nodiscard]] Index elements() const {
    Index sum = 0;
    for (const TrainableParameter& one : parameters_) sum += one.shape().size();
    return sum;
  }

 private:
  std::vector<TrainableParameter> parameters_;
};

namespace detail {
/// The names of a model's tensors by their memory, no two alike, and how far to the front each stands.
template <class = OnDemand>
class NamesByMemory {
 public:
  explicit NamesByMemory(const ModelSites& model) {
    for (const auto& [key, view] : whole_state_dict(model, Shown::parameters))
      if (view.size() != 0) add(view.data, key);
    for (const auto& record : records_of(model))  // a trained bias stands in the model only while its adapter is active
      for (const AdapterSlot& slot : adapter_slots(model, *record))
        if (slot.is_bias) add(slot.read().data, join_path(slot.memory_key, record->name()));
    for (const auto& site : model.sites)  // and the layer's own only while none is
      for (const BaseTensor& tensor : site->tensors()) add(tensor.storage, join_path(site->path(), tensor.key));
  }
  [[nodiscard]] std::size_t place(const void* memory) const { return places_.at(memory); }
  [[nodiscard]] const std::string& name(const void* memory) const { return names_[place(memory)]; }

 private:
  void add(const void* memory, const std::string& key) {
    if (memory && places_.try_emplace(memory, names_.size()).second) names_.push_back(key);
  }
  std::vector<std::string> names_;
  std::unordered_map<const void*, std::size_t> places_;
};

template <class = OnDemand>
void check_trainable(const ModelSites& model, const TrainableTensor& tensor) {
  const auto name = [&] {
    const std::string own = tensor.site ? join_path(tensor.site->path(), tensor.name) : tensor.name;
    return "'" + own + "'" + (tensor.record ? " of adapter '" + tensor.record->name() + "'" : "");
  };
  if (!tensor.parameter)
    fail<TrainingError>(name() + " wants gradients, and is no graft::Parameter",
                        "of what a layer holds in something else only a copy is trained, and that where it lies in one piece and may be written",
                        "let the layer hold a graft::Parameter, or leave it out of modules_to_save and of bias = all");
  if (tensor.parameter->is_meta())
    fail<MetaError>(name() + " wants gradients, and has no memory yet",
                    "it is on the meta device: the adapter was injected with low_cpu_mem_usage, or the base was not loaded",
                    "load a state dict into it first");
  if (!is_floating(tensor.parameter->dtype()))
    fail<TrainingError>(name() + " wants gradients, and holds " + std::string(tag_of(tensor.parameter->dtype())),
                        "a step changes a number by a little", "set_requires_grad(false)");
  if (tensor.record && is_merged(model, tensor.record->id))
    fail<TrainingError>(name() + " wants gradients, and the adapter is merged",
                        "the base weights hold what it adds: a step would not change what the model computes, and could not be unmerged",
                        "unmerge_adapter() first");
  if (!tensor.record && tensor.site && tensor.site->table() && !tensor.site->table()->merged.empty())
    fail<TrainingError>(name() + " wants gradients, and adapters are merged into it", "unmerging would undo what it learnt, or miss",
                        "unmerge_adapter() first");
}

template <class = OnDemand>
[[nodiscard]] TrainableParameters trainable_parameters_of(const ModelSites& model) {
  std::vector<TrainableTensor> tensors = trainable_tensors(model);
  for (const TrainableTensor& tensor : tensors) check_trainable(model, tensor);
  const NamesByMemory<> names(model);
  std::vector<TrainableParameter> parameters;
  for (const std::size_t i : sorted_order(tensors.size(), [&](std::size_t a, std::size_t b) {
         return names.place(tensors[a].storage) < names.place(tensors[b].storage);
       }))
    parameters.push_back({names.name(tensors[i].storage), std::string(last_segment(tensors[i].name)), tensors[i].parameter, std::move(tensors[i].tied),
                          std::move(tensors[i].held)});
  return TrainableParameters(std::move(parameters));
}
GRAFT_SHARED_FUNCTION(trainable_parameters_of<>)
}  // namespace detail

/// What an optimiser steps: adapters' parameters, copies, tokens and biases that want gradients (`set_adapter`,
/// `set_requires_grad`), and parameters of the base for which `Parameter::set_requires_grad(true)` was called. As many numbers as
/// `get_nb_trainable_parameters` counts as trainable.
/// @throws MetaError where one has no memory, TrainingError where it is merged, or where an optimiser cannot write it.
template <class M>
[[nodiscard]] TrainableParameters trainable_parameters(M& model) {
  return detail::trainable_parameters_of(sites_of(model));
}

}  // namespace graft
