#pragma once

#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "../injection/records.hpp"

namespace graft::detail {

/// One tensor of a model that wants gradients.
struct TrainableTensor {
  ParameterData* parameter;       ///< null where the layer holds the values in something else
  Shape shape;
  const void* storage;            ///< where the values are; null: unknown, or none yet
  const AdapterRecord* record;    ///< whose it is; null: the base's own
  const AnySite* site;            ///< null outside of sites
  std::string name;               ///< of the tensor at its site, or in the model
  std::vector<ParameterData*> tied{};  ///< others of the base on the same memory
  std::shared_ptr<ParameterData> held{};  ///< `parameter`, where a matrix of the layer's own holds the values
};

/// Collects them: adapters' parameters, copies, tokens and biases, and what the user wants trained of the base.
template <class = OnDemand>
class TrainableTensors {
 public:
  explicit TrainableTensors(const ModelSites& model) : model_(model) {}

  [[nodiscard]] std::vector<TrainableTensor> collect() && {
    for (const auto& site : model_.sites)
      if (const SiteTable* table = site->table())
        for (const SiteEntry& entry : table->entries)
          if (entry.record) add_entry(*site, entry);
    for (const auto& record : records_of(model_))
      for (PlainBias& bias : record->plain_biases)
        if (bias.values.requires_grad()) add_plain_bias(*record, bias);
    for (const BaseTensor& tensor : model_.plain) add_base(tensor, nullptr);
    for (const auto& site : model_.sites)
      for (const BaseTensor& tensor : site->tensors()) add_base(tensor, site.get());
    find_tied();
    return std::move(all_);
  }

 private:
  void add(TrainableTensor tensor) {
    if (tensor.shape.size() == 0) return;  // where it stands in a file, the next one begins
    if (!tensor.storage || seen_.insert(tensor.storage).second) all_.push_back(std::move(tensor));
  }
  void add(ParameterData& data, const AdapterRecord* record, const AnySite* site, std::string name) {
    add({&data, data.shape(), data.data(), record, site, std::move(name)});
  }
  void add(const BaseTensor& tensor, const AdapterRecord* record, const AnySite* site) {
    add({tensor.parameter, tensor.shape, tensor.storage, record, site, tensor.key});
  }

  void add_entry(const AnySite& site, const SiteEntry& entry) {
    const AdapterRecord* record = entry.record.get();
    if (AnyAdapterState* state = entry.state())
      for (const AdapterParameter& parameter : state->parameters())
        if (parameter.data->requires_grad()) add(*parameter.data, record, &site, std::string(parameter.name));
    if (entry.copy() && entry.here()->copy_trains)
      for (const BaseTensor& tensor : site.tensors(entry.copy())) add_of_copy(tensor, record, &site);
    if (TokenRows* tokens = entry.tokens(); tokens && entry.here()->tied_to.empty() && tokens->rows().requires_grad())
      add(tokens->rows(), record, &site, std::string(token_parameter));
    if (ParameterData* bias = entry.bias(); bias && bias->requires_grad()) add(*bias, record, &site, "bias");
  }
  void add_of_copy(const BaseTensor& tensor, const AdapterRecord* record, const AnySite* site) {
    if (tensor.parameter || !tensor.stored) return add(tensor, record, site);
    const auto held = std::make_shared<ParameterData>(tensor.dtype, *tensor.stored);
    held->borrow(static_cast<std::byte*>(const_cast<void*>(tensor.storage)), nullptr);
    add({held.get(), tensor.shape, tensor.storage, record, site, tensor.key, {}, held});
  }
  /// While its adapter is active the layer holds the trained values.
  void add_plain_bias(const AdapterRecord& record, PlainBias& bias) {
    if (!record.plain_biases_in_place) return add(bias.values, &record, nullptr, bias.key);
    for (const BaseTensor& tensor : model_.plain)
      if (tensor.key == bias.key) add(tensor, &record, nullptr);
  }
  void add_base(const BaseTensor& tensor, const AnySite* site) {
    if (!tensor.parameter) return;
    if (tensor.storage) base_.emplace_back(tensor.storage, tensor.parameter);
    if (tensor.parameter->requires_grad()) add(tensor, nullptr, site);
  }
  void find_tied() {
    for (TrainableTensor& tensor : all_)
      if (!tensor.record || !tensor.site)  // an adapter's own memory is nobody else's
        for (const auto& [storage, parameter] : base_)
          if (storage == tensor.storage && parameter != tensor.parameter && parameter->shape() == tensor.shape) tensor.tied.push_back(parameter);
  }

  const ModelSites& model_;
  std::vector<TrainableTensor> all_;
  std::unordered_set<const void*> seen_;  // tied tensors are one parameter
  std::vector<std::pair<const void*, ParameterData*>> base_;
};

/// What of a model wants gradients, each memory once.
template <class = OnDemand>
[[nodiscard]] std::vector<TrainableTensor> trainable_tensors(const ModelSites& model) {
  return TrainableTensors<>(model).collect();
}
GRAFT_SHARED_FUNCTION(trainable_tensors<>)

}  // namespace graft::detail
