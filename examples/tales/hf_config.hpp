#pragma once

#include <filesystem>
#include <graft/core/error.hpp>
#include <string>
#include <vector>

#include "json_file.hpp"
#include "llama_config.hpp"

namespace tales {

namespace detail {
inline void require_llama(const JsonFile& file) {
  const auto reject = [&](const std::string& what) {
    graft::fail<graft::ConfigError>(
        file.path().string() + " describes " + what,
        "this program computes Llama's architecture, and others differ in their forward",
        "give a folder whose config.json says \"model_type\": \"llama\"");
  };
  const auto type = file.get<std::string>("model_type", "");
  if (type != "llama") reject(type.empty() ? "no model type" : "the architecture '" + type + "'");
  const auto architectures = file.get<nlohmann::json>("architectures", nlohmann::json::array());
  for (const auto& architecture : architectures)
    if (architecture != "LlamaForCausalLM") reject("the class " + architecture.dump());
  if (file.find<nlohmann::json>("quantization_config"))
    graft::fail<graft::ConfigError>(file.path().string() + " describes quantised weights",
                                    "weights are read as f32, f16 or bf16",
                                    "take the model that was quantised");
}

// "rope_parameters" since transformers 5, "rope_theta" and "rope_scaling" before.
inline double rope_theta(const JsonFile& file) {
  double theta = file.get<double>("rope_theta", 10000);
  for (const char* field : {"rope_scaling", "rope_parameters"}) {
    const auto rope = file.find<nlohmann::json>(field);
    if (!rope) continue;
    if (!rope->is_object())
      file.fail("'" + std::string(field) + "' is not an object", "see transformers' LlamaConfig");
    const auto type_field = rope->contains("rope_type") ? "rope_type" : "type";
    const std::string type =
        rope->contains(type_field) ? file.as<std::string>((*rope)[type_field], field) : "default";
    if (type != "default")
      graft::fail<graft::ConfigError>(
          file.path().string() + " asks for rotary embeddings of the type '" + type + "'",
          "graft::rotary turns by theta alone, the type 'default'",
          "take a model without rope scaling, or write its op with graft::custom");
    if (rope->contains("rope_theta")) theta = file.as<double>((*rope)["rope_theta"], field);
    if (rope->contains("partial_rotary_factor") && (*rope)["partial_rotary_factor"] != 1.0)
      file.fail("it turns only a part of each head", "take a model without partial_rotary_factor");
  }
  return theta;
}
}  // namespace detail

/// Reads DIR/config.json as transformers does; what is missing has transformers' default.
/// @throws graft::ConfigError for another architecture or for a variant that is not computed here,
///         graft::FileError for a broken file.
inline LlamaConfig read_llama_config(const std::filesystem::path& folder) {
  const JsonFile file(folder / "config.json");
  detail::require_llama(file);
  LlamaConfig config;
  const auto size = [&](const char* field, graft::Index otherwise) {
    const auto value = file.get<graft::Index>(field, otherwise);
    if (value < 1 || value > (graft::Index(1) << 31))
      file.fail("'" + std::string(field) + "' is " + std::to_string(value), "sizes are positive");
    return value;
  };
  config.vocab_size = size("vocab_size", config.vocab_size);
  config.hidden_size = size("hidden_size", config.hidden_size);
  config.intermediate_size = size("intermediate_size", config.intermediate_size);
  config.num_hidden_layers = size("num_hidden_layers", config.num_hidden_layers);
  config.num_attention_heads = size("num_attention_heads", config.num_attention_heads);
  config.num_key_value_heads = size("num_key_value_heads", config.num_attention_heads);
  config.head_dim = size("head_dim", config.hidden_size / config.num_attention_heads);
  config.rms_norm_eps = file.get<double>("rms_norm_eps", config.rms_norm_eps);
  config.rope_theta = detail::rope_theta(file);
  config.attention_bias = file.get<bool>("attention_bias", false);
  config.mlp_bias = file.get<bool>("mlp_bias", false);
  config.tie_word_embeddings = file.get<bool>("tie_word_embeddings", false);
  const auto activation = file.get<std::string>("hidden_act", "silu");
  if (activation != "silu" && activation != "swish")
    graft::fail<graft::ConfigError>(file.path().string() + " asks for the activation '" + activation + "'",
                                    "the model here is written with silu, as every published Llama",
                                    "write your own model on graft's layers: llama.hpp is 100 lines");
  if (config.num_attention_heads % config.num_key_value_heads != 0 || config.head_dim % 2 != 0)
    file.fail("its heads cannot be grouped, or their width is odd", "see transformers' LlamaConfig");
  return config;
}

/// The ids at which generation stops, from generation_config.json or config.json; often none or one.
inline std::vector<int> end_of_text_ids(const std::filesystem::path& folder) {
  std::vector<int> ids;
  for (const char* name : {"generation_config.json", "config.json"}) {
    if (!std::filesystem::exists(folder / name)) continue;
    const JsonFile file(folder / name);
    const auto end = file.find<nlohmann::json>("eos_token_id");
    if (!end) continue;
    for (const auto& id : end->is_array() ? *end : nlohmann::json::array({*end}))
      ids.push_back(file.as<int>(id, "eos_token_id"));
    break;
  }
  return ids;
}

}  // namespace tales
