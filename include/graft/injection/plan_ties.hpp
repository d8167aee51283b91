#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "../core/sort.hpp"
#include "plan_targets.hpp"
#include "tied.hpp"

namespace graft {

/// An embedding and a linear head on its memory, which one adapter takes together (`ensure_weight_tying`).
struct TiedEnds {
  std::size_t embedding, head;
};

namespace detail {

/// Finds the heads that lie on an embedding's memory, and what an adapter at one end means for the other.
class TiePlanner {
 public:
  TiePlanner(const ModelSites& model, PeftConfig& config, TargetPlan& targets) : model_(model), config_(config), targets_(targets) {}

  /// With ensure_weight_tying both ends become targets, or are saved, where one of them is. Without it that is reported.
  /// @throws TargetError for an end without room.
  [[nodiscard]] std::vector<TiedEnds> make() && {
    auto* lora = std::get_if<LoraConfig>(&config_);
    const bool ensure = lora && lora->ensure_weight_tying;
    std::vector<TiedEnds> ends;
    const std::vector<std::pair<std::string, std::string>> tied = tied_layers();
    for (const auto& [embedding, head] : tied) {
      const bool is_target = is_in(targets_.sites, embedding) || is_in(targets_.sites, head);
      const bool is_saved = is_in(targets_.copied, embedding) || is_in(targets_.copied, head);
      if (!is_target && !is_saved) continue;
      is_used_ = true;
      if (!ensure) {
        targets_.report.warnings.push_back("'" + embedding + "' and '" + head +
                                           "' share their weight, and the adapter is made for each end by itself; merging it "
                                           "needs MergeOptions::tied" +
                                           (lora ? ", or set ensure_weight_tying" : ""));
        continue;
      }
      const TiedEnds both{need_site(embedding), need_site(head)};
      take_both(is_saved ? targets_.copied : targets_.sites, both);
      if (is_saved) rename(lora->modules_to_save, embedding, head);
      else rename(lora->target_modules, embedding, head);
      ends.push_back(both);
    }
    if (ensure && !is_used_ && lora->trainable_token_indices.empty())
      targets_.report.warnings.push_back(tied.empty() ? "ensure_weight_tying, and no linear layer of the model shares an embedding's weight"
                                                      : "ensure_weight_tying, and neither end of a tie is a target or saved");
    return ends;
  }

 private:
  /// (the embedding's path, the head's)
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> tied_layers() const {
    const TiedTensors tensors(model_);
    std::vector<std::pair<std::string, std::string>> tied;
    for (const ModelNode& node : model_.nodes) {
      if (!node.is_layer || node.kind != LayerKind::embedding) continue;
      for (const std::string& name : tensors.names(storage_of(node))) {
        const std::string path(parent_path(name));
        if (path == node.path || last_segment(name) != "weight") continue;
        const ModelNode* other = find(path);
        if (other && other->is_layer && other->kind == LayerKind::linear) tied.emplace_back(node.path, path);
      }
    }
    return tied;
  }
  [[nodiscard]] const void* storage_of(const ModelNode& node) const {
    if (node.site >= 0) {
      for (const BaseTensor& tensor : model_.sites[std::size_t(node.site)]->tensors())
        if (tensor.key == "weight") return tensor.storage;
    } else {
      for (const BaseTensor& tensor : model_.plain)
        if (tensor.key == join_path(node.path, "weight")) return tensor.storage;
    }
    return nullptr;
  }
  [[nodiscard]] const ModelNode* find(std::string_view path) const {
    for (const ModelNode& node : model_.nodes)
      if (node.path == path) return &node;
    return nullptr;
  }
  [[nodiscard]] bool is_in(const std::vector<std::size_t>& sites, const std::string& path) const {
    return std::any_of(sites.begin(), sites.end(), [&](std::size_t site) { return model_.sites[site]->path() == path; });
  }
  [[nodiscard]] std::size_t need_site(const std::string& path) const {
    const ModelNode* node = find(path);
    if (node->site < 0)
      fail<TargetError>("ensure_weight_tying, and '" + path + "' is a plain " + std::string(node->type) + " without room for adapters",
                        "both ends of a tie share one adapter", "declare it graft::Adaptable<…>, or leave ensure_weight_tying out");
    return std::size_t(node->site);
  }
  static void take_both(std::vector<std::size_t>& sites, const TiedEnds& both) {
    for (const std::size_t site : {both.embedding, both.head})
      if (std::find(sites.begin(), sites.end(), site) == sites.end()) sites.push_back(site);
    sort_stably(sites, std::less<>());
  }

  /// PEFT's rule: the config names the embedding, and the head goes with it.
  static void rename(std::vector<std::string>& names, const std::string& embedding, const std::string& head) {
    std::erase_if(names, [&](const std::string& name) { return matches(head, name); });
    if (std::find(names.begin(), names.end(), embedding) == names.end()) names.push_back(embedding);
  }
  static void rename(TargetModules& targets, const std::string& embedding, const std::string& head) {
    if (targets.kind() != TargetModules::Kind::list) return;
    std::vector<std::string> names = targets.names();
    rename(names, embedding, head);
    targets = TargetModules(std::move(names));
  }

  const ModelSites& model_;
  PeftConfig& config_;
  TargetPlan& targets_;
  bool is_used_ = false;
};

/// Lets a head's LoRA be that of its embedding: A is its Bᵀ, and B its Aᵀ. `from_head`: the other way round.
/// Whether something changed.
inline bool tie_factors(AnyAdapterState& embedding, AnyAdapterState& head, bool from_head) {
  const auto find = [](AnyAdapterState& state, std::string_view name) -> ParameterData* {
    for (const AdapterParameter& parameter : state.parameters())
      if (parameter.name == name) return parameter.data;
    return nullptr;
  };
  bool changes = false;
  const std::pair<ParameterData*, ParameterData*> pairs[]{{find(embedding, "lora_embedding_B"), find(head, "lora_A")},
                                                          {find(embedding, "lora_embedding_A"), find(head, "lora_B")}};
  for (const auto& [own, turned] : pairs) {
    if (!own || !turned || own->is_meta() || turned->is_meta() || own->dtype() != turned->dtype()) continue;
    ParameterData& to = from_head ? *own : *turned;
    const ParameterData& from = from_head ? *turned : *own;
    const auto copy = [&]<class T>(T) {
      const Index rows = to.shape().rows(), cols = to.shape().cols();
      const T* source = reinterpret_cast<const T*>(from.data());
      bool differs = false;
      for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < cols; ++j) differs |= !(reinterpret_cast<const T*>(to.data())[i * cols + j] == source[j * rows + i]);
      if (!differs) return;
      to.detach();
      to.touch();
      for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < cols; ++j) reinterpret_cast<T*>(to.data())[i * cols + j] = source[j * rows + i];
      changes = true;
    };
    switch (to.dtype()) {
      case Dtype::f64: copy(double{}); break;
      case Dtype::bf16: copy(bf16{}); break;
      case Dtype::f16: copy(f16{}); break;
      default: copy(float{});
    }
  }
  return changes;
}

}  // namespace detail
}  // namespace graft
