#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/keys.hpp"
#include "../core/sort.hpp"
#include "plan_targets.hpp"
#include "records.hpp"

namespace graft::detail {

/// A parameter that a config names by itself (`target_parameters`).
struct TargetedParameter {
  std::size_t site;
  std::string name;    ///< "weight"
  std::string key;     ///< its whole path, which patterns are matched against: "experts.gate_up_proj"
  unsigned depth = 0;  ///< how many wrappers of the module's further parameters PEFT puts around its own
};

/// Chooses the parameters of one injection. The parameters of a module are wrapped in the order in which it lists them,
/// the first innermost. @throws TargetError, ConfigError for what PEFT refuses too
class ParameterPlanner {
 public:
  /// `replaced` is the adapter that will go, or null.
  ParameterPlanner(const ModelSites& model, const LoraConfig& config, const InjectOptions& options, const AdapterRecord* replaced)
      : model_(model), config_(config), options_(options), replaced_(replaced), is_used_(config.target_parameters.size()) {}

  [[nodiscard]] std::vector<TargetedParameter> make(InjectReport& report) && {
    if (config_.target_parameters.empty()) return {};
    if (options_.state_dict)
      fail<ConfigError>("target_parameters cannot go with a state dict that chooses the targets",
                        "its keys do not say which parameter of a module they mean; PEFT refuses it too",
                        "inject without InjectOptions::state_dict, and load the state dict afterwards");
    std::size_t plain = 0;
    for (std::size_t site = 0; site < model_.sites.size(); ++site) {
      for (; plain < model_.plain_before[site]; ++plain) offer(model_.plain[plain]);
      offer(site);
    }
    for (; plain < model_.plain.size(); ++plain) offer(model_.plain[plain]);
    report_unmatched(report);
    if (taken_.empty()) return {};
    check_config();
    check_others();
    for (std::size_t i = taken_.size(); i-- > 0;)
      for (std::size_t next = i + 1; next < taken_.size(); ++next)
        taken_[i].depth += parent_path(taken_[next].key) == parent_path(taken_[i].key);
    return std::move(taken_);
  }

  /// What the targeted modules stand against. @throws TargetError
  static void check_modules(const ModelSites& model, const std::vector<TargetedParameter>& parameters, const TargetPlan& targets) {
    for (const TargetedParameter& one : parameters) {
      if (std::find(targets.sites.begin(), targets.sites.end(), one.site) != targets.sites.end())
        refuse_module(one.key, "'" + model.sites[one.site]->path() + "' is one of the target modules");
      for (const std::size_t site : targets.sites)
        if (model.sites[site]->outer() == model.sites[one.site].get())
          fail<TargetError>("the targets name the parameter '" + one.key + "' and '" + model.sites[site]->path() + "' behind it",
                            "in PEFT an adapter of the output projection has no effect where the attention is wrapped",
                            "name one of them, or the attention in target_modules");
      if (std::find(targets.copied.begin(), targets.copied.end(), one.site) != targets.copied.end())
        fail<TargetError>("the parameter '" + one.key + "' is a target, and its module is to be saved whole",
                          "a module that is saved whole has no adapter of the same name", "take it out of one of them");
    }
  }

 private:
  [[nodiscard]] bool matches_key(std::string_view key) {
    bool any = false;
    for (std::size_t i = 0; i < is_used_.size(); ++i)
      if (matches(key, config_.target_parameters[i])) is_used_[i] = any = true;
    keys_.emplace_back(key);
    return any;
  }

