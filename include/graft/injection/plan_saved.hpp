#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/keys.hpp"
#include "../core/text.hpp"
#include "report.hpp"
#include "targets.hpp"

namespace graft::detail {

/// What the entries of `modules_to_save` take: modules, and the sites that are in them.
struct SavedModules {
  std::vector<std::string> modules;  ///< none is part of another
  std::vector<std::size_t> sites;
};

/// How many segments above a site the one of these modules is that it is part of.
[[nodiscard]] inline unsigned saved_above(const std::vector<std::string>& modules, std::string_view site) {
  for (const std::string& module : modules)
    if (is_key_of(site, module)) return unsigned(segment_count(site) - segment_count(module));
  return 0;
}

/// Chooses what one injection saves whole.
class SavedModulesPlanner {
 public:
  SavedModulesPlanner(const ModelSites& model, const std::vector<std::string>& names, const InjectOptions& options, InjectReport& report)
      : model_(model), names_(names), options_(options), report_(report) {}

  /// An entry takes the site of that name, or every layer of a module of that name.
  /// @throws TargetError for a module that cannot be copied whole.
  [[nodiscard]] SavedModules make() && {
    for (const std::string& name : names_) {
      bool is_used = false;
      for (const std::string_view path : with_containers(model_.nodes)) {
        if (path.empty() || !names_saved_module(path, name)) continue;
        is_used = true;
        take(path);
      }
      warn_of_plain_ends(name);
      if (!is_used) report_.warnings.push_back("modules_to_save has an entry that matches no module: '" + name + "'");
    }
    leave_out_parts();
    return std::move(saved_);
  }

 private:
  void take(std::string_view path) {
    for (const ModelNode& node : model_.nodes)
      if (node.is_layer && is_key_of(node.path, path)) take(node);
    for (const BaseTensor& tensor : model_.plain)
      if (tensor.key.size() > path.size() && is_key_of(tensor.key, path)) no_room(path, tensor.key);
    for (const SecondName& name : model_.second_names)
      if (is_key_of(name.path, path) && !is_key_of(name.first, path) && holds_tensors(name.first)) no_copy(path, name);
    if (std::find(saved_.modules.begin(), saved_.modules.end(), path) == saved_.modules.end()) saved_.modules.emplace_back(path);
  }
  void take(const ModelNode& node) {
    if (node.site < 0)
      fail<TargetError>("modules_to_save names '" + node.path + "', a plain " + std::string(node.type) + " without room for a copy",
                        "a layer keeps the type it was declared with",
                        "declare it graft::Adaptable<" + std::string(node.type) + "<…>>");
    const auto site = std::size_t(node.site);
    if (!model_.sites[site]->can_copy())
      fail<TargetError>("modules_to_save names '" + node.path + "', a " + std::string(node.type) + " that cannot be copied",
                        "the adapter keeps a whole copy of the layer, and the class has no copy constructor",
                        "give it one, or leave it out of modules_to_save");
    if (std::find(saved_.sites.begin(), saved_.sites.end(), site) == saved_.sites.end()) saved_.sites.push_back(site);
  }
  [[nodiscard]] bool holds_tensors(std::string_view path) const {
    return std::any_of(model_.sites.begin(), model_.sites.end(), [&](const auto& site) { return is_key_of(site->path(), path); }) ||
           std::any_of(model_.plain.begin(), model_.plain.end(), [&](const BaseTensor& tensor) { return is_key_of(tensor.key, path); });
  }
  [[noreturn]] static void no_room(std::string_view path, const std::string& key) {
    fail<TargetError>("modules_to_save names '" + std::string(path) + "', whose '" + key + "' has no room for a copy",
                      "only layers declared graft::Adaptable<…> can be copied, and a module is saved whole",
                      "name the layers that can be copied instead");
  }
  [[noreturn]] static void no_copy(std::string_view path, const SecondName& name) {
    fail<TargetError>("modules_to_save names '" + std::string(path) + "', whose '" + name.path + "' is '" + name.first + "'",
                      "PEFT gives the module a copy of its own of what it shares, and here there is one for all that reach it",
                      "name '" + name.first + "', or the other modules in '" + std::string(path) + "'");
  }

  /// PEFT trains the outer copy, and lets a second one of the part, which nothing reads, take its place in files.
  void leave_out_parts() {
    std::vector<std::string> modules;
    for (const std::string& module : saved_.modules) {
      const auto outer = std::find_if(saved_.modules.begin(), saved_.modules.end(),
                                      [&](const std::string& other) { return other != module && is_key_of(module, other); });
      if (outer == saved_.modules.end()) modules.push_back(module);
      else
        report_.warnings.push_back("modules_to_save names '" + *outer + "' and '" + module +
                                   "', which is part of it and saved with it: PEFT would save that part as it was before training");
    }
    saved_.modules = std::move(modules);
  }

  /// graft takes names by whole components; in Python the same config would reach further.
  void warn_of_plain_ends(const std::string& name) {
    if (options_.file || name.empty()) return;
    for (const ModelNode& node : model_.nodes)
      if (node.is_layer && node.path.ends_with(name) && !matches(node.path, name))
        report_.warnings.push_back("modules_to_save names '" + name + "': PEFT compares plain ends and would save '" + node.path +
                                   "' whole too");
  }

  /// PEFT's plain `endswith` where a file has weights for it, whole components otherwise.
  [[nodiscard]] bool names_saved_module(std::string_view path, const std::string& name) const {
    if (matches(path, name)) return true;
    if (!options_.file || !path.ends_with(name)) return false;
    for (const auto& [key, view] : *options_.file) {
      const std::string_view bare = strip_peft_prefix(key);
      if (bare.size() <= path.size() || !is_key_of(bare, path)) continue;
      // an adapter's own keys, and biases, stand there without a copy too
      if (adapted_module_of(bare).empty() && last_segment(bare) != "bias" && !bare.ends_with(token_parameter)) return true;
    }
    return false;
  }

  const ModelSites& model_;
  const std::vector<std::string>& names_;
  const InjectOptions& options_;
  InjectReport& report_;
  SavedModules saved_;
};

}  // namespace graft::detail
