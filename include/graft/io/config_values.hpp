#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "../adapters/config_types.hpp"
#include "../core/text.hpp"
#include "../regex.hpp"
#include "json.hpp"

/// The values of a config's fields as JSON: `read_value` answers what it expected where a value has the wrong
/// type, and nothing where it could read it; `written_value` is what PEFT writes.
namespace graft::detail {

using Expected = std::optional<std::string>;

/// Null is what Python takes it for: false.
[[nodiscard]] inline Expected read_value(const Json& json, bool& value) {
  if (!json.is_boolean() && !json.is_null()) return "true or false";
  value = json.is_boolean() && json.get<bool>();
  return std::nullopt;
}
[[nodiscard]] inline Expected read_value(const Json& json, std::int64_t& value) {
  if (!json.is_number_integer()) return "an integer";
  if (json.is_number_unsigned() && json.get<std::uint64_t>() > std::uint64_t{INT64_MAX})
    return "a smaller integer";
  value = json.get<std::int64_t>();
  return std::nullopt;
}
[[nodiscard]] inline Expected read_value(const Json& json, int& value) {
  std::int64_t wide = 0;
  if (Expected expected = read_value(json, wide)) return expected;
  if (wide < std::numeric_limits<int>::min() || wide > std::numeric_limits<int>::max())
    return "an integer that fits 32 bits";
  value = int(wide);
  return std::nullopt;
}
[[nodiscard]] inline Expected read_value(const Json& json, double& value) {
  if (!json.is_number()) return "a number";
  value = json.get<double>();
  return std::nullopt;
}
[[nodiscard]] inline Expected read_value(const Json& json, std::string& value) {
  if (!json.is_string()) return "a string";
  value = json.get<std::string>();
  return std::nullopt;
}
[[nodiscard]] inline Expected read_value(const Json& json, Bias& value) {
  if (json == "none")
    value = Bias::none;
  else if (json == "all")
    value = Bias::all;
  else if (json == "lora_only")
    value = Bias::lora_only;
  else
    return "\"none\", \"all\" or \"lora_only\"";
  return std::nullopt;
}
[[nodiscard]] inline Expected read_value(const Json& json, InitLoraWeights& value) {
  if (json.is_string() && json != "") {
    value = InitLoraWeights(json.get<std::string>());
    return std::nullopt;
  }
  bool plain = false;
  if (json != "" && read_value(json, plain)) return "true, false or the name of an initialisation";
  value = InitLoraWeights(plain);
  return std::nullopt;
}
/// A list, or null for an empty one.
template <class V>
[[nodiscard]] Expected read_value(const Json& json, std::vector<V>& values) {
  values.clear();
  if (json.is_null()) return std::nullopt;
  if (!json.is_array()) return "a list or null";
  for (const Json& item : json) {
    V value{};
    if (Expected expected = read_value(item, value)) return "a list, each item " + *expected;
    values.push_back(std::move(value));
  }
  return std::nullopt;
}
/// An object whose values have one type, or null for an empty one.
template <class V>
[[nodiscard]] Expected read_pairs(const Json& json, std::vector<std::pair<std::string, V>>& pairs) {
  pairs.clear();
  if (json.is_null()) return std::nullopt;
  if (!json.is_object()) return "an object or null";
  for (const auto& [key, item] : json.items()) {
    V value{};
    if (Expected expected = read_value(item, value)) return "for '" + key + "' " + *expected;
    pairs.emplace_back(key, std::move(value));
  }
  return std::nullopt;
}
template <class V>
[[nodiscard]] Expected read_value(const Json& json, PatternMap<V>& map) {
  return read_pairs<V>(json, map);
}
/// The keys of a file end with `.lora_E`, sometimes with the adapter's name behind it; those here are paths.
[[nodiscard]] inline Expected read_value(const Json& json, RankPattern& pattern) {
  if (Expected expected = read_pairs<std::vector<bool>>(json, pattern)) return expected;
  for (auto& [key, kept] : pattern) {
    std::string_view path = key;
    if (last_segment(path) != "lora_E") path = parent_path(path);
    if (last_segment(path) != "lora_E") return "keys that end with '.lora_E', not '" + key + "'";
    key = std::string(parent_path(path));
  }
  return std::nullopt;
}
[[nodiscard]] inline Expected read_value(const Json& json, TokenIndices& tokens) {
  std::vector<Index> list;
  std::vector<std::pair<std::string, std::vector<Index>>> modules;
  if (json.is_array()) {
    if (Expected expected = read_value(json, list)) return expected;
    if (!list.empty()) modules.emplace_back("embed_tokens", std::move(list));
  } else if (read_pairs<std::vector<Index>>(json, modules)) {
    return "a list of integers, an object of such lists, or null";
  }
  tokens = TokenIndices(std::move(modules), json.is_array());
  return std::nullopt;
}
[[nodiscard]] inline Expected read_value(const Json& json, TargetModules& targets) {
  std::vector<std::string> names;
  if (json.is_null())
    targets = TargetModules();
  else if (json.is_string())
    targets = regex(json.get<std::string>());
  else if (!json.is_array() || read_value(json, names))
    return "a list of names, a regular expression or null";
  else
    targets = TargetModules(std::move(names));
  return std::nullopt;
}

/// A number that is written without a fraction where it has none, as PEFT's `lora_alpha` usually is.
template <class V>
struct Plain {
  V& value;
};
/// `target_modules`, where a string may mean all linear layers.
struct Targets {
  TargetModules& value;
};
/// A list that a file may give as its only item (`layers_to_transform`, `layers_pattern`).
template <class V>
struct OneOrMore {
  std::vector<V>& value;
};
/// A switch that PEFT also takes from any other value, as Python would (AdaLoRA's `init_lora_weights`).
struct Truthy {
  bool& value;
};
/// A set of modules that stands in the file even when it is empty.
struct Required {
  TargetModules& value;
};
/// An integer that is null where it is 0.
struct NullIfZero {
  int& value;
};

template <class V>
[[nodiscard]] Expected read_value(const Json& json, Plain<V> field) {
  return read_value(json, field.value);
}
[[nodiscard]] inline Expected read_value(const Json& json, Targets field) {
  std::string text = json.is_string() ? json.get<std::string>() : std::string();
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  if (text != "all-linear") return read_value(json, field.value);
  field.value = all_linear;
  return std::nullopt;
}
template <class V>
[[nodiscard]] Expected read_value(const Json& json, OneOrMore<V> field) {
  field.value.clear();
  if (json.is_null() || json.is_array()) return read_value(json, field.value);
  V only{};
  if (Expected expected = read_value(json, only)) return "a list, null or " + *expected;
  if (json != "") field.value.push_back(std::move(only));
  return std::nullopt;
}
[[nodiscard]] inline Expected read_value(const Json& json, Truthy field) {
  if (!json.is_string()) return read_value(json, field.value);
  field.value = json != "";
  return std::nullopt;
}
[[nodiscard]] inline Expected read_value(const Json& json, Required field) {
  if (json.is_null()) return "a list, which may be empty, or a regular expression";
  return read_value(json, field.value);
}
[[nodiscard]] inline Expected read_value(const Json& json, NullIfZero field) {
  field.value = 0;
  return json.is_null() ? std::nullopt : read_value(json, field.value);
}

[[nodiscard]] inline Json written_value(bool value) { return value; }
[[nodiscard]] inline Json written_value(int value) { return value; }
[[nodiscard]] inline Json written_value(double value) { return value; }
[[nodiscard]] inline Json written_value(Bias bias) {
  return bias == Bias::none ? "none" : bias == Bias::all ? "all" : "lora_only";
}
[[nodiscard]] inline Json written_value(const InitLoraWeights& init) {
  return init.is_bool() ? Json(init.value()) : Json(init.scheme());
}
template <class V>
[[nodiscard]] Json written_value(const std::vector<V>& values) {
  return values.empty() ? Json() : Json(values);
}
[[nodiscard]] inline Json without_fraction(double value) {
  const bool is_whole = value == std::floor(value) && std::abs(value) < 1e15;
  return is_whole ? Json(std::int64_t(value)) : Json(value);
}
[[nodiscard]] inline Json written_value(Plain<double> field) { return without_fraction(field.value); }
[[nodiscard]] inline Json written_value(const PatternMap<int>& map) {
  Json object = Json::object();
  for (const auto& [pattern, value] : map) object.emplace(pattern, value);
  return object;
}
[[nodiscard]] inline Json written_value(Plain<PatternMap<double>> field) {
  Json object = Json::object();
  for (const auto& [pattern, value] : field.value) object.emplace(pattern, without_fraction(value));
  return object;
}
[[nodiscard]] inline Json written_value(const RankPattern& pattern) {
  Json object;
  for (const auto& [path, kept] : pattern) {
    const bool has_suffix = last_segment(path) == "lora_E";
    object[has_suffix ? path : path.empty() ? "lora_E" : path + ".lora_E"] = kept;
  }
  return object;
}
[[nodiscard]] inline Json written_value(const TokenIndices& tokens) {
  if (tokens.is_list()) return tokens.empty() ? Json::array() : Json(tokens.modules().front().second);
  Json object;
  for (const auto& [module, indices] : tokens.modules()) object[module] = indices;
  return object;
}
/// PEFT holds lists of modules as sets: their order says nothing, and a sorted one is the same in every run.
[[nodiscard]] inline Json written_value(const TargetModules& targets) {
  if (targets.kind() == TargetModules::Kind::unset) return Json();
  if (targets.kind() == TargetModules::Kind::all_linears) return "all-linear";
  if (targets.kind() == TargetModules::Kind::regex) return targets.regex().pattern;
  std::vector<std::string> names = targets.names();
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return Json(names);
}
[[nodiscard]] inline Json written_value(Targets field) { return written_value(field.value); }
template <class V>
[[nodiscard]] Json written_value(OneOrMore<V> field) {
  return written_value(field.value);
}
[[nodiscard]] inline Json written_value(Truthy field) { return field.value; }
[[nodiscard]] inline Json written_value(Required field) {
  return field.value.is_set() ? written_value(field.value) : Json::array();
}
[[nodiscard]] inline Json written_value(NullIfZero field) {
  return field.value == 0 ? Json() : Json(field.value);
}

}  // namespace graft::detail
