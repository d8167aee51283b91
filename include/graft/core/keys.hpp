#pragma once

#include <string>
#include <string_view>

#include "version.hpp"

namespace graft {

// PEFT's key grammar, in one place: nobody else takes a key apart.
//
//   file      base_model.model. <path> . <parameter> <suffix>               q_proj.lora_A.weight
//   memory                      <path> . <parameter> . <adapter> <suffix>   q_proj.lora_A.default.weight

/// What PeftModel puts before every key of a file.
inline constexpr std::string_view peft_prefix = "base_model.model.";

/// The rows of trained tokens, below their embedding; its own tensors then stand under `token_base`.
inline constexpr std::string_view token_parameter = "token_adapter.trainable_tokens_delta", token_base = "token_adapter.base_layer";

/// A key without PeftModel's prefix.
[[nodiscard]] constexpr std::string_view strip_peft_prefix(std::string_view key) {
  return key.starts_with(peft_prefix) ? key.substr(peft_prefix.size()) : key;
}

/// The module that an adapter's parameter belongs to: what stands before the last component that names one.
/// Empty when none does, or when it is the first.
[[nodiscard]] constexpr std::string_view adapted_module_of(std::string_view key) {
  constexpr std::string_view names[] = {"lora_A",           "lora_B", "lora_E", "lora_embedding_A", "lora_embedding_B",
                                        "lora_magnitude_vector", "ia3_l"};
  key = strip_peft_prefix(key);
  for (std::size_t dot = key.rfind('.'); dot != key.npos; dot = dot == 0 ? key.npos : key.rfind('.', dot - 1)) {
    const std::string_view rest = key.substr(dot + 1), component = rest.substr(0, rest.find('.'));
    for (const std::string_view name : names)
      if (component == name) return key.substr(0, dot);
  }
  return {};
}

/// A module's path without the `base_layer` components at its end, and how many these are: so many wrappers of other
/// methods stand around an adapter with such keys.
struct NestedModule {
  std::string_view path;
  unsigned depth = 0;
};
[[nodiscard]] constexpr NestedModule without_base_layers(std::string_view module) {
  constexpr std::string_view end = ".base_layer";
  NestedModule nested{module};
  for (; nested.path.size() > end.size() && nested.path.ends_with(end); ++nested.depth) nested.path.remove_suffix(end.size());
  return nested;
}

/// Whether a key is of a module, or of what is in it.
[[nodiscard]] constexpr bool is_key_of(std::string_view key, std::string_view module) {
  return key.starts_with(module) && (key.size() == module.size() || key[module.size()] == '.');
}

/// "path.name", or "name" at the root.
[[nodiscard]] inline std::string join_path(std::string_view path, std::string_view name) {
  std::string whole(path);
  if (!whole.empty() && !name.empty()) whole += '.';
  return whole += name;
}

/// The module that an adapter's parameters stand in, inside of `depth` wrappers: "q_proj.base_layer".
[[nodiscard]] inline std::string nested_path(std::string_view path, unsigned depth) {
  std::string module(path);
  for (; depth; --depth) module += ".base_layer";
  return module;
}

/// The module of a layer inside of the layer of a tuner layer at `outer`: "attn.base_layer.out_proj".
[[nodiscard]] inline std::string module_inside(std::string_view outer, std::string_view path) {
  return join_path(join_path(outer, "base_layer"), outer.empty() ? path : path.substr(outer.size() + 1));
}

/// The key in an adapter's file, without prefix: "q_proj.lora_A.weight".
[[nodiscard]] inline std::string file_key(std::string_view path, std::string_view parameter, std::string_view suffix) {
  return join_path(path, parameter).append(suffix);
}
/// The key in memory, which names the adapter: "q_proj.lora_A.default.weight".
[[nodiscard]] inline std::string memory_key(std::string_view path, std::string_view parameter, std::string_view adapter,
                                            std::string_view suffix) {
  return join_path(join_path(path, parameter), adapter).append(suffix);
}

/// AdaLoRA's `rank_pattern` key as a module path: "m.lora_E", with or without the adapter's name or the prefix.
[[nodiscard]] constexpr std::string_view rank_pattern_path(std::string_view key, std::string_view adapter) {
  key = strip_peft_prefix(key);
  if (key.size() > adapter.size() && key.ends_with(adapter) && key[key.size() - adapter.size() - 1] == '.' &&
      key.substr(0, key.size() - adapter.size() - 1).ends_with(".lora_E"))
    key.remove_suffix(adapter.size() + 1);
  if (key.ends_with(".lora_E")) key.remove_suffix(7);
  return key;
}

}  // namespace graft
