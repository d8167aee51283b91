#pragma once

#include <algorithm>
#include <concepts>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "../adapters/set_aside.hpp"
#include "../core/compile_once.hpp"
#include "../core/fixed_string.hpp"
#include "../core/on_demand.hpp"
#include "../modules/paths.hpp"
#include "merged.hpp"
#include "names.hpp"
#include "plan.hpp"

namespace graft {

namespace detail {

inline void check_adapter_name(const std::string& name) {
  std::string why;
  if (name.empty()) why = "it needs a name";
  else if (name == base_name) why = "the name is reserved for rows without an adapter";
  else if (name.find('.') != name.npos) why = "the name is a component of parameter keys, which dots separate";
  else if (std::any_of(name.begin(), name.end(), [](unsigned char c) { return c < ' ' || c == 127; }))
    why = "the name has control characters, and becomes part of keys and paths";
  else return;
  fail<AdapterError>("an adapter cannot be called '" + name + "'", std::move(why), "choose a name without dots or control characters");
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

/// Schemes that start from the base weight need it even where the parameters come from a file: what they subtract is
/// in no file.
inline void start_from_base(const AnySite& site, const PeftConfig& config, const AdapterPlan& plan, AnyAdapterState& state) {
  const auto* lora = std::get_if<LoraConfig>(&config);
  if (!lora || !takes_from_base(init_scheme(lora->init_lora_weights)) || site.facts().kind != LayerKind::linear) return;
  const std::string stream = plan.path + ".lora_A.weight";
  const std::string what = "init_lora_weights \"" + lora->init_lora_weights.scheme() + "\"";
  state.take_initial_factors(need_factorisers(what).start(lora->init_lora_weights, base_weight_values(site), plan.r, state.scaling(), {plan.seed, stream}));
}

/// Rows that start as those of the base. PEFT makes them even where the other parameters stay on the meta device.
[[nodiscard]] inline std::shared_ptr<TokenRows> make_tokens(const ModelSites& model, const TokenSite& plan, bool is_inference) {
  const AnySite& site = *model.sites[plan.site];
  const LayerFacts facts = site.facts();
  auto tokens = std::make_shared<TokenRows>(plan.ids, site.dtype(), facts.kind == LayerKind::embedding ? facts.out : facts.in);
  tokens->rows().set_requires_grad(!is_inference);
  for (const BaseTensor& tensor : site.tensors())
    if (tensor.key == "weight" && tensor.read().device() == Device::meta) return tokens;
  tokens->rows().allocate();
  for (std::size_t i = 0; i < plan.ids.size(); ++i) site.copy_weight_row(plan.ids[i], tokens->rows(), Index(i));
  return tokens;
}

/// What a planned adapter has at a site that it takes, by its place, built off to the side.
struct NewSiteAdapter {
  std::size_t site;
  std::shared_ptr<SiteAdapter> adapter;
};
using NewSiteAdapters = std::vector<NewSiteAdapter>;

/// Lets a head and its embedding share what one adapter has at both.
inline void tie_ends(const ModelSites& model, const TiedEnds& ends, SiteAdapter& embedding, SiteAdapter& head) {
  head.tied_to = model.sites[ends.embedding]->path();
  if (embedding.state && head.state) (void)tie_factors(*embedding.state, *head.state, false);
  if (!embedding.copy || !head.copy) return;
  const auto weight = [&](std::size_t site, AnyModuleCopy* copy) -> ParameterData* {
    for (const BaseTensor& tensor : model.sites[site]->tensors(copy))
      if (tensor.key == "weight") return tensor.parameter;
    return nullptr;
  };
  ParameterData* own = weight(ends.embedding, embedding.copy.get());
  ParameterData* shared = weight(ends.head, head.copy.get());
  if (own && shared) *shared = own->share();
}

/// Lets heads have the very rows of the embeddings that they are tied to.
inline void tie_tokens(const ModelSites& model, const NewSiteAdapters& adapters) {
  for (const auto& head : adapters)
    for (const auto& [site, adapter] : adapters)
      if (adapter->tokens && model.sites[site]->path() == head.adapter->tied_to) head.adapter->tokens = adapter->tokens;
}

[[nodiscard]] inline NewSiteAdapters make_site_adapters(const ModelSites& model, const InjectionPlan& plan) {
  NewSiteAdapters adapters;
  std::vector<int> place(model.sites.size(), -1);
  const auto at = [&](std::size_t site) -> SiteAdapter& {
    if (place[site] < 0) {
      place[site] = int(adapters.size());
      adapters.push_back({site, std::make_shared<SiteAdapter>()});
    }
    return *adapters[std::size_t(place[site])].adapter;
  };
  std::vector<AdapterParameter> eager;
  for (const auto& [site, adapter] : plan.adapted) {
    SiteAdapter& here = at(site);
    here.state = model.sites[site]->make_state(plan.config, adapter);
    here.depth = adapter.depth;
    here.with_outer = adapter.with_outer;
    if (!adapter.low_cpu_mem_usage)
      for (const AdapterParameter& parameter : here.state->parameters()) eager.push_back(parameter);
  }
  set_memory_aside(eager);
  for (const auto& [site, adapter] : plan.adapted) {
    SiteAdapter& here = at(site);
    start_from_base(*model.sites[site], plan.config, adapter, *here.state);
    if (!adapter.low_cpu_mem_usage) model.sites[site]->initialise(*here.state, adapter.seed);
  }
  for (const std::size_t site : plan.copied) {
    at(site).copy = model.sites[site]->make_copy();
    at(site).copy_trains = !is_inference(plan.config);
    at(site).saved_above = saved_above(plan.saved_modules, model.sites[site]->path());
  }
  for (const TokenSite& one : plan.tokens) {
    at(one.site).tokens = make_tokens(model, one, is_inference(plan.config));
    at(one.site).tied_to = one.tied_to;
  }
  tie_tokens(model, adapters);
  for (const TiedEnds& ends : plan.ties) tie_ends(model, ends, at(ends.embedding), at(ends.head));
  for (const std::size_t site : plan.biases) {
    SiteAdapter& here = at(site);
    here.bias = bias_of(*model.sites[site]);
    if (here.bias) here.bias->set_requires_grad(!is_inference(plan.config));
  }
  return adapters;
}

[[nodiscard]] inline std::vector<PlainBias> make_plain_biases(const ModelSites& model, const InjectionPlan& plan) {
  std::vector<PlainBias> biases;
  const auto others = records_of(model);
  for (const std::size_t plain : plan.plain_biases) {
    const BaseTensor& tensor = model.plain[plain];
    biases.push_back({tensor.key, ParameterData(tensor.dtype, tensor.shape)});
    assign(biases.back().values, base_values(others, tensor), false);
    biases.back().values.set_requires_grad(!is_inference(plan.config));
  }
  return biases;
}

/// What an injection may not do while adapters are merged. @throws MergeError
inline void check_merged(const ModelSites& model, const InjectionPlan& plan, const AdapterRecord* old, std::vector<unsigned> selected) {
  if (merged_of(model).empty()) return;
  constexpr std::string_view verb = "inject_adapter_in_model";
  if (old) check_not_merged(model, *old, verb);
  check_selection(model, selected, verb);
  for (const auto* sites : {&plan.copied, &plan.biases})
    for (const std::size_t site : *sites) check_base_is_pristine(model.sites[site]->table(), verb);
  for (const TokenSite& one : plan.tokens) check_base_is_pristine(model.sites[one.site]->table(), verb);
}

/// Gives every site of a list a table, and room in it for one entry more.
inline void make_tables(const ModelSites& model, const NewSiteAdapters& adapters) {
  const bool enabled = is_enabled(model);  // read before there are new tables, which know nothing of the model yet
  unsigned next = next_site(model);
  for (const auto& [site, adapter] : adapters) {
    SiteTable* table = model.sites[site]->table();
    if (!table) {
      table = &model.sites[site]->make_table(next++);
      table->enabled = enabled;
    }
    table->entries.reserve(table->entries.size() + 1);
  }
}

template <class = OnDemand>
InjectReport inject(const ModelSites& model, const PeftConfig& config, const std::string& name, const InjectOptions& options) {
  check_adapter_name(name);
  const std::shared_ptr<AdapterRecord> old = find_record(model, name);
  if (old && !options.replace)
    fail<AdapterError>("the model has an adapter '" + name + "' already", "a second injection would throw its weights away",
                       "choose another name, delete_adapter() it first, or set InjectOptions::replace");
  InjectionPlan plan = plan_injection(model, config, options, name, old ? old.get() : options.instead_of);

  const auto record = std::make_shared<AdapterRecord>(next_id(model), name, plan.config);
  std::vector<unsigned> selected = selected_of(model);
  if (old) std::erase(selected, old->id);
  if (options.activate) selected = {record->id};
  check_merged(model, plan, old.get(), selected);
  NewSiteAdapters adapters = make_site_adapters(model, plan);
  record->plain_biases = make_plain_biases(model, plan);
  share_records(model);
  make_tables(model, adapters);

  if (old) remove_everywhere(model, *old);
  for (auto& [site, adapter] : adapters) {
    SiteTable& table = *model.sites[site]->table();
    record->generation.own()->put(table.number, &table, std::move(adapter));
    SiteEntry entry;
    entry.id = record->id;
    entry.site = table.number;
    entry.record = record;
    table.entries.push_back(std::move(entry));
  }
  enroll(model, record, !is_inference(record->config()));
  select_everywhere(model, selected);
  return std::move(plan.report);
}
GRAFT_SHARED_FUNCTION(inject<>)

template <class Config>
concept AnyConfig = std::constructible_from<PeftConfig, const Config&>;
}  // namespace detail

/// Puts an adapter into a model, in place: PEFT's `inject_adapter_in_model`. Everything is planned and checked
/// first; when it throws, the model is as it was.
///
/// The new adapter becomes the only active one unless `options.activate` is false.
/// @throws ConfigError, TargetError, AdapterError, MergeError if a merged adapter would be inactive
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
    detail::visit_config(config, [](auto& own) { own.target_modules = TargetModules{Name(Targets.view())...}; });
  else config.target_modules = TargetModules{Name(Targets.view())...};
  return detail::inject(sites_of(model), PeftConfig(config), adapter_name, options);
}

}  // namespace graft
