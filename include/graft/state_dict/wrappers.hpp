#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "../adapters/site_table.hpp"
#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "../core/python_float.hpp"
#include "../core/sort.hpp"
#include "repr_text.hpp"

namespace graft::detail {

/// One wrapper around a layer, with the adapters that it holds.
struct LayerWrapper {
  Wrapper kind;
  std::vector<const SiteEntry*> entries{};  ///< of deleted adapters nothing
};

/// The wrappers that PEFT would have put around a layer, innermost first: an adapter goes into the outermost one
/// where it is of its kind, else around it.
[[nodiscard]] inline std::vector<LayerWrapper> wrappers_of(const SiteTable& table) {
  std::vector<LayerWrapper> wrappers;
  const auto order = sorted_order(table.entries.size(), [&](std::size_t i, std::size_t j) {
    return table.entries[i].depth() > table.entries[j].depth();
  });
  for (const std::size_t i : order) {
    const SiteEntry* entry = &table.entries[i];
    auto kind = entry->wrapper();
    if (!kind || (*kind == Wrapper::copies && entry->saved_above())) continue;  // printed with the module that is saved
    if (*kind == Wrapper::lora && !wrappers.empty() && wrappers.back().kind == Wrapper::parameter) kind = Wrapper::parameter;
    if (wrappers.empty() || wrappers.back().kind != *kind) wrappers.push_back({*kind});
    if (entry->record) wrappers.back().entries.push_back(entry);
  }
  return wrappers;
}

/// One wrapper as text, around the text of what it wraps.
class WrapperText {
 public:
  WrapperText(const LayerWrapper& wrapper, const LayerFacts& facts, std::string_view parameter)
      : wrapper_(wrapper), facts_(facts), parameter_(parameter) {}

  /// `layer` is the text of the layer without wrappers.
  [[nodiscard]] std::string around(const std::string& wrapped, const std::string& layer) const {
    if (wrapper_.kind == Wrapper::copies)
      return module_text("ModulesToSaveWrapper", "",
                         {{"original_module", wrapped},
                          {"modules_to_save", modules([&](const SiteEntry&) { return layer; })}});
    if (wrapper_.kind == Wrapper::tokens)
      return module_text("TrainableTokensWrapper", "",
                         {{"original_module", "None"}, {"token_adapter", module_text("TrainableTokensLayer", "", tokens(wrapped))}});
    if (wrapper_.kind == Wrapper::ia3)
      return module_text(class_name(), "", {{"base_layer", wrapped}, {"ia3_l", parameters("ia3_l")}});

    std::vector<Child> children{{"base_layer", wrapped}, {"lora_dropout", modules([](const SiteEntry& entry) {
                                                            return dropout_text(entry.state()->dropout());
                                                          })}};
    for (const std::string_view name : {"lora_A", "lora_B"}) children.push_back({std::string(name), matrices(name)});
    for (const std::string_view name : {"lora_embedding_A", "lora_embedding_B"})
      children.push_back({std::string(name), parameters(name)});
    children.push_back({"lora_magnitude_vector", modules([&](const SiteEntry& entry) {
                          return find(entry, "lora_magnitude_vector") ? dora_text() : std::string();
                        })});
    if (wrapper_.kind == Wrapper::adalora)
      for (const std::string_view name : {"lora_E", "ranknum"}) children.push_back({std::string(name), parameters(name)});
    if (wrapper_.kind == Wrapper::parameter)
      return module_text("lora.ParamWrapper", "parameter_name='" + std::string(parameter_) + "',", children);
    const std::string_view method = wrapper_.kind == Wrapper::adalora ? "adalora.SVD" : "lora.";
    return module_text(std::string(method) + (facts_.packed ? "MultiheadAttention" : class_name()), "", children);
  }

 private:
  [[nodiscard]] LayerKind kind() const { return wrapper_.kind == Wrapper::parameter ? LayerKind::linear : facts_.kind; }
  [[nodiscard]] std::string class_name() const {
    switch (kind()) {
      case LayerKind::parameter:
      case LayerKind::linear: return "Linear";
      case LayerKind::embedding: return "Embedding";
      case LayerKind::conv: return "Conv" + std::to_string(facts_.conv.kernel.rank()) + "d";
      case LayerKind::norm: break;
    }
    return {};
  }

  [[nodiscard]] static std::string dropout_text(double p) {
    return p > 0 ? module_text("Dropout", "p=" + python_float(p) + ", inplace=False", {}) : "Identity()";
  }

  /// Classes print their prefix themselves, and of every class but Linear's the parent's name comes with it once more.
  [[nodiscard]] std::string dora_text() const {
    const std::string own = "Dora" + class_name() + "Layer()";
    return facts_.kind == LayerKind::linear ? "lora.dora." + own : "lora.dora.lora.dora." + own;
  }

