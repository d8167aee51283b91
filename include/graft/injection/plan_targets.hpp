#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/keys.hpp"
#include "../core/sort.hpp"
#include "attention_sites.hpp"
#include "nested_keys.hpp"
#include "plan_saved.hpp"
#include "report.hpp"
#include "targets.hpp"

namespace graft::detail {

/// The sites that a config chooses, before anything is said about ranks.
struct TargetPlan {
  std::vector<std::size_t> sites;
  std::vector<std::size_t> copied;
  std::vector<std::string> saved_modules;  ///< that are copied as a whole
  InjectReport report;
};

inline void report_idle_pattern(const char* field, const std::string& key, bool is_error, InjectReport& report) {
  if (is_error)
    fail<TargetError>(std::string(field) + " has a key that matches no target: '" + key + "'",
                      "strict_targets asks for every key to be of use", "correct the key, or remove it");
  report.warnings.push_back(std::string(field) + " has a key that matches no target: '" + key + "'");
}

/// A pattern map in use: the first match wins, and what never wins is reported.
template <class V>
class PatternUse {
 public:
  PatternUse(const PatternMap<V>& map, const char* field) : map_(map), field_(field), is_used_(map.size()) {
    for (const auto& [key, value] : map) patterns_.emplace_back(key);
  }
  [[nodiscard]] std::optional<V> value(std::string_view path) {
    std::optional<V> first;
    for (std::size_t i = 0; i < patterns_.size(); ++i) {
      if (!patterns_[i].matches(path)) continue;
      is_used_[i] = true;
      if (!first) first = map_[i].second;
    }
    return first;
  }
  void report_idle(bool is_error, InjectReport& report) const {
    for (std::size_t i = 0; i < is_used_.size(); ++i)
      if (!is_used_[i]) report_idle_pattern(field_, map_[i].first, is_error, report);
  }

 private:
  const PatternMap<V>& map_;
  const char* field_;
  std::vector<ModulePattern> patterns_;
  std::vector<bool> is_used_;
};

/// Chooses the sites of one injection.
class TargetPlanner {
 public:
  /// `with_parameters`: the config takes parameters too, and need not take modules.
  TargetPlanner(const ModelSites& model, const PeftConfig& config, const InjectOptions& options, bool with_parameters)
      : model_(model),
        type_(PeftType(config.index())),
        options_(options),
        fields_(target_fields(config)),
        matcher_(fields_),
        with_parameters_(with_parameters) {
    by_path_ = sorted_order(model.nodes.size(), [&](std::size_t i, std::size_t j) { return model.nodes[i].path < model.nodes[j].path; });
  }

  [[nodiscard]] TargetPlan make() && {
    if (!fields_.targets->is_set() && !with_parameters_)
      fail<ConfigError>("target_modules is not set", "for a model of yours there is no default list of targets",
                        "name the modules, or pass graft::all_linear");
    SavedModules saved = SavedModulesPlanner(model_, *fields_.modules_to_save, options_, plan_.report).make();
    plan_.copied = std::move(saved.sites);
    plan_.saved_modules = std::move(saved.modules);
    if (options_.state_dict) take_from_state_dict();
    else if (fields_.targets->kind() == TargetModules::Kind::all_linears) take_all_linear();
    else take_matches();
    if (!matcher_.peft_agrees())
      plan_.report.warnings.push_back(
          "layers_to_transform counts the layers of a container at the top level: PEFT would find no layer number there; "
          "set layers_pattern for a config that Python understands");
    if (plan_.sites.empty() && !with_parameters_) nothing_matched();
    if (plan_.sites.empty() && !plan_.report.unmatched_targets.empty())
      plan_.report.warnings.push_back("target_modules are set, and no module matches: only parameters are adapted");
    if (const auto idle = matcher_.idle_layers(); !options_.state_dict && !idle.empty())
      plan_.report.warnings.push_back("layers_to_transform names layers without a target: " + join(idle, ", "));
    for (const std::size_t site : plan_.sites)
      if (std::find(plan_.copied.begin(), plan_.copied.end(), site) != plan_.copied.end())
        fail<TargetError>("'" + model_.sites[site]->path() + "' is a target and a module to save",
                          "a module that is saved whole has no adapter of the same name", "take it out of one of them");
    return std::move(plan_);
  }

 private:
  [[nodiscard]] const ModelNode* node_of(std::string_view path) const {
    const auto place = std::lower_bound(by_path_.begin(), by_path_.end(), path,
                                        [&](std::size_t node, std::string_view wanted) { return model_.nodes[node].path < wanted; });
    return place != by_path_.end() && model_.nodes[*place].path == path ? &model_.nodes[*place] : nullptr;
  }

