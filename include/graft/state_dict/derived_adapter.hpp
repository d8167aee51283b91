#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "../injection/control.hpp"
#include "../injection/inject.hpp"
#include "load.hpp"
#include "site_factors.hpp"

namespace graft::detail {

using Records = std::vector<std::shared_ptr<AdapterRecord>>;

/// An adapter that was made of others: what a file of it would hold.
struct DerivedAdapter {
  PeftConfig config;
  StateDict tensors{};
};

/// What no verb that makes an adapter of others can carry over; DoRA's magnitudes only where the update stays what it is.
template <class = OnDemand>
void check_derivable(const Records& records, std::string_view verb, bool keeps_update = false) {
  const auto refuse = [&](bool is_set, std::string_view field, const char* why) {
    if (is_set)
      fail<AdapterError>(std::string(verb) + " of an adapter with " + std::string(field), why,
                         "leave the adapter out; several adapters can be active side by side");
  };
  const auto check = [&](const auto& config) {
    if constexpr (requires { config.bias; })
      refuse(config.bias != Bias::none, "bias != none",
             "trained biases belong to the base, and only one adapter may have them");
    if constexpr (requires { config.use_dora; }) {
      refuse(config.use_dora && !keeps_update, "use_dora", "DoRA scales the base weight itself, which no sum of updates does");
      refuse(!config.target_parameters.empty(), "target_parameters",
             "matrices of bare parameters are not those of a layer");
      refuse(!config.trainable_token_indices.empty(), "trainable_token_indices",
             "trained rows replace those of the base, and cannot be added up");
    }
  };
  for (const auto& record : records) std::visit(check, record->config());
}

/// The adapters of these names. @throws AdapterError for none, an unknown one or one twice.
template <class = OnDemand>
[[nodiscard]] Records need_records(const ModelSites& model, const std::vector<std::string>& names,
                                   std::string_view verb) {
  if (names.empty())
    fail<AdapterError>(std::string(verb) + " of no adapters", "there is nothing to make the new one of",
                       "name at least one");
  Records records;
  for (const std::string& name : names) {
    records.push_back(need_record(model, name));
    if (std::count(names.begin(), names.end(), name) > 1)
      fail<AdapterError>("'" + name + "' is named twice", "an adapter has one weight", "add its weights up");
  }
  return records;
}

template <class = OnDemand>
void check_new_name(const ModelSites& model, const std::string& name) {
  check_adapter_name(name);
  if (find_record(model, name))
    fail<AdapterError>("the model has an adapter '" + name + "' already", "the new one would overwrite it",
                       "choose another name, or delete_adapter() it first");
}

/// Copies of modules that the adapters keep: at most one of a module. Their names, for the config.
template <class = OnDemand>
[[nodiscard]] std::vector<std::string> take_copies(const ModelSites& model, const Records& records,
                                                   StateDict& tensors) {
  for (const auto& site : model.sites) {
    const AdapterRecord* owner = nullptr;
    for (const auto& record : records) {
      const SiteEntry* entry = entry_at(*site, *record);
      if (entry && entry->tokens())
        fail<AdapterError>("adapter " + record->name() + " has trained tokens of '" + site->path() + "'",
                           "they replace rows of the weight, and replacements cannot be added up",
                           "combine adapters without trainable_token_indices");
      if (!entry || !entry->copy()) continue;
      if (owner)
        fail<AdapterError>("adapters " + owner->name() + " and " + record->name() +
                               " both have their own copy of '" + site->path() + "'",
                           "modules_to_save replaces a module, and two replacements cannot be added up",
                           "leave one of them out");
      owner = record.get();
      for (const BaseTensor& tensor : site->tensors(entry->copy()))
        tensors.insert(join_path(site->path(), tensor.key), tensor.read());
    }
  }
  std::vector<std::string> names;
  for (const auto& record : records)
    for (const std::string& name :
         std::visit([](const auto& c) { return c.modules_to_save; }, record->config()))
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  return names;
}

/// PEFT's rule for the targets of an adapter that was made of others: lists are united, patterns joined by
/// `|`.
/// @throws AdapterError for a mix of both.
template <class = OnDemand>
[[nodiscard]] TargetModules united(const std::vector<const TargetModules*>& all,
                                   std::string_view field) {
  using Kind = TargetModules::Kind;
  std::vector<std::string> names;
  std::string pattern;
  for (const TargetModules* one : all) {
    if ((one->kind() == Kind::regex) != (all.front()->kind() == Kind::regex))
      fail<AdapterError>("the " + std::string(field) + " of some adapters are lists, of others patterns",
                         "one cannot be made of both", "inject the adapters with lists of names");
    for (const std::string& name : one->names())
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    if (one->kind() == Kind::regex) pattern += (pattern.empty() ? "(" : "|(") + one->regex().pattern + ")";
  }
  if (all.front()->kind() != Kind::regex) return TargetModules(std::move(names));
  if (all.size() == 1 || !make_regex) return *all.front();
  return make_regex(std::move(pattern));
}

template <class Config>
concept ChoosesLayers = requires(const Config& config) { config.layers_pattern; };

/// The fields that say which modules an adapter of all these is at. Where uniting them would mean other
/// modules than `paths`, the paths themselves are listed.
template <class Config>
void choose_targets(const ModelSites& model, const Records& records, const std::vector<std::string>& paths,
                    Config& config) {
  std::vector<const TargetModules*> targets;
  for (const auto& record : records)
    targets.push_back(std::visit([](const auto& c) { return &c.target_modules; }, record->config()));
  config.target_modules = united(targets, "target_modules");
  const PeftConfig& usual = records.front()->config();
  std::visit([&](const auto& first) { config.exclude_modules = first.exclude_modules; }, usual);
  if constexpr (ChoosesLayers<Config>)
    std::visit(
        [&]<class First>(const First& first) {
          if constexpr (ChoosesLayers<First>) {
            config.layers_to_transform = first.layers_to_transform;
            config.layers_pattern = first.layers_pattern;
          }
        },
        usual);
  const PeftConfig any = config;
  TargetMatcher matcher(target_fields(any));
  std::vector<std::string> meant;
  for (const auto& site : model.sites)
    if (!is_in_saved_module(site->path(), config.modules_to_save) && !matcher.is_excluded(site->path()) &&
        matcher.match(site->path()) >= 0)
      meant.push_back(site->path());
  if (meant == paths) return;
  config.target_modules = TargetModules(paths);
  config.exclude_modules = TargetModules();
  if constexpr (ChoosesLayers<Config>) {
    config.layers_to_transform.clear();
    config.layers_pattern.clear();
  }
}

/// A pattern map that gives every site its value, whatever the others are called: longer paths first, since a
/// pattern matches the end of a path too. Values that the config's own field gives are left out where they
/// can be.
template <class V>
[[nodiscard]] PatternMap<V> patterns_of(std::vector<std::pair<std::string, V>> values, V usual) {
  const auto depth = [](const auto& value) { return segment_count(value.first); };
  std::stable_sort(values.begin(), values.end(),
                   [&](const auto& a, const auto& b) { return depth(a) > depth(b); });
  PatternMap<V> patterns;
  for (const auto& one : values) {
    const bool is_caught = std::any_of(values.begin(), values.end(), [&](const auto& other) {
      return other.second != one.second && other.first != one.first &&
             ends_with_segment(one.first, other.first);
    });
    if (one.second != usual || is_caught) patterns.push_back(one);
  }
  return patterns;
}

/// Injects and loads it: frozen, and not active. What can fail does so before anything changes.
template <class = OnDemand>
InjectReport add_derived(const ModelSites& model, const DerivedAdapter& derived,
                         const std::string& name) {
  InjectReport report = inject(model, derived.config, name,
                               {.low_cpu_mem_usage = true,
                                .activate = false,
                                .state_dict = &derived.tensors,
                                .file = &derived.tensors});
  (void)load_adapter_state(model, derived.tensors, name, {});
  set_requires_grad_of(model, need_record(model, name)->id, false);
  return report;
}
GRAFT_SHARED_FUNCTION(add_derived<>)

}  // namespace graft::detail
