#pragma once

#include <concepts>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "../core/fixed_string.hpp"
#include "../modules/paths.hpp"
#include "plan.hpp"
#include "records.hpp"

namespace graft {

namespace detail {

inline void check_adapter_name(const std::string& name) {
  if (!name.empty() && name.find('.') == std::string::npos && name != "__base__") return;
  fail<AdapterError>("an adapter cannot be called '" + name + "'",
                     name.empty()         ? "it needs a name"
                     : name == "__base__" ? "the name is reserved for rows without an adapter"
                                          : "the name is a component of parameter keys, which dots separate",
                     "choose a name without dots");
}

[[nodiscard]] inline std::unique_ptr<ParameterData> bias_of(const AnySite& site, AnyModuleCopy* copy = nullptr) {
  for (const BaseTensor& tensor : site.tensors(copy)) {
    if (tensor.key != "bias") continue;
    auto bias = std::make_unique<ParameterData>(tensor.dtype, tensor.shape);  // PEFT leaves it in the layer's dtype
    const TensorView values = tensor.read();
    if (values.device() == Device::cpu) assign(*bias, values, false);
    return bias;
  }
  return nullptr;
}

[[nodiscard]] inline bool is_inference(const PeftConfig& config) {
  return std::visit([](const auto& c) { return c.inference_mode; }, config);
}

/// The new entries of an injection, built off to the side.
inline std::vector<std::pair<std::size_t, SiteEntry>> make_entries(const ModelSites& model, const InjectionPlan& plan,
                                                                   const std::shared_ptr<AdapterRecord>& record) {
  std::vector<std::pair<std::size_t, SiteEntry>> entries;
  std::vector<int> place(model.sites.size(), -1);
  const auto at = [&](std::size_t site) -> SiteEntry& {
    if (place[site] < 0) {
      place[site] = int(entries.size());
      entries.emplace_back(site, SiteEntry{});
      entries.back().second.id = record->id;
      entries.back().second.record = record;
    }
    return entries[std::size_t(place[site])].second;
  };
  entries.reserve(plan.adapted.size() + plan.copied.size() + plan.biases.size());
  for (const auto& [site, adapter] : plan.adapted) {
    SiteEntry& entry = at(site);
    entry.state = model.sites[site]->make_state(record->config, adapter);
    if (!adapter.low_cpu_mem_usage) entry.state->initialise(adapter.seed, adapter.path);
  }
  for (const std::size_t site : plan.copied) at(site).copy = model.sites[site]->make_copy();
  for (const std::size_t site : plan.biases) {
    SiteEntry& entry = at(site);
    entry.bias = bias_of(*model.sites[site]);
    if (entry.bias) entry.bias->set_requires_grad(!is_inference(record->config));
  }
  const auto others = records_of(model);
  for (const std::size_t plain : plan.plain_biases) {
    const BaseTensor& tensor = model.plain[plain];
    record->plain_biases.push_back({tensor.key, ParameterData(tensor.dtype, tensor.shape)});
    assign(record->plain_biases.back().values, base_values(others, tensor), false);
    record->plain_biases.back().values.set_requires_grad(!is_inference(record->config));
  }
  return entries;
}

inline InjectReport inject(const ModelSites& model, const PeftConfig& config, const std::string& name, const InjectOptions& options) {
  check_adapter_name(name);
  const std::shared_ptr<AdapterRecord> old = find_record(model, name);
  if (old && !options.replace)
    fail<AdapterError>("the model has an adapter '" + name + "' already", "a second injection would throw its weights away",
                       "choose another name, delete_adapter() it first, or set InjectOptions::replace");
  InjectionPlan plan = Planner(model, config, options, name, old ? old.get() : options.instead_of).make();

  const auto record = std::make_shared<AdapterRecord>(
      AdapterRecord{.id = next_id(model), .name = name, .config = std::move(plan.config)});
  auto entries = make_entries(model, plan, record);
  // read before there are new tables, which know nothing of the model yet
  const bool enabled = is_enabled(model);
  std::vector<unsigned> selected = selected_of(model);
  if (old) std::erase(selected, old->id);
  for (const auto& [site, entry] : entries) {
    SiteTable& table = model.sites[site]->make_table();
    if (table.entries.empty()) table.enabled = enabled;
    table.entries.reserve(table.entries.size() + 1);
  }

  if (old) remove_everywhere(model, *old);
  for (auto& [site, entry] : entries) model.sites[site]->table()->entries.push_back(std::move(entry));
  select_everywhere(model, options.activate ? std::vector<unsigned>{record->id} : selected);
  return std::move(plan.report);
}

template <class Config>
concept AnyConfig = std::constructible_from<PeftConfig, const Config&>;
}  // namespace detail

/// Puts an adapter into a model, in place: PEFT's `inject_adapter_in_model`. Everything is planned and checked
/// first; when it throws, the model is as it was.
///
/// The new adapter becomes the only active one unless `options.activate` is false.
/// @throws ConfigError, TargetError, AdapterError
template <class Config, class M>
InjectReport inject_adapter_in_model(const Config& config, M& model, std::string adapter_name = "default",
                                     const InjectOptions& options = {}) {
  static_assert(detail::AnyConfig<Config>, "graft: the first argument is a LoraConfig, AdaLoraConfig, Ia3Config or PeftConfig");
  return detail::inject(sites_of(model), PeftConfig(config), adapter_name, options);
}

/// The same with targets that are checked at compile time: a typo does not compile.
template <fixed_string... Targets, class Config, class M>
  requires(sizeof...(Targets) > 0)
InjectReport inject_adapter_in_model(Config config, M& model, std::string adapter_name = "default",
                                     const InjectOptions& options = {}) {
  check_targets<M, Targets...>();
  if constexpr (std::same_as<Config, PeftConfig>)
    std::visit([](auto& own) { own.target_modules = TargetModules{Name(Targets.view())...}; }, config);
  else config.target_modules = TargetModules{Name(Targets.view())...};
  return detail::inject(sites_of(model), PeftConfig(config), adapter_name, options);
}

}  // namespace graft
