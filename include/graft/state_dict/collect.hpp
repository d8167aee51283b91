#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "second_names.hpp"

namespace graft {

namespace detail {
/// With bias = all, PEFT collects every bias of the model by its name in memory: of a module that is saved whole
/// also the original's, and the copy's once more.
template <class = OnDemand>
void collect_saved_biases(const ModelSites& model, const AdapterRecord& record, StateDict& state_dict) {
  for (const auto& site : model.sites) {
    const SiteTable* table = site->table();
    const SiteEntry* entry = table ? table->find(record.id) : nullptr;
    if (!entry || !entry->copy()) continue;
    const bool with_outer = entry->here()->with_outer;
    const auto collect = [&](AnyModuleCopy* copy, const std::string& wrapper) {
      for (const BaseTensor& tensor : site->tensors(copy))
        if (tensor.key == "bias") state_dict.insert(join_path(copied_module(*site, wrapper, with_outer), tensor.key), tensor.read());
    };
    collect(nullptr, "original_module");
    collect(entry->copy(), with_outer ? "modules_to_save." + record.name() : "modules_to_save");
  }
}

template <class = OnDemand>
[[nodiscard]] StateDict adapter_state_dict(const ModelSites& model, std::string_view adapter_name) {
  const auto record = need_record(model, adapter_name);
  const AdapterParts parts = parts_of(model, *record);
  StateDict state_dict, biases;
  for (const AdapterSlot& slot : adapter_slots(model, parts)) {
    state_dict.insert(slot.key, slot.read());
    if (slot.is_bias) biases.insert(slot.key, state_dict.at(slot.key));
  }
  const bool trains_all_biases = std::visit(
      []<class C>(const C& config) {
        if constexpr (requires { config.bias; }) return config.bias == Bias::all;
        else return false;
      },
      record->config());
  if (!trains_all_biases) return state_dict;
  collect_saved_biases(model, *record, biases);
  for (const SecondKey& key : second_keys(model, parts)) insert_again(biases, key);  // PEFT finds biases by every name that they have
  for (const auto& [key, view] : biases) state_dict.insert(key, view);
  return state_dict;
}
GRAFT_SHARED_FUNCTION(adapter_state_dict<>)

template <class = OnDemand>
[[nodiscard]] bool has_wrapper(const SiteTable* table, Wrapper kind) {
  return table && std::any_of(table->entries.begin(), table->entries.end(), [&](const SiteEntry& one) { return one.wrapper() == kind; });
}
/// Whether a copy of the layer is part of one of what is around it.
template <class = OnDemand>
[[nodiscard]] bool is_copied_with_outer(const SiteTable& table) {
  return std::any_of(table.entries.begin(), table.entries.end(),
                     [](const SiteEntry& one) { return one.copy() && one.here()->with_outer; });
}
template <class = OnDemand>
[[nodiscard]] unsigned deepest_of(const SiteTable* table) {
  unsigned deepest = 0;
  if (table)
    for (const SiteEntry& entry : table->entries) deepest = std::max(deepest, entry.depth());
  return deepest;
}
/// What PEFT puts between a site's path and the names of its layer's own tensors.
template <class = OnDemand>
[[nodiscard]] std::string base_infix(const SiteTable* table) {
  if (table && table->is_wrapped()) return nested_path("base_layer", deepest_of(table));
  if (has_wrapper(table, Wrapper::copies)) return "original_module";
  return has_wrapper(table, Wrapper::tokens) ? std::string(token_base) : std::string();
}

/// The bias that an active adapter trained, which acts in place of the layer's own; null where there is none. One adapter of a
/// model has any.
template <class = OnDemand>
[[nodiscard]] const ParameterData* acting_bias(const SiteTable* table) {
  if (!table || !table->enabled) return nullptr;
  for (const unsigned id : table->pending)
    if (const SiteEntry* entry = table->find(id); entry->bias() && !entry->copy()) return entry->bias();
  return nullptr;
}

/// The module of a site's layer. A parameter has no wrapper of its own: its module's are in `modules`.
template <class = OnDemand>
[[nodiscard]] std::string layer_module(const AnySite& site, const WrappedModules& modules) {
  const SiteTable* table = site.table();
  const bool is_bare = site.kind() == LayerKind::parameter && !has_wrapper(table, Wrapper::copies);
  const std::string infix = is_bare ? "" : base_infix(table);
  const bool is_copied_inside = infix == "original_module" && is_copied_with_outer(*table);
  return modules.inside(is_copied_inside ? copied_module(site, infix, true)
                                         : join_path(adapter_module(site, 0, is_inside_adapted(site)), infix));
}
/// The tensors of a site's layer.
template <class = OnDemand>
void collect_layer(const AnySite& site, const WrappedModules& modules, StateDict& state_dict) {
  const std::string layer = layer_module(site, modules);
  const ParameterData* const bias = acting_bias(site.table());
  for (const BaseTensor& tensor : site.tensors())
    state_dict.insert(join_path(layer, tensor.key), bias && tensor.key == "bias" ? bias->view() : tensor.read());
}
/// A site's adapters as torch registers them: all of one name together, lora_A of each adapter, then lora_B.
template <class = OnDemand>
void collect_adapters(const AnySite& site, const WrappedModules& modules, StateDict& state_dict) {
  SiteTable* table = site.table();
  if (!table) return;
  const std::string path = modules.inside(site.path());
  std::vector<std::string_view> names;
  for (SiteEntry& entry : table->entries)
    if (entry.state())
      for (const AdapterParameter& parameter : entry.state()->parameters())
        if (std::find(names.begin(), names.end(), parameter.name) == names.end()) names.push_back(parameter.name);
  for (unsigned depth = deepest_of(table) + 1; depth-- > 0;) {
    const std::string module = modules.holder(site, depth, is_inside_adapted(site));
    for (const std::string_view name : names)
      for (SiteEntry& entry : table->entries)
        if (entry.state() && entry.depth() == depth)
          for (const AdapterParameter& parameter : entry.state()->parameters())
            if (parameter.name == name)
              state_dict.insert(memory_key(module, name, entry.record->name(), parameter.suffix), parameter.data->view());
  }
  for (SiteEntry& entry : table->entries)
    if (entry.copy())
      for (const BaseTensor& tensor : site.tensors(entry.copy()))
        state_dict.insert(join_path(modules.inside(copied_module(site, "modules_to_save." + entry.record->name(), entry.here()->with_outer)), tensor.key),
                          tensor.read());
  for (SiteEntry& entry : table->entries)
    if (const TokenRows* tokens = entry.tokens())
      state_dict.insert(memory_key(path, token_parameter, entry.record->name(), ""), tokens->rows().view());
}

/// Calls plain(tensor), site(site) and again(second name) in the order in which torch registers them.
template <class Plain, class Site, class Again>
void for_each_in_order(const ModelSites& model, Plain plain, Site site, Again again) {
  std::size_t next = 0;
  auto name = model.second_names.begin();
  const auto plain_until = [&](std::size_t i, std::size_t end) {
    for (;; ++next) {
      for (; name != model.second_names.end() && name->sites_before == i && name->plain_before == next; ++name) again(*name);
      if (next == end) return;
      plain(model.plain[next]);
    }
  };
  for (std::size_t i = 0; i < model.sites.size(); ++i) {
    plain_until(i, model.plain_before[i]);
    site(*model.sites[i]);
  }
  plain_until(model.sites.size(), model.plain.size());
}

/// Parameters' adapters stand behind everything that their module holds, as the module's wrappers do.
template <class = OnDemand>
[[nodiscard]] StateDict whole_state_dict(const ModelSites& model) {
  const WrappedModules modules = wrapped_modules(model);
  StateDict all;
  std::vector<std::pair<std::string_view, std::vector<const AnySite*>>> waiting;
  const auto leave_for = [&](std::string_view key) {
    const auto is_in = [&](std::string_view module) {
      return key.starts_with(module) && key.size() > module.size() && key[module.size()] == '.';
    };
    for (; !waiting.empty() && !is_in(waiting.back().first); waiting.pop_back())
      for (const AnySite* site : waiting.back().second) collect_adapters(*site, modules, all);
  };
  for_each_in_order(
      model,
      [&](const BaseTensor& tensor) {
        leave_for(tensor.key);
        all.insert(modules.inside(tensor.key), tensor.read());
      },
      [&](const AnySite& site) {
        leave_for(site.path());
        collect_layer(site, modules, all);
        if (site.kind() != LayerKind::parameter) return collect_adapters(site, modules, all);
        const std::string_view module = parent_path(site.path());
        if (waiting.empty() || waiting.back().first != module) waiting.push_back({module, {}});
        waiting.back().second.push_back(&site);
      },
      [&](const SecondName& name) {
        leave_for(name.path);
        insert_again(all, second_key(model, modules, name, [&](std::size_t i) { return layer_module(*model.sites[i], modules); }));
      });
  leave_for("");
  return all;
}
GRAFT_SHARED_FUNCTION(whole_state_dict<>)
}  // namespace detail

/// Everything a model holds, under torch's names: `linear.base_layer.weight`, `linear.lora_A.default.weight`.
/// Views are valid until the model changes; `clone()` owns its bytes.
template <class M>
[[nodiscard]] StateDict state_dict(const M& model) {
  return detail::whole_state_dict(sites_of(model));
}

/// One adapter's tensors under bare keys: `linear.lora_A.weight`. Views, as in `state_dict`; meta parameters come
/// out as meta. @throws AdapterError for an unknown adapter.
template <class M>
[[nodiscard]] StateDict get_peft_model_state_dict(const M& model, std::string_view adapter_name = "default") {
  return detail::adapter_state_dict(sites_of(model), adapter_name);
}

/// The base model's tensors under their original names, whatever was injected.
template <class M>
[[nodiscard]] StateDict get_base_model_state_dict(const M& model) {
  StateDict all;
  const ModelSites sites = sites_of(model);
  const auto records = detail::records_of(sites);
  detail::for_each_in_order(
      sites, [&](const detail::BaseTensor& tensor) { all.insert(tensor.key, detail::base_values(records, tensor)); },
      [&](const AnySite& site) {
        for (const detail::BaseTensor& tensor : site.tensors()) all.insert(join_path(site.path(), tensor.key), tensor.read());
      },
      [&](const SecondName& name) { detail::insert_again(all, {name.first, name.path}); });
  return all;
}

}  // namespace graft
