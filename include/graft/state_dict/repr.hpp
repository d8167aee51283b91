#pragma once

#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "../core/type_name.hpp"
#include "../injection/site.hpp"
#include "../modules/norm.hpp"
#include "wrappers.hpp"

namespace graft {

namespace detail {
template <class X>
inline constexpr bool is_rms_norm = false;
template <class T, class Storage>
inline constexpr bool is_rms_norm<RMSNorm<T, Storage>> = true;
template <class X>
inline constexpr bool is_layer_norm = false;
template <class T, class Storage>
inline constexpr bool is_layer_norm<LayerNorm<T, Storage>> = true;

/// What stands in a module's parentheses: its own `extra_repr()`, or what torch prints of such a layer.
template <class Node>
std::string options_of(const Node& node) {
  if constexpr (requires { std::string(node.extra_repr()); }) {
    return node.extra_repr();
  } else if constexpr (is_rms_norm<Node> || is_layer_norm<Node>) {
    std::string text = to_string(std::span<const Index>(node.weight.shape())) + ", eps=" + python_float(node.eps) +
                       ", elementwise_affine=True";
    if constexpr (is_layer_norm<Node>) text += ", bias=" + bool_text(node.bias.size() != 0);
    return text;
  } else if constexpr (has_layer_traits<Node> && !is_attention<Node>) {  // torch says nothing of an attention
    EmbeddingOptions options;
    if constexpr (requires { options = node.options; }) options = node.options;
    return layer_options(facts_of(node), options);
  } else {
    return {};
  }
}

/// Builds a tree's text from its leaves up.
class TreeText {
 public:
  void open() { open_.emplace_back(); }
  void add_parameter(std::string_view name, Dtype dtype, Device device, const Shape& shape) {
    if (open_.empty()) return;
    open_.back().parameters.push_back({std::string(name), {}});
    open_.back().tensors.push_back({dtype, device, shape});
  }
  void close_module(std::string_view name, std::string_view type, std::string_view options) {
    close(name, module_text(type, options, open_.back().children));
  }
  void close_container(std::string_view name, const Container& container) {
    close(name, container_text(container));
  }
  /// The node that stands open is a parameter with room: what was injected into it stands around its module.
  void close_parameter(std::string_view name, const LayerFacts& facts, Dtype dtype, Device device, const SiteTable* table) {
    tell_saved_module(table);
    open_.pop_back();
    add_parameter(name, dtype, device, facts.stack.stored);
    if (!open_.empty()) open_.back().adapted.push_back({std::string(name), facts, table});
  }
  /// Replaces the node that stands open by the finished text of a site.
  void close_site(std::string_view name, std::string text, const SiteTable* table) {
    tell_saved_module(table);
    open_.back().is_saved = false;  // its own copies are in the text, of which those inside are parts
    close(name, std::move(text));
  }

  /// Keeps the text of a node for its other names.
  void remember(std::string_view path, std::string text) { known_.push_back({std::string(path), std::move(text)}); }
  /// The node that was closed last, without its wrappers: PEFT puts these under the first name alone.
  void remember(std::string_view path) {
    if (!open_.empty()) remember(path, bare_);
  }
  /// What stands under `first` stands here too.
  void repeat(std::string_view name, std::string_view first) {
    for (const Child& known : known_)
      if (known.name == first) open_.back().children.push_back({std::string(name), known.text});
  }

  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  struct Tensor {
    Dtype dtype;
    Device device;
    Shape shape;
  };
  struct AdaptedParameter {
    std::string name;
    LayerFacts facts;
    const SiteTable* table;
  };
  struct Node {
    std::vector<Child> children, parameters;
    std::vector<Tensor> tensors;
    std::vector<AdaptedParameter> adapted;
    bool is_saved = false;          // whole, by modules_to_save
    std::map<unsigned, std::string> copies;  // the names of the adapters that do, by number
  };

