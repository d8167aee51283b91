#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "plan_targets.hpp"
#include "tied.hpp"

namespace graft {

/// A site of which an injection will train rows.
struct TokenSite {
  std::size_t site;
  std::vector<Index> ids;
  std::string tied_to{};  ///< the embedding whose rows are this head's too
};

namespace detail {

/// Finds the sites that `trainable_token_indices` means, and the heads that are tied to them.
class TokenPlanner {
 public:
  TokenPlanner(const ModelSites& model, const LoraConfig& config, const InjectOptions& options,
               const std::vector<std::size_t>& targets, const std::vector<std::size_t>& copied, InjectReport& report)
      : model_(model), config_(config), options_(options), targets_(targets), copied_(copied), report_(report) {}

  /// @throws TargetError for modules that cannot have such rows, ConfigError for ids, MetaError for a base without memory.
  [[nodiscard]] std::vector<TokenSite> make() && {
    for (const auto& [name, ids] : config_.trainable_token_indices.modules()) take(name, ids);
    if (!found_.empty()) take_tied_heads();
    return std::move(found_);
  }

 private:
  void take(const std::string& name, const std::vector<Index>& ids) {
    bool is_used = false;
    for (const ModelNode& node : model_.nodes) {
      if (!names_module(node.path, name)) continue;
      is_used = true;
      if (!node.is_layer || node.site < 0)
        fail<TargetError>("trainable_token_indices names '" + node.path + "', " +
                              (node.is_layer ? "a plain " + std::string(node.type) + " without room" : "a " + std::string(node.type)),
                          "trained tokens are rows of an embedding, or of a linear head",
                          "name an embedding that is declared graft::Adaptable<graft::Embedding<…>>");
      const std::size_t site = std::size_t(node.site);
      check(site, ids);
      const auto known = std::find_if(found_.begin(), found_.end(), [&](const TokenSite& one) { return one.site == site; });
      if (known == found_.end()) found_.push_back({site, ids});
      else if (known->ids != ids)
        fail<ConfigError>("two entries of trainable_token_indices mean '" + node.path + "', the second one '" + name + "'",
                          "they list different tokens", "write one entry with all of its tokens");
    }
    if (is_used) return;
    std::vector<std::string_view> paths = with_containers(model_.nodes);
    const auto near = nearest_names(name, paths);
    fail<TargetError>("trainable_token_indices names '" + name + "', and no module is called so",
                      config_.trainable_token_indices.is_list() ? "a plain list of tokens means embed_tokens"
                                                                : "a name matches a module whose path is it or ends with it",
                      near.empty() ? "name the embedding: {{\"wte\", {…}}}" : "did you mean " + near.front() + "?");
  }

  /// PEFT's plain `endswith` where a file has rows for it, whole components otherwise.
  [[nodiscard]] bool names_module(std::string_view path, const std::string& name) const {
    if (path.empty()) return false;
    if (matches(path, name)) return true;
    if (!options_.file || !path.ends_with(name)) return false;
    const std::string key = file_key(path, token_parameter, "");
    return options_.file->contains(key) || options_.file->contains(std::string(peft_prefix) + key);
  }

  void check(std::size_t place, const std::vector<Index>& ids) const {
    const AnySite& site = *model_.sites[place];
    const LayerFacts facts = site.facts();
    const std::string problem = "trainable_token_indices names '" + site.path() + "', ";
    if (std::find(targets_.begin(), targets_.end(), place) != targets_.end())
      fail<TargetError>(problem + "which is a target too", "rows that are replaced have no place in a layer that the same adapter adds to",
                        "take it out of target_modules or out of trainable_token_indices");
    if (std::find(copied_.begin(), copied_.end(), place) != copied_.end())
      fail<TargetError>(problem + "which modules_to_save names too", "a module that is saved whole has all of its rows trained",
                        "take it out of one of them");
    if ((facts.kind != LayerKind::embedding && facts.kind != LayerKind::linear) || facts.transposed)
      fail<TargetError>(problem + "a " + std::string(site.layer_name()), "trained tokens are rows of an embedding, or of a linear head",
                        "name the embedding");
    if (!site.shows_weight())
      fail<TargetError>(problem + "a " + std::string(site.layer_name()) + " that does not show its weight",
                        "trained tokens start as rows of the base weight",
                        "give layer_traits<" + std::string(site.layer_name()) + "> a weight(layer)");
    const Index rows = facts.kind == LayerKind::embedding ? facts.in : facts.out;
    for (const Index id : ids)
      if (id < 0 || id >= rows)
        fail<ConfigError>("trainable_token_indices lists " + std::to_string(id) + " for '" + site.path() + "', which has " +
                              std::to_string(rows) + " rows",
                          "ids count from 0", "list ids of the model's vocabulary");
    if (options_.low_cpu_mem_usage) return;
    for (const BaseTensor& tensor : site.tensors())
      if (tensor.key == "weight" && tensor.read().device() == Device::meta)
        fail<MetaError>(problem + "whose weight has no memory yet", "trained tokens start as rows of the base weight",
                        "load the base model before its adapters");
  }

  /// A linear layer on the memory of such an embedding is its head: its rows are the same rows.
  void take_tied_heads() {
    const TiedTensors tied(model_);
    const std::size_t named = found_.size();
    for (std::size_t i = 0; i < named; ++i) {
      const TokenSite embedding = found_[i];
      if (model_.sites[embedding.site]->facts().kind != LayerKind::embedding) continue;
      const std::string& path = model_.sites[embedding.site]->path();
      for (const std::string& name : tied.names(storage_of(*model_.sites[embedding.site]))) {
        if (name == join_path(path, "weight") || last_segment(name) != "weight") continue;
        tie(std::string(parent_path(name)), embedding.ids, path);
      }
    }
  }
  void tie(const std::string& head, const std::vector<Index>& ids, const std::string& embedding) {
    const auto node = std::find_if(model_.nodes.begin(), model_.nodes.end(), [&](const ModelNode& one) { return one.path == head; });
    if (node == model_.nodes.end() || node->kind != LayerKind::linear) return;
    if (node->site < 0) {
      report_.warnings.push_back("'" + head + "' shares the weight of '" + embedding +
                                 "' and has no room for adapters: its rows of the trained tokens stay the base's, where PEFT "
                                 "would replace them too");
      return;
    }
    const std::size_t site = std::size_t(node->site);
    const auto own = std::find_if(found_.begin(), found_.end(), [&](const TokenSite& one) { return one.site == site; });
    if (own == found_.end()) {
      check(site, ids);
      found_.push_back({site, ids, embedding});
    } else if (own->ids == ids) {
      own->tied_to = embedding;
    } else if (config_.ensure_weight_tying) {
      fail<ConfigError>("ensure_weight_tying, and trainable_token_indices lists other tokens for '" + head + "' than for '" + embedding + "'",
                        "the two share their weight, and could not share these rows",
                        "list the same tokens for both, or leave ensure_weight_tying out");
    }
  }
  [[nodiscard]] static const void* storage_of(const AnySite& site) {
    for (const BaseTensor& tensor : site.tensors())
      if (tensor.key == "weight") return tensor.storage;
    return nullptr;
  }

  const ModelSites& model_;
  const LoraConfig& config_;
  const InjectOptions& options_;
  const std::vector<std::size_t>&targets_, &copied_;
  InjectReport& report_;
  std::vector<TokenSite> found_;
};

}  // namespace detail
}  // namespace graft
