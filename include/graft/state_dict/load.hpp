#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "../core/text.hpp"
#include "../injection/merged.hpp"
#include "../injection/plan_ties.hpp"
#include "collect.hpp"
#include "nested.hpp"
#include "pruning.hpp"

namespace graft {

/// How a state dict is loaded.
struct LoadOptions {
  bool low_cpu_mem_usage = false;        ///< keeps views that have an owner instead of copying them
  bool strict = true;                    ///< missing and unexpected keys are errors
  bool ignore_mismatched_sizes = false;  ///< tensors of another shape are left out and count as missing
};

/// What was loaded, and what was not.
struct LoadReport {
  std::vector<std::string> loaded, missing_keys, unexpected_keys, mismatched_keys, cast_keys, warnings;
};

namespace detail {

/// Where one key of a state dict goes.
struct LoadTarget {
  std::string key;  ///< as reports name it
  Dtype dtype;
  Shape shape;
  std::function<void(const TensorView&, bool may_borrow)> write;  ///< null: it can only be read
  bool is_required = true;
};

/// Loads all or nothing: every check is made before the first byte moves.
template <class = OnDemand>
class Loader {
 public:
  /// `source` is what should belong to the tensors: "config", "model".
  Loader(const LoadOptions& options, std::string what, std::string source)
      : options_(options), what_(std::move(what)), source_(std::move(source)) {}

  void add(LoadTarget target, const std::vector<std::string>& other_keys = {}) {
    places_.add(target.key, targets_.size());
    targets_.push_back(std::move(target));
    add_spellings(other_keys);
  }
  /// Other keys of the target added last.
  void add_spellings(const std::vector<std::string>& keys) {
    for (const std::string& key : keys) places_.add(key, targets_.size() - 1);
  }
  /// Another spelling of the target added last, which counts only where that one's key is missing.
  void add_beside(const std::string& key) { beside_.add(key, targets_.size() - 1); }
  /// A key that may stand in the state dict and is not used.
  void accept(std::string key) { places_.add(std::move(key), unused); }
  /// The same, of an adapter: the report says that it was left out.
  void leave_out(std::string key) { places_.add(std::move(key), left_out); }
  /// Keys of what was added so far, below other names of their modules. Of several the latest counts, as in torch.
  void add_again(const std::vector<SecondKey>& keys) {
    last_name_ = std::max(places_.add_again(keys, last_name_), beside_.add_again(keys, last_name_));
  }

  [[nodiscard]] LoadReport load(const StateDict& state_dict) && {
    std::vector<Source> sources(targets_.size());
    for (const auto& [key, view] : state_dict) {
      const std::string bare(strip_peft_prefix(key));
      const KeyPlaces::Place* place = places_.find(key);
      if (!place) place = places_.find(bare);
      if (place) {
        if (place->target == left_out) report_.warnings.push_back("'" + key + "' is an adapter's and was left out");
        else if (place->target != unused) check(key, view, *place, sources);
      } else if (const auto* beside = beside_.find(bare)) {
        const std::string& first = targets_[beside->target].key;
        if (!state_dict.contains(first) && !state_dict.contains(std::string(peft_prefix) + first))
          check(key, view, *beside, sources);
      } else {
        report_.unexpected_keys.push_back(key);
      }
    }
    for (std::size_t i = 0; i < targets_.size(); ++i)
      if (!sources[i].view && targets_[i].is_required) report_.missing_keys.push_back(targets_[i].key);
    refuse();
    for (std::size_t i = 0; i < targets_.size(); ++i) {
      if (!sources[i].view) continue;
      targets_[i].write(*sources[i].view, options_.low_cpu_mem_usage);
      report_.loaded.push_back(targets_[i].key);
      if (sources[i].view->dtype != targets_[i].dtype) report_.cast_keys.push_back(targets_[i].key);
    }
    return std::move(report_);
  }

 private:
  static constexpr std::size_t unused = std::size_t(-1), left_out = std::size_t(-2);
  struct Source {
    const TensorView* view = nullptr;
    const std::string* key = nullptr;
    std::size_t name = 0;
  };

