#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../adapters/pattern.hpp"
#include "../core/keys.hpp"
#include "../core/text.hpp"
#include "site.hpp"

namespace graft::detail {

/// What the three configs have in common, as far as choosing modules goes.
struct TargetFields {
  const TargetModules* targets;
  const TargetModules* excluded;
  const std::vector<std::string>* modules_to_save;
  const std::vector<int>* layers_to_transform = nullptr;
  const std::vector<std::string>* layers_pattern = nullptr;
};

[[nodiscard]] inline TargetFields target_fields(const PeftConfig& config) {
  return visit_config(config, []<class C>(const C& c) -> TargetFields {
    if constexpr (requires { c.layers_to_transform; })
      return {&c.target_modules, &c.exclude_modules, &c.modules_to_save, &c.layers_to_transform, &c.layers_pattern};
    else return {&c.target_modules, &c.exclude_modules, &c.modules_to_save};
  });
}

/// A list or a regex against one path; unset matches nothing. Which entry of a list it was: -1 for none.
[[nodiscard]] inline int match_index(const TargetModules& modules, std::string_view path) {
  if (modules.kind() == TargetModules::Kind::regex) return modules.regex().matches(path) ? 0 : -1;
  for (std::size_t i = 0; i < modules.names().size(); ++i)
    if (matches(path, modules.names()[i])) return int(i);
  return -1;
}

/// Whether a path is a module that is saved whole, or lies inside one: it is never a target then.
[[nodiscard]] inline bool is_in_saved_module(std::string_view path, const std::vector<std::string>& modules_to_save) {
  for (const std::string& name : modules_to_save)
    for (std::string_view part = path; !part.empty(); part = parent_path(part))
      if (matches(part, name)) return true;
  return false;
}

/// Decides for one module path after another whether a config targets it (1.1 of PEFT's rules).
class TargetMatcher {
 public:
  explicit TargetMatcher(const TargetFields& fields) : fields_(fields) {
    if (fields.layers_pattern)
      for (const std::string& pattern : *fields.layers_pattern)
        if (!pattern.empty()) layers_pattern_.emplace_back(pattern);
  }

  /// Whether `exclude_modules` names it; remembers that something was excluded.
  [[nodiscard]] bool is_excluded(std::string_view path) const { return match_index(*fields_.excluded, path) >= 0; }

  /// The entry of the target list that takes it, 0 for a regex, -1 for none. The root is never a target.
  [[nodiscard]] int match(std::string_view path) {
    if (path.empty()) return -1;
    const int entry = match_index(*fields_.targets, path);
    if (entry < 0 || !fields_.layers_to_transform || fields_.layers_to_transform->empty()) return entry;
    // a target that is the whole path is taken whatever its layer: PEFT's rule
    for (const std::string& name : fields_.targets->names())
      if (path == name) return entry;
    const std::optional<LayerIndex> layer = layer_index(path, layers_pattern_);
    if (!layer) return -1;
    const auto& wanted = *fields_.layers_to_transform;
    if (std::find(wanted.begin(), wanted.end(), layer->index) == wanted.end()) return -1;
    if (std::find(found_.begin(), found_.end(), layer->index) == found_.end()) found_.push_back(layer->index);
    peft_agrees_ = peft_agrees_ && layer->peft_agrees;
    return entry;
  }
  /// The entries of `layers_to_transform` in whose layers nothing was taken.
  [[nodiscard]] std::vector<std::string> idle_layers() const {
    std::vector<std::string> idle;
    if (fields_.layers_to_transform)
      for (const int layer : *fields_.layers_to_transform)
        if (std::find(found_.begin(), found_.end(), layer) == found_.end()) idle.push_back(std::to_string(layer));
    return idle;
  }
  /// False once a module was taken whose layer number PEFT would not find.
  [[nodiscard]] bool peft_agrees() const { return peft_agrees_; }

 private:
  TargetFields fields_;
  std::vector<LayersPattern> layers_pattern_;
  std::vector<int> found_;
  bool peft_agrees_ = true;
};

/// Every module path of a model, containers included, in torch's order: what PEFT matches names against.
[[nodiscard]] inline std::vector<std::string_view> with_containers(const std::vector<ModelNode>& nodes) {
  std::vector<std::string_view> paths;
  std::string_view previous;
  for (const ModelNode& node : nodes) {
    if (node.is_layer && node.kind == LayerKind::parameter) continue;  // no module
    const std::size_t first = paths.size();
    // nodes come parents first, so what contains the previous node is listed already
    for (std::string_view path = parent_path(node.path); !path.empty(); path = parent_path(path)) {
      if (is_key_of(previous, path)) break;
      paths.insert(paths.begin() + std::ptrdiff_t(first), path);
    }
    paths.push_back(node.path);
    previous = node.path;
  }
  return paths;
}

}  // namespace graft::detail
