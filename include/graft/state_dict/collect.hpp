#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "kept_ranks.hpp"
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
    const unsigned above = entry->saved_above();
    const auto collect = [&](AnyModuleCopy* copy, const std::string& wrapper) {
      for (const BaseTensor& tensor : site->tensors(copy))
        if (tensor.key == "bias") state_dict.insert(join_path(copied_module(*site, wrapper, above), tensor.key), tensor.read());
    };
    collect(nullptr, "original_module");
    collect(entry->copy(), above ? "modules_to_save." + record.name() : "modules_to_save");
  }
}

template <class = OnDemand>
[[nodiscard]] StateDict adapter_state_dict(const ModelSites& model, std::string_view adapter_name) {
  const auto record = need_record(model, adapter_name);
  const AdapterParts parts = parts_of(model, *record);
  const KeptRanks<> ranks(model, *record);
  StateDict state_dict, biases;
  for (const AdapterSlot& slot : adapter_slots(model, parts)) {
    state_dict.insert(slot.key, ranks.read(slot));
    if (slot.is_bias) biases.insert(slot.key, state_dict.at(slot.key));
  }
  const bool trains_all_biases = std::visit(
      []<class C>(const C& config) {
        if constexpr (requires { config.bias; }) return config.bias == Bias::all;
        else return false;
      },
      record->config());
  const std::vector<SecondKeys> again = second_keys(model, parts);
  if (trains_all_biases) {
    collect_saved_biases(model, *record, biases);
    for (const SecondKeys& second : again)  // PEFT finds biases by every name that they have
      for (const SecondKey& key : second.keys) insert_again(biases, key);
    for (const auto& [key, view] : biases) state_dict.insert(key, view);
  }
  for (std::size_t i = 0; i < again.size(); ++i)
    if (again[i].is_in_copy) insert_again(state_dict, {model.second_names[i].first, model.second_names[i].path});
  return state_dict;
}
GRAFT_SHARED_FUNCTION(adapter_state_dict<>)