  void take_matches() {
    const std::vector<std::string>& names = fields_.targets->names();
    std::vector<bool> is_used(names.size()), is_saved(names.size());
    const auto mark = [&](std::vector<bool>& entries, std::string_view path) {
      for (std::size_t i = 0; i < names.size(); ++i)
        if (matches(path, names[i])) entries[i] = true;
    };
    for (const std::string_view path : with_containers(model_.nodes)) {
      if (path.empty() || is_inside_adapted_at(path)) continue;
      if (is_in_saved_module(path, *fields_.modules_to_save)) {
        mark(is_saved, path);
      } else if (matcher_.is_excluded(path)) {
        excluded_a_target_ |= match_index(*fields_.targets, path) >= 0;
        mark(is_used, path);
      } else if (matcher_.match(path) >= 0) {
        mark(is_used, path);
        take(path);
      }
    }
    for (std::size_t i = 0; i < names.size(); ++i)
      if (is_saved[i] && !is_used[i]) refuse_saved_target(names[i]);
    report_unmatched(is_used, is_saved);
    report_idle_exclusion();
  }

  void report_idle_exclusion() {
    if (fields_.excluded->names().empty() && fields_.excluded->kind() != TargetModules::Kind::regex) return;
    for (const std::string_view path : with_containers(model_.nodes))
      if (!path.empty() && matcher_.is_excluded(path)) return;
    plan_.report.warnings.push_back("exclude_modules excludes nothing: no module of the model matches it");
  }
  /// PEFT passes over such an entry without a word, so its own files may have one.
  void refuse_saved_target(const std::string& name) {
    const std::string problem = "'" + name + "' is a target and a module to save";
    const std::string why = "a module that is saved whole is trained whole: it gets no adapter beside its copy";
    if (options_.file) plan_.report.warnings.push_back(problem + ": " + why);
    else fail<TargetError>(problem, why, "take it out of target_modules or out of modules_to_save");
  }

  void take_all_linear() {
    for (const ModelNode& node : model_.nodes) {
      if (!node.is_layer || node.kind != LayerKind::linear || node.is_attention || is_inside_adapted_at(node.path)) continue;
      if (is_in_saved_module(node.path, *fields_.modules_to_save) || matcher_.is_excluded(node.path)) continue;
      if (node.site < 0) plan_.report.without_room.push_back(node.path);
      else if (model_.sites[std::size_t(node.site)]->permits(type_)) plan_.sites.push_back(std::size_t(node.site));
      else plan_.report.without_room.push_back(node.path);
    }
    report_idle_exclusion();
  }

  void take_from_state_dict() {
    std::vector<std::string_view> named;
    for (const auto& [key, view] : *options_.state_dict) {
      std::string_view module = adapted_module_of(key);
      if (module.empty() || !is_of_method(module.data() + module.size() + 1)) continue;
      // the model's own paths may begin with what is PeftModel's prefix elsewhere
      const std::string_view whole(key.data(), std::size_t(module.data() + module.size() - key.data()));
      if (node_of(whole)) module = whole;
      if (!node_of(module)) module = adapted_attention(model_, without_base_layers(module).path);
      if (!module.empty()) named.push_back(module);
    }
    sort_stably(named, std::less<>());
    named.erase(std::unique(named.begin(), named.end()), named.end());
    for (const std::string_view path : with_containers(model_.nodes)) {
      if (is_inside_adapted_at(path)) continue;
      const bool is_named = std::binary_search(named.begin(), named.end(), path);
      const bool is_target = !path.empty() && !matcher_.is_excluded(path) && matcher_.match(path) >= 0;
      if (is_named) take(path);
      if (is_named != is_target && !fields_.targets->names().empty())
        plan_.report.warnings.push_back("the state dict " + std::string(is_named ? "names '" : "does not name '") +
                                        std::string(path) + "', the config's target_modules " +
                                        (is_named ? "do not" : "do"));
    }
    for (const std::string_view module : named)
      if (!node_of(module) || is_inside_adapted_at(module)) plan_.report.unmatched_targets.emplace_back(module);
    refuse_unmatched();
  }

  /// Of a dict with the keys of several methods each takes its own, as in PEFT.
  [[nodiscard]] bool is_of_method(std::string_view parameter) const {
    return parameter.starts_with("ia3_") == (type_ == PeftType::ia3);
  }

  /// An output projection whose attention is adapted: PEFT passes over what stands inside of its layers.
  [[nodiscard]] bool is_inside_adapted_at(std::string_view path) const {
    const ModelNode* node = node_of(path);
    return node && node->site >= 0 && is_inside_adapted(*model_.sites[std::size_t(node->site)]);
  }

  /// A matched path must be a site that permits the method.
  void take(std::string_view path) {
    const ModelNode* node = node_of(path);
    if (!node || !node->is_layer || node->kind == LayerKind::norm) {
      fail<TargetError>("the target '" + std::string(path) + "' is a " + (node ? std::string(node->type) : "container"),
                        "adapters fit linear, embedding and convolution layers",
                        "name the layers in it, or exclude it with exclude_modules");
    }
    if (node->site < 0)
      fail<TargetError>("the target '" + std::string(path) + "' is a plain " + std::string(node->type) + " without room for adapters",
                        "a layer keeps the type it was declared with",
                        "declare it graft::Adaptable<" + std::string(node->type) + "<…>>, or exclude it with exclude_modules");
    const AnySite& site = *model_.sites[std::size_t(node->site)];
    const std::string method(peft_type_name(type_));
    if (!site.lists(type_))
      fail<TargetError>("the site '" + std::string(path) + "' has no room for " + method,
                        "its declaration lists the methods that it permits", "add the method to its graft::Adapted<…> list");
    if (!site.permits(type_))
      fail<TargetError>(method + " does not fit the layer '" + std::string(path) + "', a " + std::string(node->type),
                        "AdaLoRA and IA3 fit linear layers and convolutions, LoRA embeddings and attentions too",
                        "exclude it with exclude_modules, or use LoRA");
    take_with_output(model_, std::size_t(node->site), plan_.sites);
  }

