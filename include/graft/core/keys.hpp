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

/// A key without PeftModel's prefix.
[[nodiscard]] constexpr std::string_view strip_peft_prefix(std::string_view key) {
  return key.starts_with(peft_prefix) ? key.substr(peft_prefix.size()) : key;
}

/// The module that an adapter's parameter belongs to: what stands before the last `.lora_` or `.ia3_`. Empty when
/// the key names no such parameter.
[[nodiscard]] constexpr std::string_view adapted_module_of(std::string_view key) {
  key = strip_peft_prefix(key);
  std::size_t at = key.npos;
  for (const std::string_view mark : {".lora_", ".ia3_"}) {
    const std::size_t found = key.rfind(mark);
    if (found != key.npos && (at == key.npos || found > at)) at = found;
  }
  return at == key.npos ? std::string_view{} : key.substr(0, at);
}

/// "path.name", or "name" at the root.
[[nodiscard]] inline std::string join_path(std::string_view path, std::string_view name) {
  std::string whole(path);
  if (!whole.empty() && !name.empty()) whole += '.';
  return whole += name;
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