  void offer(std::size_t site_number) {
    const AnySite& site = *model_.sites[site_number];
    if (site.kind() == LayerKind::parameter) {
      const Shape shape = site.facts().stack.stored;
      if (matches_key(site.path())) take(site_number, std::string(last_segment(site.path())), site.path(), shape.rank());
      return;
    }
    bool has_weight = false;
    for (const BaseTensor& tensor : site.tensors()) {
      has_weight = has_weight || tensor.key == "weight";
      const std::string key = join_path(site.path(), tensor.key);
      if (!matches_key(key)) continue;
      if (tensor.key != "weight" && tensor.shape.rank() > 1 && tensor.storage != site.door()->storage())
        fail<TargetError>("the parameter '" + key + "' is not the weight of its layer", "the layer alone knows how it multiplies with it",
                          "name the layer's weight, or the layer in target_modules");
      take(site_number, tensor.key, key, tensor.shape.rank());
    }
    // a layer whose traits do not show its weight has one all the same
    if (const std::string key = join_path(site.path(), "weight"); !has_weight && matches_key(key)) take(site_number, "weight", key, 2);
  }

  void offer(const BaseTensor& tensor) {
    if (!matches_key(tensor.key)) return;
    check_rank(tensor.key, tensor.shape.rank());
    const std::string_view module = parent_path(tensor.key);
    for (const ModelNode& node : model_.nodes)
      if (node.path == module && node.is_layer)
        fail<TargetError>("the parameter '" + tensor.key + "' belongs to a plain " + std::string(node.type) +
                              " without room for adapters",
                          "a layer keeps the type it was declared with", "declare it graft::Adaptable<" + std::string(node.type) + "<…>>");
    fail<TargetError>("the parameter '" + tensor.key + "' has no room for adapters", "a member keeps the type it was declared with",
                      "declare it graft::Adaptable<graft::Parameter<…>>, and multiply rows by calling it");
  }

  void take(std::size_t site_number, std::string name, std::string key, std::size_t rank) {
    const AnySite& site = *model_.sites[site_number];
    const LayerFacts facts = site.facts();
    if (parent_path(key).empty())
      fail<TargetError>("the parameter '" + key + "' belongs to the model itself",
                        "PEFT replaces the module that holds a parameter, and the model has none around it",
                        "give it a module of its own");
    check_rank(key, rank);
    if (site.outer())
      fail<TargetError>("the parameter '" + key + "' is an attention's output projection's",
                        "an attention reads it past what PEFT wraps around it, so that an adapter would have no effect",
                        "name the attention, or its output projection, in target_modules");
    if (facts.packed) check_output(model_, site_number);
    if (facts.kind == LayerKind::conv)
      fail<TargetError>("the parameter '" + key + "' is a convolution's", "its dimensions are not those of a matrix or a stack of them",
                        "name the convolution in target_modules");
    if (facts.max_norm)
      fail<TargetError>("the parameter '" + key + "' of an embedding with max_norm",
                        "every lookup shortens rows of the sum of base and update, and the two are not summed here",
                        "name the embedding in target_modules");
    if (!site.permits(PeftType::lora))
      fail<TargetError>("'" + site.path() + "' has no room for LORA", "its declaration lists the methods that it permits",
                        "add graft::Lora to its graft::Adapted<…> list");
    if (const SiteTable* table = site.table())
      for (const SiteEntry& entry : table->entries)
        if (entry.record.get() != replaced_ && entry.state() && !entry.state()->is_of_parameter())
          refuse_module(key, "adapter '" + entry.record->name() + "' adapts '" + site.path() + "' as a module");
    taken_.push_back({site_number, std::move(name), std::move(key)});
  }

  [[noreturn]] static void refuse_module(const std::string& key, const std::string& why) {
    fail<TargetError>("the parameter '" + key + "' is a target, and so is its layer", why + "; PEFT wraps one or the other",
                      "leave the layer out of target_modules, or the parameter out of target_parameters");
  }
  static void check_rank(const std::string& key, std::size_t rank) {
    if (rank == 2 || rank == 3) return;
    fail<TargetError>("the parameter '" + key + "' has " + std::to_string(rank) + (rank == 1 ? " dimension" : " dimensions"),
                      "LoRA makes a product of two matrices: of a weight (out, in), or of each of a stack (experts, out, in)",
                      "name parameters of two or three dimensions");
  }