  void check(const std::string& key, const TensorView& view, const KeyPlaces::Place& place, std::vector<Source>& sources) {
    const LoadTarget& target = targets_[place.target];
    Source& source = sources[place.target];
    if (source.view && source.name == place.name)
      fail<StateDictError>("two keys of the state dict mean '" + target.key + "', one of them '" + key + "'",
                           "bare and prefixed keys, or keys with and without the adapter's name, name one tensor", "remove one");
    if (!std::equal(view.shape.begin(), view.shape.end(), target.shape.begin(), target.shape.end())) {
      mismatches_.push_back("'" + key + "' is " + to_string(std::span<const Index>(view.shape)) + ", expected " +
                            to_string(target.shape));
      report_.mismatched_keys.push_back(key);
      return;
    }
    if (!is_floating(view.dtype))
      fail<StateDictError>("'" + key + "' holds " + std::string(tag_of(view.dtype)), "parameters are floating-point numbers",
                           "save it in F32, F16, BF16 or F64");
    if (view.device() == Device::meta)
      fail<MetaError>("'" + key + "' has no bytes: it is on the meta device", "its model was never loaded or initialised",
                      "load that model first");
    if (!target.write)
      fail<StateDictError>("'" + target.key + "' can only be read", "the layer's traits answer a const or a temporary view of it",
                           "answer a writable view where the layer is not const, or leave the key out");
    const Source other = source;
    if (!other.view || other.name < place.name) source = {&view, &key, place.name};
    if (other.view && (other.view->dtype != view.dtype || !std::equal(view.data, view.data + view.bytes(), other.view->data)))
      report_.warnings.push_back("'" + *other.key + "' and '" + key + "' name one tensor and hold other values: '" + *source.key +
                                 "', which comes later in the model, counts");
  }

  void refuse() const {
    const std::string check = "check that " + source_ + " and weights belong together";
    if (!mismatches_.empty() && !options_.ignore_mismatched_sizes)
      fail<StateDictError>("shapes do not fit " + what_ + ": " + some(mismatches_),
                           "the weights were made with another " + source_, check + ", or set ignore_mismatched_sizes");
    if (!options_.strict) return;
    if (!report_.unexpected_keys.empty())
      fail<StateDictError>("unexpected keys for " + what_ + ": " + some(report_.unexpected_keys), "nothing in the model takes them",
                           check + ", or set strict = false to leave them out");
    if (!report_.missing_keys.empty())
      fail<StateDictError>("missing keys for " + what_ + ": " + some(report_.missing_keys),
                           "these parameters would keep the values that they have",
                           check + ", or set strict = false to keep them");
  }

  [[nodiscard]] static std::string some(const std::vector<std::string>& keys) {
    constexpr std::size_t shown = 5;
    if (keys.size() <= shown) return join(keys, ", ");
    return join(std::vector<std::string>(keys.begin(), keys.begin() + shown), ", ") + " and " +
           std::to_string(keys.size() - shown) + " more";
  }