/// Whether such a wrapper is around the layer itself.
template <class = OnDemand>
[[nodiscard]] bool has_wrapper(const SiteTable* table, Wrapper kind) {
  return table && std::any_of(table->entries.begin(), table->entries.end(),
                              [&](const SiteEntry& one) { return one.wrapper() == kind && !one.saved_above(); });
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
  return join_path(modules.inside(adapter_module(site, 0, is_inside_adapted(site))), is_bare ? "" : base_infix(table));
}
/// Of the tensors that only the code of a layer reaches: what they hold, or no more than that they are there, and where:
/// an address to know them by, whose values may lie in another order than the shape says.
enum class Shown { all, parameters };
[[nodiscard]] inline TensorView shown_tensor(const BaseTensor& tensor, Shown shown) {
  if (shown == Shown::all) return tensor.read();
  if (tensor.parameter) return tensor.parameter->view();
  return {tensor.dtype, tensor.shape.to_vector(), static_cast<const std::byte*>(tensor.storage), nullptr};
}
/// The tensors of a site's layer.
template <class = OnDemand>
void collect_layer(const AnySite& site, const WrappedModules& modules, Shown shown, StateDict& state_dict) {
  const std::string layer = layer_module(site, modules);
  const ParameterData* const bias = acting_bias(site.table());
  for (const BaseTensor& tensor : site.tensors())
    state_dict.insert(join_path(layer, tensor.key), bias && tensor.key == "bias" ? bias->view() : shown_tensor(tensor, shown));
}
/// A site's adapters as torch registers them: all of one name together, lora_A of each adapter, then lora_B.
template <class = OnDemand>
void collect_adapters(const AnySite& site, const WrappedModules& modules, Shown shown, StateDict& state_dict) {
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
  for (SiteEntry& entry : table->entries)  // copies of a module that holds sites come behind all of them
    if (entry.copy() && !entry.saved_above() && !modules.is_saved(site.path()))
      for (const BaseTensor& tensor : site.tensors(entry.copy()))
        state_dict.insert(join_path(join_path(path, "modules_to_save." + entry.record->name()), tensor.key),
                          shown_tensor(tensor, shown));
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

/// Collects what a model holds in torch's order: what a module's own wrappers hold stands behind everything that is in it.
template <class = OnDemand>
class WholeStateDict {
 public:
  explicit WholeStateDict(const ModelSites& model, Shown shown = Shown::all)
      : model_(model), shown_(shown), modules_(wrapped_modules(model)), saved_(saved_modules(model)) {}

  [[nodiscard]] StateDict collect() && {
    for_each_in_order(
        model_,
        [&](const BaseTensor& tensor) {
          go_to(tensor.key);
          all_.insert(modules_.inside(tensor.key), shown_tensor(tensor, shown_));
        },
        [&](const AnySite& site) { collect(site); },
        [&](const SecondName& name) {
          go_to(name.path);
          insert_again(all_, spelt(name));
        });
    go_to("");
    return std::move(all_);
  }

 private:
  /// A module that the walk is in, and what waits for its end.
  struct Open {
    std::string_view path;
    const SavedModule* saved = nullptr;
    std::size_t begin = 0;                     ///< where in the state dict what is in it begins
    std::vector<const AnySite*> parameters{};  ///< its own, which may have adapters
  };

  void go_to(std::string_view path) {
    for (; !open_.empty() && (path == open_.back().path || !is_key_of(path, open_.back().path)); open_.pop_back()) leave(open_.back());
    for (const SavedModule& one : saved_)
      if (is_key_of(path, one.path) && std::none_of(open_.begin(), open_.end(), [&](const Open& open) { return open.saved == &one; }))
        open_.push_back({one.path, &one, all_.size()});
  }
  void leave(const Open& module) {
    for (const AnySite* site : module.parameters) collect_adapters(*site, modules_, shown_, all_);
    if (module.saved)
      for (const SavedModule::Copy& copy : module.saved->copies) collect_copy(module, copy);
  }

  void collect(const AnySite& site) {
    go_to(site.path());
    collect_layer(site, modules_, shown_, all_);
    if (site.kind() != LayerKind::parameter) return collect_adapters(site, modules_, shown_, all_);
    const std::string_view module = parent_path(site.path());
    if (open_.empty() || open_.back().path != module) open_.push_back({module});
    open_.back().parameters.push_back(&site);
  }

  /// PEFT copies a module with all that was injected into it: the adapters of others stand in a copy again.
  void collect_copy(const Open& module, const SavedModule::Copy& copy) {
    StateDict own;  // by the original's keys
    for (const auto& site : model_.sites)
      if (const SiteTable* table = site->table(); table && is_key_of(site->path(), module.path))
        if (const SiteEntry* entry = table->find(copy.id); entry && entry->copy())
          for (const BaseTensor& tensor : site->tensors(entry->copy()))
            own.insert(join_path(layer_module(*site, modules_), tensor.key), shown_tensor(tensor, shown_));
    for (const SecondName& name : model_.second_names)
      if (is_key_of(name.path, module.path)) insert_again(own, spelt(name));
    const std::string original = modules_.within(std::string(module.path));
    const std::string saved = join_path(modules_.inside(std::string(module.path)), "modules_to_save." + copy.name);
    std::vector<StateDict::value_type> entries;
    for (auto entry = all_.begin() + std::ptrdiff_t(module.begin); entry != all_.end(); ++entry)
      if (is_key_of(entry->first, original)) {
        const TensorView* view = own.find(entry->first);
        entries.emplace_back(saved + entry->first.substr(original.size()), view ? *view : entry->second);
      }
    for (StateDict::value_type& entry : entries) all_.insert(std::move(entry));
  }

  [[nodiscard]] SecondKey spelt(const SecondName& name) const {
    return second_key(model_, modules_, name, [&](std::size_t i) { return layer_module(*model_.sites[i], modules_); });
  }

  const ModelSites& model_;
  Shown shown_;
  WrappedModules modules_;
  std::vector<SavedModule> saved_;
  std::vector<Open> open_;
  StateDict all_;
};

template <class = OnDemand>
[[nodiscard]] StateDict whole_state_dict(const ModelSites& model, Shown shown = Shown::all) {
  return WholeStateDict<>(model, shown).collect();
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
/// out as meta. Of AdaLoRA without the ranks that training gave up (`rank_pattern`): copies. @throws AdapterError for an unknown adapter.
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
