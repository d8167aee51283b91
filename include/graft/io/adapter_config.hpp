#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "../adapters/validate.hpp"
#include "../core/compile_once.hpp"
#include "config_fields.hpp"
#include "error_source.hpp"
#include "mapped_file.hpp"

namespace graft {

namespace detail {

/// A field's value as text that can be compared.
inline constexpr PythonJsonOptions one_line{.indent = 0};

/// Whether two patterns of which sorting exchanges the order may match one path with different values, so
/// that the first that matches would be another.
template <class V>
[[nodiscard]] bool order_matters(const PatternMap<V>& map) {
  for (std::size_t later = 0; later < map.size(); ++later)
    for (std::size_t earlier = 0; earlier < later; ++earlier) {
      const std::string &a = map[earlier].first, &b = map[later].first;
      const bool may_overlap =
          !is_plain_pattern(a) || !is_plain_pattern(b) || ends_with_segment(a, b) || ends_with_segment(b, a);
      if (b < a && map[earlier].second != map[later].second && may_overlap) return true;
    }
  return false;
}
[[nodiscard]] bool order_matters(const auto&) { return false; }
template <class V>
[[nodiscard]] bool order_matters(Plain<PatternMap<V>> field) {
  return order_matters(field.value);
}

/// The fields that belong to one value of `init_lora_weights`. PEFT keeps them in what it saves as plain LoRA.
inline constexpr std::array<std::pair<std::string_view, std::string_view>, 4> initialisation_fields{
    {{"corda_config", "corda"}, {"eva_config", "eva"}, {"loftq_config", "loftq"}, {"lora_ga_config", "lora_ga"}}};

/// Whether the field belongs to an initialisation that the config does not ask for.
template <class Config>
[[nodiscard]] bool is_of_another_initialisation(const Config& config, std::string_view name) {
  for (const auto& [field, scheme] : initialisation_fields)
    if (field == name) {
      if constexpr (std::is_same_v<Config, LoraConfig>) return config.init_lora_weights != InitLoraWeights(std::string(scheme));
      else return true;
    }
  return false;
}

/// Reads and warns about what has no member: keeps what differs from PEFT's default.
template <class Config>
void read_other_field(Config& config, const std::string& name, const Json& value,
                      std::vector<std::string>& unknown, std::vector<std::string>& warnings) {
  if (name == "peft_type" || name == "peft_version") return;
  if (name == "runtime_config") {
    warnings.push_back(
        "the field 'runtime_config' is ignored: it holds for one session and belongs in no file");
    return;
  }
  const OtherField* field = find_other_field<Config>(name);
  std::string text = python_json(value, one_line);
  if (field && text == field->default_json) return;
  if (!field) unknown.push_back(name);
  if (field && is_of_another_initialisation(config, name)) {
    warnings.push_back("the field '" + name + "' has no effect: it belongs to another init_lora_weights");
    if (name == "loftq_config") return;  // PEFT empties it
  }
  if (name == "task_type" && !value.is_string())
    fail<ConfigError>("'task_type' is " + text, "a string or null is needed", "correct the file");
  constexpr std::array task_types{"SEQ_CLS",   "SEQ_2_SEQ_LM", "CAUSAL_LM",
                                  "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"};
  if (name == "task_type" && std::find(task_types.begin(), task_types.end(), value) == task_types.end())
    warnings.push_back("the task_type " + text +
                       " is none of PEFT 0.21's, which will refuse to load the adapter");
  constexpr std::array without_effect{"r", "use_rslora", "lora_bias", "alpha_pattern"};
  if (field && std::is_same_v<Config, AdaLoraConfig> &&
      std::find(without_effect.begin(), without_effect.end(), name) != without_effect.end())
    warnings.push_back("the field '" + name +
                       "' has no effect on AdaLoRA, in PEFT as here; it is kept as it is");
  config.extra.emplace_back(name, std::move(text));
}

inline void warn_of_initialisation(const Json& scheme, const std::string& source,
                                   std::vector<std::string>& warnings) {
  if (scheme == "loftq")
    fail<ConfigError>("'" + source + "' asks for the LoftQ initialisation of an AdaLoRA adapter",
                      "PEFT refuses that too", "set init_lora_weights to true");
  warnings.push_back("AdaLoRA knows init_lora_weights true and false alone: " + python_json(scheme) +
                     " means true");
}

template <class Config>
[[nodiscard]] PeftConfig read_config(const Json& object, const std::string& source,
                                     std::vector<std::string>& warnings) {
  Config config;
  std::vector<std::string> members;
  ConfigFields<Config>::members(config, [&](const char* name, auto&& field) {
    members.emplace_back(name);
    const auto place = object.find(name);
    const Json missing;
    constexpr bool is_required = std::is_same_v<std::remove_cvref_t<decltype(field)>, Required>;
    if (place == object.end() && !is_required) return;
    const Json& value = place == object.end() ? missing : *place;
    const std::string where = "the field '" + std::string(name) + "' of '" + source + "'";
    if (const Expected expected = naming_source(where, [&] { return read_value(value, field); }))
      fail<ConfigError>(where + " is " + (place == object.end() ? "missing" : python_json(value, one_line).substr(0, 100)),
                        "it must be " + *expected, "correct the file");
    if (std::is_same_v<std::remove_cvref_t<decltype(field)>, Truthy> && value.is_string())
      warn_of_initialisation(value, source, warnings);
    if (python_json(value, one_line) != python_json(written_value(field), one_line))
      config.extra.spellings.emplace_back(name, python_json(value, {.indent = 0, .sort_keys = false}));
  });
  std::vector<std::string> unknown;
  for (const auto& [name, value] : object.items())
    if (std::find(members.begin(), members.end(), name) == members.end())
      read_other_field(config, name, value, unknown, warnings);
  if (!unknown.empty())
    warnings.push_back(
        "'" + source +
        "' has fields that graft does not know, which have no effect and are kept: " + join(unknown, ", "));
  naming_source("'" + source + "'", [&] { refuse_extra_fields(config.extra); });
  return config;
}
GRAFT_SHARED_FUNCTION(read_config<LoraConfig>)
GRAFT_SHARED_FUNCTION(read_config<AdaLoraConfig>)
GRAFT_SHARED_FUNCTION(read_config<Ia3Config>)

/// The text of a member in the file: as the file that it came from spelt it, as long as that still says the
/// same.
template <class Config>
[[nodiscard]] std::string field_text(const Config& config, std::string_view name, const auto& field) {
  const PythonJsonOptions options{.sort_keys = !order_matters(field), .depth = 1};
  const PythonJsonOptions compared{.indent = 0, .sort_keys = options.sort_keys};
  const Json value = written_value(field);
  for (const auto& [spelt, text] : config.extra.spellings) {
    if (spelt != name) continue;
    const Json spelling = parse_json(text, "ExtraFields::spellings");
    Config other;
    bool is_same = false;
    ConfigFields<Config>::members(other, [&](std::string_view other_name, auto&& other_field) {
      if (other_name != name || read_value(spelling, other_field)) return;
      is_same = python_json(written_value(other_field), compared) == python_json(value, compared);
    });
    if (is_same) return python_json(spelling, options);
  }
  return python_json(value, options);
}

template <class Config>
[[nodiscard]] std::string write_config(Config config, bool inference_mode) {
  config.inference_mode = inference_mode;
  std::map<std::string, std::string, std::less<>> fields;
  fields["peft_type"] = json_quoted(ConfigFields<Config>::peft_type, true);
  fields["peft_version"] = "\"0.21.2\"";
  ConfigFields<Config>::members(
      config, [&](const char* name, auto&& field) { fields[name] = field_text(config, name, field); });
  for (const auto& [name, json] : config.extra) {
    if (fields.contains(name))
      fail<ConfigError>("the extra field '" + name + "' stands twice or has a place of its own",
                        "a config file names each field once",
                        "set the config's member, and remove the extra field");
    fields[name] = python_json(parse_json(json, "extra field " + name), {.depth = 1});
  }
  for (const std::span<const OtherField> group : ConfigFields<Config>::others)
    for (const OtherField& field : group) fields.emplace(field.name, field.default_json);
  if constexpr (std::is_same_v<Config, LoraConfig>)  // PEFT fills it in where the scheme is chosen
    if (std::string& eva = fields["eva_config"]; eva == "null" && config.init_lora_weights == InitLoraWeights("eva"))
      eva = python_json(parse_json(eva_defaults, "eva_config"), {.depth = 1});

  std::string text = "{";
  for (const auto& [name, json] : fields)
    text += (text.size() > 1 ? ",\n  " : "\n  ") + json_quoted(name, true) + ": " + json;
  return text + "\n}";
}
GRAFT_SHARED_FUNCTION(write_config<LoraConfig>)
GRAFT_SHARED_FUNCTION(write_config<AdaLoraConfig>)
GRAFT_SHARED_FUNCTION(write_config<Ia3Config>)

}  // namespace detail

/// Reads the text of an adapter_config.json. Fields that graft has no member for are kept in `extra`;
/// `source` names the text in errors; `warnings`, where given, receives what deserves a look.
/// @throws FileError for a text that is not a JSON object, ConfigError for a field that is wrong, or that
/// stands for something graft does not do.
[[nodiscard]] inline PeftConfig parse_config(std::string_view text,
                                             std::vector<std::string>* warnings = nullptr,
                                             const std::string& source = "adapter_config.json") {
  const Json object = parse_json(text, source);
  if (!object.is_object())
    fail<FileError>("'" + source + "' is no adapter config", "its JSON is not an object", "check the path");
  const auto type = object.find("peft_type");
  const std::string fix = "the types known here are LORA, ADALORA and IA3, in capitals";
  if (type == object.end() || !type->is_string())
    fail<ConfigError>("'" + source + "' has no field 'peft_type', or one that is no string",
                      "it says how to read the other fields", fix);
  std::vector<std::string> found;
  std::vector<std::string>& collected = warnings ? *warnings : found;
  if (*type == "LORA") return detail::read_config<LoraConfig>(object, source, collected);
  if (*type == "ADALORA") return detail::read_config<AdaLoraConfig>(object, source, collected);
  if (*type == "IA3") return detail::read_config<Ia3Config>(object, source, collected);
  fail<ConfigError>("'" + source + "' has the peft_type " + python_json(*type).substr(0, 100),
                    "graft has no such adapter", fix);
}

/// Reads `dir/adapter_config.json`.
/// @throws FileError when it is missing or no JSON, and what `parse_config` throws.
[[nodiscard]] inline PeftConfig load_peft_config(const std::filesystem::path& dir,
                                                 std::vector<std::string>* warnings = nullptr) {
  constexpr const char* file_name = "adapter_config.json";
  const std::filesystem::path path = dir / file_name;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    std::string inner;
    const std::filesystem::path around = dir.has_parent_path() ? dir.parent_path() : ".";
    if (std::filesystem::is_regular_file(dir, error) && std::filesystem::exists(around / file_name, error)) inner = around.string();
    for (std::filesystem::directory_iterator entry(dir, error), end; !error && entry != end;
         entry.increment(error))
      if (std::filesystem::exists(entry->path() / file_name, error)) inner = entry->path().string();
    fail<FileError>(
        "'" + dir.string() + "' has no adapter_config.json",
        "a PEFT adapter is a directory with that file and adapter_model.safetensors",
        inner.empty() ? "check the path" : "name the directory of one adapter, such as '" + inner + "'");
  }
  const auto file = MappedFile::copy(path);
  const auto bytes = file->bytes();
  return parse_config({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, warnings, path.string());
}

/// The text of an adapter_config.json, as PEFT 0.21.2's `save_pretrained` writes it: the complete set of
/// fields, sorted, without a newline at the end. PEFT marks every saved adapter as one for inference.
/// @throws ConfigError and FileError for an extra field that has a member, or whose text is no JSON.
[[nodiscard]] inline std::string config_text(const PeftConfig& config, bool inference_mode = true) {
  return std::visit([&](const auto& one) { return detail::write_config(one, inference_mode); }, config);
}

}  // namespace graft