  void check_config() const {
    const auto refuse = [&](bool is_set, std::string_view field, const char* why) {
      if (is_set)
        fail<ConfigError>("'" + std::string(field) + "' is set, and target_parameters takes '" + taken_.front().key + "'", why,
                          "leave it at its default; PEFT refuses it too");
    };
    refuse(config_.lora_dropout != 0, "lora_dropout", "an update of a weight has no input of its own that could be dropped");
    refuse(config_.fan_in_fan_out, "fan_in_fan_out", "a parameter is taken as it is stored");
    refuse(config_.lora_bias, "lora_bias", "an update of a weight has no bias");
    refuse(config_.use_dora, "use_dora", "DoRA scales what a layer makes, and a parameter is no layer");
    const InitScheme scheme = init_scheme(config_.init_lora_weights);
    const bool is_plain = scheme == InitScheme::identity || scheme == InitScheme::random || scheme == InitScheme::gaussian;
    if (is_plain || (options_.file && !takes_from_base(scheme))) return;
    for (const TargetedParameter& one : taken_)
      if (const LayerFacts facts = model_.sites[one.site]->facts(); facts.kind != LayerKind::linear || facts.transposed || facts.packed)
        fail<ConfigError>("init_lora_weights \"" + config_.init_lora_weights.scheme() + "\", and target_parameters takes '" + one.key + "'",
                          "the schemes are made for linear layers (out, in)", "use true, false or \"gaussian\"");
  }

  /// PEFT tells parameters of a module by their place in the nesting, which is one for all adapters.
  void check_others() const {
    const std::vector<std::string> own = sorted_names(config_.target_parameters);
    for (const auto& record : records_of(model_)) {
      if (record.get() == replaced_) continue;
      const auto generation = record->generation.pin();  // a hot-swap may be going on
      const auto* other = std::get_if<LoraConfig>(&generation->config);
      if (!other || other->target_parameters.empty()) continue;
      const std::vector<std::string> theirs = sorted_names(other->target_parameters);
      if (theirs != own)
        fail<ConfigError>("target_parameters is {" + join(own, ", ") + "}, that of adapter '" + record->name() +
                              "' {" + join(theirs, ", ") + "}",
                          "files tell the parameters of a module by their order alone, which all adapters of a model share",
                          "target the same parameters with all of them");
    }
  }

  [[nodiscard]] static std::vector<std::string> sorted_names(std::vector<std::string> names) {
    sort_stably(names, std::less<>());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return names;
  }

  void report_unmatched(InjectReport& report) const {
    std::vector<std::string> idle;
    std::vector<std::string_view> keys;
    for (const std::string& key : keys_) keys.push_back(key);
    for (std::size_t i = 0; i < is_used_.size(); ++i) {
      if (is_used_[i]) continue;
      idle.push_back(config_.target_parameters[i]);
      for (std::string& near : nearest_names(idle.back(), keys))
        if (std::find(report.near_misses.begin(), report.near_misses.end(), near) == report.near_misses.end())
          report.near_misses.push_back(std::move(near));
    }
    for (const std::string& name : idle) report.unmatched_targets.push_back(name);
    const std::string fix = report.near_misses.empty() ? "name a parameter by its path or the end of it: experts.gate_up_proj"
                                                       : "did you mean " + join(report.near_misses, ", ") + "?";
    const TargetModules& modules = config_.target_modules;
    const bool is_alone = !modules.is_set() || (modules.kind() == TargetModules::Kind::list && modules.names().empty());
    if (taken_.empty() && is_alone)
      fail<TargetError>("no parameter matches target_parameters = {" + join(idle, ", ") + "}",
                        "a name matches a parameter whose path is it or ends with it", fix);
    if (options_.strict_targets && !idle.empty())
      fail<TargetError>("these targets match no parameter: " + join(idle, ", "), "strict_targets asks for every target to be of use", fix);
    if (taken_.empty()) report.warnings.push_back("target_parameters are set, and no parameter matches");
  }

  const ModelSites& model_;
  const LoraConfig& config_;
  const InjectOptions& options_;
  const AdapterRecord* replaced_;
  std::vector<bool> is_used_;
  std::vector<std::string> keys_;
  std::vector<TargetedParameter> taken_;
};

}  // namespace graft::detail