  [[nodiscard]] std::string container_text(const Container& container) {
    Node& node = open_.back();
    if ((!container.of_modules || !node.tensors.empty()) && node.children.empty()) {
      const bool is_map = container.kind == ContainerKind::map;
      for (std::size_t i = 0; i < node.tensors.size(); ++i) {
        const Tensor& tensor = node.tensors[i];
        node.parameters[i].text = (is_map ? tensor_class(tensor.dtype, tensor.device) : dtype_text(tensor.dtype)) + " of size " +
                                  size_text(tensor.shape);
      }
      return parameters_text(is_map ? "ParameterDict" : "ParameterList", node.parameters);
    }
    switch (container.kind) {
      case ContainerKind::list: return list_text(node.children);
      case ContainerKind::tuple: return module_text("Sequential", "", node.children);
      case ContainerKind::map: return module_text("ModuleDict", "", node.children);
    }
    return {};
  }

  /// The node that stands open is a site: of copies in it that are parts of others, the module above it is told.
  void tell_saved_module(const SiteTable* table) {
    if (!table) return;
    for (const SiteEntry& entry : table->entries) {
      const std::size_t above = entry.saved_above();
      // what a tree begins with is a model, or a site's layer
      if (entry.wrapper() != Wrapper::copies || !above || above + 1 >= open_.size()) continue;
      Node& module = open_[open_.size() - 1 - above];
      module.is_saved = true;
      if (entry.record) module.copies.emplace(entry.id, entry.record->name());
    }
  }

  void close(std::string_view name, std::string text) {
    bare_ = text;
    if (open_.back().is_saved) {
      std::vector<Child> copies;
      for (const auto& [id, adapter] : open_.back().copies) copies.push_back({adapter, text});
      text = saved_module_text(text, copies);
    }
    for (const AdaptedParameter& one : open_.back().adapted)  // in the order of the list, the first innermost
      text = module_of_parameter_text(std::move(text), one.facts, one.table, one.name);
    open_.pop_back();
    if (open_.empty()) text_ = std::move(text);
    else open_.back().children.push_back({std::string(name), std::move(text)});
  }

  std::vector<Node> open_;
  std::vector<Child> known_;
  std::string text_, bare_;
};

template <class Node>
inline constexpr bool is_parameter_site = [] {
  if constexpr (enable_site<Node>) return traits_of<typename Node::layer_type>::kind == LayerKind::parameter;
  else return false;
}();

struct ReprHandler {
  TreeText& tree;

  void enter_module(const Place&, const auto&) { tree.open(); }
  template <class Node>
  void leave_module(const Place& place, const Node& node) {
    if constexpr (is_parameter_site<Node>) {
      Device device = Device::cpu;
      if constexpr (is_parameter<typename Node::layer_type>) device = node->device();
      tree.close_parameter(place.name, facts_of(node.base_layer()), base_tensors(node.base_layer()).front().dtype, device,
                           SiteAccess<Node>::table(node));
    } else if constexpr (enable_site<Node>) {
      TreeText layer;
      walk(node.base_layer(), ReprHandler{layer});
      const SiteTable* table = SiteAccess<Node>::table(node);
      tree.close_site(place.name, site_text(layer.text(), facts_of(node.base_layer()), table), table);
      tree.remember(place.path, layer.text());
    } else {
      tree.close_module(place.name, type_name<Node>(), options_of(node));
      tree.remember(place.path);
    }
  }
  template <class P>
  void parameter(const Place& place, const P& parameter) {
    if constexpr (is_parameter<P>)
      tree.add_parameter(place.name, parameter.dtype(), parameter.device(), parameter.untyped().shape());
    else tree.add_parameter(place.name, dtype_of<typename P::Scalar>, Device::cpu, shape_of(parameter));
  }
  void enter_container(const Place&, const Container&) { tree.open(); }
  void leave_container(const Place& place, const Container& container) {
    tree.close_container(place.name, container);
    tree.remember(place.path);
  }
  void again(const Place& place, const std::string& first) { tree.repeat(place.name, first); }
};
}  // namespace detail

/// The tree that PEFT 0.21 prints of such a model: classes by their bare names, sites in PEFT's wrappers, lists as
/// ModuleList, tuples as Sequential, maps as ModuleDict. A module's own `std::string extra_repr() const`, as in
/// torch, is what stands in its parentheses.
template <class M>
[[nodiscard]] std::string repr(const M& model) {
  detail::TreeText tree;
  walk(model, detail::ReprHandler{tree});
  return tree.text();
}

}  // namespace graft