  void report_unmatched(const std::vector<bool>& is_used, const std::vector<bool>& is_saved) {
    for (std::size_t i = 0; i < is_used.size(); ++i) {
      if (is_used[i] || is_saved[i]) continue;
      const std::string& target = fields_.targets->names()[i];
      plan_.report.unmatched_targets.push_back(target);
      if (looks_like_regex(target)) plan_.report.warnings.push_back(regex_hint(target));
      for (std::string& near : nearest_names(target, with_containers(model_.nodes)))
        if (std::find(plan_.report.near_misses.begin(), plan_.report.near_misses.end(), near) == plan_.report.near_misses.end())
          plan_.report.near_misses.push_back(std::move(near));
    }
    refuse_unmatched();
  }
  void refuse_unmatched() const {
    if (options_.strict_targets && !plan_.report.unmatched_targets.empty() && !plan_.sites.empty())
      fail<TargetError>("these targets match no module: " + join(plan_.report.unmatched_targets, ", "),
                        "strict_targets asks for every target to be of use", remedy());
  }

  [[nodiscard]] static bool looks_like_regex(std::string_view name) {
    return name.find_first_of("*+?[](){}|\\^$") != name.npos;
  }
  [[nodiscard]] static std::string regex_hint(const std::string& name) {
    return "the entry '" + name + "' looks like a regular expression: entries of a list are names; pass "
           "graft::regex(\"…\") instead of a list";
  }

  [[nodiscard]] std::string remedy() const {
    std::string hint;
    for (const std::string& name : plan_.report.unmatched_targets)
      if (hint.empty() && looks_like_regex(name)) hint = regex_hint(name);
    if (!plan_.report.near_misses.empty())
      hint += (hint.empty() ? "did you mean " : "; did you mean ") + join(plan_.report.near_misses, ", ") + "?";
    if (!hint.empty()) return hint;
    if (excluded_a_target_) return "take what should be adapted out of exclude_modules";
    std::vector<std::string> sites;
    for (const auto& site : model_.sites)
      if (sites.size() < 8) sites.push_back(site->path());
    return sites.empty() ? "declare the layers to adapt as graft::Adaptable<…>" : "the model's sites are " + join(sites, ", ");
  }

  [[noreturn]] void nothing_matched() const {
    if (options_.state_dict) {
      const std::vector<std::string>& named = plan_.report.unmatched_targets;
      fail<TargetError>("the state dict names no module of this model to adapt by " + std::string(peft_type_name(type_)),
                        named.empty() ? "it has no key of such an adapter, as \"q_proj." + std::string(type_ == PeftType::ia3 ? "ia3_l" : "lora_A") + "\""
                                      : "its keys are of " + join(named, ", "),
                        "pass the state dict of an adapter for this model, or none: then target_modules choose");
    }
    std::string why = "a name matches a module whose path is it or ends with it";
    const std::vector<std::string>& idle = plan_.report.unmatched_targets;
    if (excluded_a_target_)
      why = "all modules that match are excluded by exclude_modules" +
            (idle.empty() ? std::string() : ", and no module is called " + join(idle, " or "));
    else if (fields_.layers_to_transform && !fields_.layers_to_transform->empty())
      why += ", and layers_to_transform keeps only some layers (see layers_pattern)";
    else if (!plan_.report.without_room.empty())
      why = "the linear layers are plain: " + join(plan_.report.without_room, ", ");
    const std::string wanted = fields_.targets->kind() == TargetModules::Kind::regex        ? "regex " + fields_.targets->regex().pattern
                               : fields_.targets->kind() == TargetModules::Kind::all_linears ? "all_linear"
                                                                                            : "{" + join(fields_.targets->names(), ", ") + "}";
    fail<TargetError>("no module matches target_modules = " + wanted, why, remedy());
  }

  const ModelSites& model_;
  PeftType type_;
  const InjectOptions& options_;
  TargetFields fields_;
  TargetMatcher matcher_;
  std::vector<std::size_t> by_path_;  // the numbers of the nodes
  bool with_parameters_ = false, excluded_a_target_ = false;
  TargetPlan plan_;
};

[[nodiscard]] inline TargetPlan plan_targets(const ModelSites& model, const PeftConfig& config, const InjectOptions& options,
                                             bool with_parameters = false) {
  return TargetPlanner(model, config, options, with_parameters).make();
}

}  // namespace graft::detail