  LoadOptions options_;
  std::string what_, source_;
  std::vector<LoadTarget> targets_;
  KeyPlaces places_, beside_;
  std::size_t last_name_ = 0;
  std::vector<std::string> mismatches_;
  LoadReport report_;
};

/// Keys that PEFT writes beside an adapter's own, and that mean the base: accepted where they belong to it.
template <class = OnDemand>
void accept_base_keys(const ModelSites& model, const AdapterParts& parts, Loader<>& loader) {
  for (std::size_t i = 0; i < model.sites.size(); ++i)
    // with bias = all, PEFT writes the original's biases of a saved module too
    if (parts.at[i] && parts.at[i]->copy)
      loader.accept(join_path(copied_module(*model.sites[i], "original_module", parts.at[i]->saved_above), "bias"));
}

/// The shapes of a model's embedding tables.
template <class = OnDemand>
[[nodiscard]] std::vector<Shape> embedding_shapes(const ModelSites& model) {
  std::vector<Shape> shapes;
  for (const ModelNode& node : model.nodes) {
    if (!node.is_layer || node.kind != LayerKind::embedding) continue;
    if (node.site >= 0) {
      for (const BaseTensor& tensor : model.sites[std::size_t(node.site)]->tensors())
        if (tensor.key == "weight") shapes.push_back(tensor.shape);
    } else {
      for (const BaseTensor& tensor : model.plain)
        if (tensor.key == join_path(node.path, "weight")) shapes.push_back(tensor.shape);
    }
  }
  return shapes;
}

/// PEFT saves embeddings and heads whole beside an adapter (`save_embedding_layers`: of targets, or where the
/// vocabulary grew), and loads them over the base. Of other layers only what has an embedding's shape is taken.
/// Calls take(key, the base's tensor, the site's table or null) for each of them in the state dict.
template <class Take>
void for_each_whole_embedding(const ModelSites& model, const AdapterParts& parts, const StateDict& state_dict, Take take) {
  const std::vector<Shape> embeddings = embedding_shapes(model);
  const auto offer = [&](const std::string& key, BaseTensor tensor, bool is_target, const SiteTable* table) {
    const bool is_embedding = std::find(embeddings.begin(), embeddings.end(), tensor.shape) != embeddings.end();
    if (!is_target && !is_embedding) return;
    if (state_dict.contains(key) || state_dict.contains(std::string(peft_prefix) + key)) take(key, std::move(tensor), table);
  };
  for (std::size_t i = 0; i < model.sites.size(); ++i) {
    const AnySite& site = *model.sites[i];
    const SiteAdapter* here = parts.at[i];
    if (here && here->copy) continue;
    const bool is_target = here && here->state;
    for (const BaseTensor& tensor : site.tensors())
      if (tensor.key == "weight")
        offer(join_path(join_path(site.path(), is_target ? "base_layer" : here && here->tokens ? token_base : ""), "weight"), tensor,
              is_target, site.table());
  }
  for (const BaseTensor& tensor : model.plain)
    if (last_segment(tensor.key) == "weight") offer(tensor.key, tensor, false, nullptr);
}

/// A loader for the tensors of an adapter, wherever they stand.
template <class = OnDemand>
[[nodiscard]] Loader<> adapter_loader(const ModelSites& model, const AdapterParts& parts, const LoadOptions& options) {
  Loader loader(options, "adapter '" + parts.name + "'", "config");
  for (AdapterSlot& slot : adapter_slots(model, parts)) {
    loader.add({std::move(slot.key), slot.dtype, slot.shape, std::move(slot.write)}, slot.other_keys);
    if (!slot.key_beside.empty()) loader.add_beside(slot.key_beside);
  }
  accept_base_keys(model, parts, loader);
  return loader;
}

/// Lets the keys of an adapter, and of what is saved beside it, stand under every name that their modules have.
template <class = OnDemand>
void add_second_names(const ModelSites& model, const AdapterParts& parts, Loader<>& loader) {
  const std::vector<SecondKeys> all = second_keys(model, parts);
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::vector<SecondKey> keys = all[i].keys;
    keys.push_back({model.second_names[i].first, model.second_names[i].path});
    loader.add_again(keys);
  }
}

/// Lets an adapter's keys stand as they do in memory, where its sites are in modules that others save whole.
template <class = OnDemand>
void add_keys_in_saved_modules(const ModelSites& model, const AdapterParts& parts, const StateDict& state_dict, Loader<>& loader) {
  const auto is_in_wrapper = [](const StateDict::value_type& entry) {
    const auto parts_of_key = segments(entry.first);
    return std::find(parts_of_key.begin(), parts_of_key.end(), "original_module") != parts_of_key.end();
  };
  if (std::none_of(state_dict.begin(), state_dict.end(), is_in_wrapper)) return;  // no look at every adapter of the model then
  const WrappedModules modules = wrapped_modules(model);
  for (const SavedModule& saved : saved_modules(model)) {
    if (std::any_of(saved.copies.begin(), saved.copies.end(), [&](const auto& copy) { return copy.name == parts.name; })) continue;
    loader.add_again({{saved.path, modules.within(saved.path)}});
    for (const SavedModule::Copy& copy : saved.copies)
      loader.add_again({{saved.path, join_path(modules.inside(saved.path), "modules_to_save." + copy.name)}});
  }
}

/// Both ends of a tie stand in the file. Where they differ PEFT keeps what it reads last, the head's.
template <class = OnDemand>
void settle_ties(const ModelSites& model, const AdapterParts& parts, LoadReport& report) {
  for (std::size_t head = 0; head < parts.at.size(); ++head) {
    const SiteAdapter* at_head = parts.at[head];
    if (!at_head || !at_head->state || at_head->tied_to.empty()) continue;
    for (std::size_t site = 0; site < parts.at.size(); ++site)
      if (parts.at[site] && parts.at[site]->state && model.sites[site]->path() == at_head->tied_to)
        if (tie_factors(*parts.at[site]->state, *at_head->state, true))
          report.warnings.push_back("the adapter of '" + model.sites[head]->path() + "' is tied to that of '" + at_head->tied_to +
                                    "' and was saved with other values: these were taken for both");
  }
}

/// `prepare`, where given, is called before the shapes and dtypes of what is there are looked at.
template <class = OnDemand>
LoadReport load_adapter_state(const ModelSites& model, const StateDict& state_dict, std::string_view adapter_name,
                              const LoadOptions& options,
                              void (*prepare)(const ModelSites&, const AdapterParts&, const StateDict&) = nullptr) {
  const auto record = need_record(model, adapter_name);
  check_not_merged(model, *record, "set_peft_model_state_dict");
  share_records(model);
  const AdapterParts parts = parts_of(model, *record);
  NestingGuard nesting(model, parts, state_dict);
  PruningGuard pruning(model, *record, parts, state_dict);
  if (prepare) prepare(model, parts, state_dict);
  Loader<> loader = adapter_loader(model, parts, options);
  std::vector<std::string> whole;
  for_each_whole_embedding(model, parts, state_dict, [&](const std::string& key, BaseTensor tensor, const SiteTable* table) {
    check_base_is_pristine(table, "set_peft_model_state_dict");
    whole.push_back(key);
    loader.add({key, tensor.dtype, tensor.shape, std::move(tensor.write), false});
  });
  add_second_names(model, parts, loader);
  add_keys_in_saved_modules(model, parts, state_dict, loader);
  LoadReport report = std::move(loader).load(state_dict);
  nesting.keep();
  if (pruning.has_pruned())
    report.warnings.push_back("adapter '" + parts.name + "' has only the ranks that rank_pattern kept from now on, as its state dict: "
                              "make its optimiser anew");
  pruning.keep();
  settle_ties(model, parts, report);
  for (const std::string& key : whole)
    if (std::find(report.loaded.begin(), report.loaded.end(), key) != report.loaded.end())
      report.warnings.push_back("'" + key + "' was saved beside the adapter and replaces the base's, for all adapters");
  return report;
}
GRAFT_SHARED_FUNCTION(load_adapter_state<>)
}  // namespace detail

/// Loads an adapter that was injected before, from bare or prefixed keys: PEFT's `set_peft_model_state_dict`.
/// Strict by default; nothing has changed when it throws. The pruned state dict of an AdaLoRA adapter takes the ranks that its
/// `rank_pattern` gave up out of memory, where they still are.
/// @throws AdapterError for an unknown adapter, StateDictError for keys or shapes that do not fit, MergeError for a
/// merged adapter.
template <class M>
LoadReport set_peft_model_state_dict(M& model, const StateDict& state_dict, std::string_view adapter_name = "default",
                                     const LoadOptions& options = {}) {
  return detail::load_adapter_state(sites_of(model), state_dict, adapter_name, options);
}

}  // namespace graft