  static const ParameterData* find(const SiteEntry& entry, std::string_view name, std::string_view suffix = ".weight") {
    for (const AdapterParameter& parameter : entry.state()->parameters())
      if (parameter.name == name && (parameter.suffix.empty() || parameter.suffix == suffix)) return parameter.data;
    return nullptr;
  }

  /// A ModuleDict of what `text` says of every adapter; those without text are left out.
  template <class Text>
  [[nodiscard]] std::string modules(Text text) const {
    std::vector<Child> children;
    for (const SiteEntry* entry : wrapper_.entries)
      if (std::string one = text(*entry); !one.empty()) children.push_back({entry->record->name(), std::move(one)});
    return module_text("ModuleDict", "", children);
  }

  [[nodiscard]] std::string parameters(std::string_view name) const {
    std::vector<Child> lines;
    for (const SiteEntry* entry : wrapper_.entries)
      if (const ParameterData* parameter = find(*entry, name))
        lines.push_back({entry->record->name(), tensor_class(parameter->dtype(), parameter->device()) + " of size " +
                                                  size_text(parameter->shape())});
    return parameters_text("ParameterDict", lines);
  }

  /// The rows, and a buffer of those that they stand for.
  [[nodiscard]] std::vector<Child> tokens(const std::string& wrapped) const {
    std::vector<Child> lines;
    for (const SiteEntry* entry : wrapper_.entries)
      if (const TokenRows* own = entry->tokens())
        lines.push_back({entry->record->name(), tensor_class(own->rows().dtype(), own->rows().device()) + " of size " +
                                                    size_text(own->rows().shape())});
    return {{"base_layer", wrapped},
            {"trainable_tokens_delta", parameters_text("ParameterDict", lines)},
            {"trainable_tokens_original", parameters_text("BufferDict", lines, "Buffer")}};
  }

  /// lora_A and lora_B: layers of LoRA, bare parameters of AdaLoRA.
  [[nodiscard]] std::string matrices(std::string_view name) const {
    if (wrapper_.kind == Wrapper::adalora) return parameters(name);
    return modules([&](const SiteEntry& entry) {
      const ParameterData* matrix = find(entry, name);
      if (!matrix) return std::string();
      return layer_like(matrix->shape(), name == "lora_A", find(entry, name, ".bias") != nullptr);
    });
  }

  [[nodiscard]] std::string layer_like(const Shape& shape, bool is_down, bool has_bias) const {
    LayerFacts facts;
    facts.kind = kind();
    facts.out = shape[0];
    facts.in = shape[1];
    facts.has_bias = has_bias;
    if (facts_.kind == LayerKind::conv) {
      ConvShape conv;
      conv.out = shape[0];
      for (std::size_t axis = 2; axis < shape.rank(); ++axis) conv.kernel.push_back(shape[axis]);
      if (is_down) {  // PEFT hands down neither dilation nor padding mode
        conv.in = shape[1];
        conv.stride = facts_.conv.stride;
        conv.padding = facts_.conv.padding;
        conv.same = facts_.conv.same;
      } else {
        conv.groups = facts_.conv.groups;
        conv.in = shape[1] * conv.groups;
      }
      facts.conv = conv.completed();
    }
    return module_text(class_name(), layer_options(facts), {});
  }

  const LayerWrapper& wrapper_;
  const LayerFacts& facts_;
  std::string_view parameter_;  ///< that is wrapped, where one is
};

/// A module, with what was injected into it, as adapters save it whole.
template <class = OnDemand>
[[nodiscard]] std::string saved_module_text(const std::string& original, const std::vector<Child>& copies) {
  return module_text("ModulesToSaveWrapper", "",
                     {{"original_module", original}, {"modules_to_save", module_text("ModuleDict", "", copies)}});
}
GRAFT_SHARED_FUNCTION(saved_module_text<>)

/// A layer with what was injected into it.
template <class = OnDemand>
[[nodiscard]] std::string site_text(const std::string& layer, const LayerFacts& facts, const SiteTable* table) {
  std::string text = layer;
  if (table)
    for (const LayerWrapper& wrapper : wrappers_of(*table))
      text = WrapperText(wrapper, facts, facts.packed ? "in_proj_weight" : "weight").around(text, layer);
  return text;
}
GRAFT_SHARED_FUNCTION(site_text<>)

/// A module with what was injected into a parameter of it.
template <class = OnDemand>
[[nodiscard]] std::string module_of_parameter_text(std::string module, const LayerFacts& facts, const SiteTable* table,
                                                   std::string_view parameter) {
  if (table)
    for (const LayerWrapper& wrapper : wrappers_of(*table))
      if (wrapper.kind == Wrapper::parameter) module = WrapperText(wrapper, facts, parameter).around(module, module);
  return module;
}
GRAFT_SHARED_FUNCTION(module_of_parameter_text<>)

}  // namespace graft::detail
