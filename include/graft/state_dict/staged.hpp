#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "../injection/inject.hpp"
#include "load.hpp"

namespace graft::detail {

/// An adapter that is built off to the side of a model, with weights that the model does not show to anyone yet.
/// Forwards of the model may run meanwhile, verbs may not.
template <class = OnDemand>
class StagedAdapter {
 public:
  /// Plans it and makes its parameters, without memory. `replaced` is the adapter whose place it will take, or null.
  /// @throws what injecting it would.
  StagedAdapter(const ModelSites& model, const PeftConfig& config, const StateDict& state_dict, const std::string& name,
                const AdapterRecord* replaced, std::string_view verb)
      : model_(model) {
    const InjectOptions options{.low_cpu_mem_usage = true, .activate = false, .file = &state_dict};
    InjectionPlan plan = plan_injection(model, config, options, name, replaced);
    check_pristine(plan, verb);
    adapters_ = make_site_adapters(model, plan);
    plain_biases = make_plain_biases(model, plan);
    config_ = std::move(plan.config);
    injected_ = std::move(plan.report);
    parts_ = {name, std::vector<SiteAdapter*>(model.sites.size()), &plain_biases, false};
    for (const auto& [site, adapter] : adapters_) parts_.at[site] = adapter.get();
  }
  StagedAdapter(const StagedAdapter&) = delete;
  StagedAdapter& operator=(const StagedAdapter&) = delete;

  [[nodiscard]] const PeftConfig& config() const { return config_; }
  /// What it has at each site, null where it has nothing.
  [[nodiscard]] const AdapterParts& parts() const { return parts_; }
  [[nodiscard]] std::size_t bytes() const {
    std::size_t bytes = 0;
    for (const AdapterSlot& slot : adapter_slots(model_, parts_)) bytes += std::size_t(slot.shape.size()) * size_of(slot.dtype);
    return bytes;
  }
  [[nodiscard]] Index rank() const {
    Index rank = 0;
    for (const auto& [site, adapter] : adapters_)
      if (adapter->state) rank = std::max(rank, adapter->state->rank());
    return rank;
  }

  /// Loads all of it; `may_borrow` keeps views that have an owner. A tensor of the base that PEFT saved beside the
  /// adapter must be the base's own: nothing of the base is written. @throws StateDictError
  LoadReport load(const StateDict& state_dict, bool may_borrow) {
    Loader loader = adapter_loader(model_, parts_, {.low_cpu_mem_usage = may_borrow});
    for_each_whole_embedding(model_, parts_, state_dict, [&](const std::string& key, const BaseTensor& tensor, const SiteTable*) {
      const TensorView* saved = state_dict.find(key);
      if (!saved) saved = state_dict.find(std::string(peft_prefix) + key);
      if (saved && is_same(*saved, tensor.read())) loader.accept(key);
    });
    add_second_names(model_, parts_, loader);
    LoadReport report = std::move(loader).load(state_dict);
    settle_ties(model_, parts_, report);
    for (const std::string& target : injected_.unmatched_targets)
      report.warnings.push_back("the target '" + target + "' matches no module of this model");
    report.warnings.insert(report.warnings.end(), injected_.warnings.begin(), injected_.warnings.end());
    return report;
  }

  void set_requires_grad(bool value) {
    for (const auto& [site, adapter] : adapters_) {
      if (adapter->state)
        for (const AdapterParameter& parameter : adapter->state->parameters())
          if (parameter.is_saved) parameter.data->set_requires_grad(value);
      if (adapter->tokens) adapter->tokens->rows().set_requires_grad(value);
      if (adapter->bias) adapter->bias->set_requires_grad(value);
      adapter->copy_trains = adapter->copy && value;
    }
    for (PlainBias& bias : plain_biases) bias.values.set_requires_grad(value);
  }

  /// Gives its weights to a generation. Every site that it takes must have a table.
  void put_into(AdapterGeneration& generation) {
    generation.config = config_;
    for (auto& [site, adapter] : adapters_) {
      const SiteTable* table = model_.sites[site]->table();
      generation.put(table->number, table, std::move(adapter));
    }
  }

  std::vector<PlainBias> plain_biases;

 private:
  void check_pristine(const InjectionPlan& plan, std::string_view verb) const {
    const auto* lora = std::get_if<LoraConfig>(&plan.config);
    const bool starts_from_base = lora && takes_from_base(init_scheme(lora->init_lora_weights));
    for (const auto* sites : {&plan.copied, &plan.biases})
      for (const std::size_t site : *sites) check_base_is_pristine(model_.sites[site]->table(), verb);
    if (starts_from_base)
      for (const auto& adapted : plan.adapted) check_base_is_pristine(model_.sites[adapted.site]->table(), verb);
  }
  [[nodiscard]] static bool is_same(const TensorView& a, const TensorView& b) {
    if (a.shape != b.shape || a.device() == Device::meta || b.device() == Device::meta) return false;
    if (!is_floating(a.dtype) || !is_floating(b.dtype)) return false;
    for (std::size_t i = 0; i < std::size_t(a.size()); ++i)
      if (element_as<double>(a.dtype, a.data, i) != element_as<double>(b.dtype, b.data, i)) return false;
    return true;
  }

  const ModelSites& model_;
  PeftConfig config_;
  InjectReport injected_;
  NewSiteAdapters adapters_;
  AdapterParts parts_{};
};
GRAFT_SHARED_CLASS(StagedAdapter<>)

}  // namespace graft::detail
