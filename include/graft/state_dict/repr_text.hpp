#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/dtype.hpp"
#include "../core/on_demand.hpp"
#include "../core/python_float.hpp"
#include "../modules/embedding.hpp"
#include "../modules/layer_traits.hpp"

namespace graft::detail {

/// A line, or block of lines, of a printed tree: "(name): text".
struct Child {
  std::string name, text;
};

/// All lines but the first two columns further in.
[[nodiscard]] inline std::string indented(std::string_view text) {
  std::string result;
  for (const char character : text) {
    result += character;
    if (character == '\n') result += "  ";
  }
  return result;
}

[[nodiscard]] inline std::string block_text(std::string_view type, const std::vector<std::string>& lines) {
  std::string text = std::string(type) + "(";
  for (const std::string& line : lines) text += "\n  " + line;
  return text + (lines.empty() ? ")" : "\n)");
}

/// A module as torch prints it: its options on the first line where it has no children, else on a line of their own.
template <class = OnDemand>
[[nodiscard]] std::string module_text(std::string_view type, std::string_view options, const std::vector<Child>& children) {
  if (children.empty()) return std::string(type) + "(" + std::string(options) + ")";
  std::vector<std::string> lines;
  if (!options.empty()) lines.push_back(indented(options));
  for (const Child& child : children) lines.push_back("(" + child.name + "): " + indented(child.text));
  return block_text(type, lines);
}
GRAFT_SHARED_FUNCTION(module_text<>)

/// A ModuleList: neighbours of equal text share one. An empty pointer leaves a gap in the numbers.
template <class = OnDemand>
[[nodiscard]] std::string list_text(const std::vector<Child>& children) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0, end = 0; begin < children.size(); begin = end) {
    const int first = std::stoi(children[begin].name);
    while (end < children.size() && children[end].text == children[begin].text &&
           std::stoi(children[end].name) == first + int(end - begin))
      ++end;
    std::string line = "(" + children[begin].name;
    if (end - begin > 1) line += "-" + children[end - 1].name + "): " + std::to_string(end - begin) + " x ";
    else line += "): ";
    lines.push_back(line + indented(children[begin].text));
  }
  return block_text("ModuleList", lines);
}
GRAFT_SHARED_FUNCTION(list_text<>)

/// A ParameterDict or ParameterList of "(name): Parameter containing: [text]": one entry stays on the first line.
template <class = OnDemand>
[[nodiscard]] std::string parameters_text(std::string_view type, const std::vector<Child>& parameters,
                                          const std::string& what = "Parameter") {
  std::vector<std::string> lines;
  for (const Child& parameter : parameters)
    lines.push_back("  (" + parameter.name + "): " + what + " containing: [" + parameter.text + "]");
  if (lines.size() == 1) return std::string(type) + "(" + lines.front() + ")";
  return block_text(type, lines);
}
GRAFT_SHARED_FUNCTION(parameters_text<>)

/// "torch.FloatTensor", "torch.meta.BFloat16Tensor".
[[nodiscard]] inline std::string tensor_class(Dtype dtype, Device device) {
  return std::string(device == Device::meta ? "torch.meta." : "torch.") + std::string(torch_name_of(dtype)) + "Tensor";
}

/// "torch.float32": how a ParameterList names the same.
[[nodiscard]] inline std::string dtype_text(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64: return "torch.float64";
    case Dtype::f16: return "torch.float16";
    case Dtype::bf16: return "torch.bfloat16";
    default: return "torch.float32";
  }
}

/// "2x11".
[[nodiscard]] inline std::string size_text(const Shape& shape) {
  std::string text;
  for (const Index dimension : shape) {
    if (!text.empty()) text += 'x';
    text += std::to_string(dimension);
  }
  return text;
}

[[nodiscard]] inline std::string bool_text(bool value) { return value ? "True" : "False"; }

[[nodiscard]] inline std::string conv_options(const ConvShape& conv, bool has_bias) {
  const auto is_all = [](const Shape& axes, Index value) {
    for (const Index axis : axes)
      if (axis != value) return false;
    return true;
  };
  std::string text = std::to_string(conv.in) + ", " + std::to_string(conv.out) + ", kernel_size=" + to_string(conv.kernel) +
                     ", stride=" + to_string(conv.stride);
  if (conv.same) text += ", padding=same";
  else if (!is_all(conv.padding, 0)) text += ", padding=" + to_string(conv.padding);
  if (!is_all(conv.dilation, 1)) text += ", dilation=" + to_string(conv.dilation);
  if (conv.groups != 1) text += ", groups=" + std::to_string(conv.groups);
  if (!has_bias) text += ", bias=False";
  constexpr std::string_view modes[] = {"zeros", "reflect", "replicate", "circular"};
  if (conv.padding_mode != PaddingMode::zeros) text += ", padding_mode=" + std::string(modes[std::size_t(conv.padding_mode)]);
  return text;
}

[[nodiscard]] inline std::string embedding_options(Index num, Index dim, const EmbeddingOptions& options) {
  std::string text = std::to_string(num) + ", " + std::to_string(dim);
  if (options.padding_idx) text += ", padding_idx=" + std::to_string(*options.padding_idx);
  if (options.max_norm) text += ", max_norm=" + python_float(*options.max_norm);
  if (options.norm_type != 2) text += ", norm_type=" + python_float(options.norm_type);
  if (options.scale_grad_by_freq) text += ", scale_grad_by_freq=True";
  if (options.sparse) text += ", sparse=True";
  return text;
}

/// What torch prints in the parentheses of a layer; a layer that stores (in, out) is printed as transformers' Conv1D.
template <class = OnDemand>
[[nodiscard]] std::string layer_options(const LayerFacts& facts, EmbeddingOptions options = {}) {
  const std::string in = std::to_string(facts.in), out = std::to_string(facts.out);
  switch (facts.kind) {
    case LayerKind::linear:
      if (facts.transposed) return "nf=" + out + ", nx=" + in;
      return "in_features=" + in + ", out_features=" + out + ", bias=" + bool_text(facts.has_bias);
    case LayerKind::embedding:
      options.max_norm = facts.max_norm;
      options.norm_type = facts.norm_type;
      return embedding_options(facts.in, facts.out, options);
    case LayerKind::parameter:
    case LayerKind::norm: return {};
    case LayerKind::conv: return conv_options(facts.conv, facts.has_bias);
  }
  return {};
}
GRAFT_SHARED_FUNCTION(layer_options<>)

}  // namespace graft::detail
