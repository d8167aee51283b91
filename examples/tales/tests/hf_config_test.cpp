#include "../hf_config.hpp"

#include <doctest/doctest.h>

#include "support.hpp"

using tales_test::TemporaryFolder;

namespace {
nlohmann::json small_config() {
  return {{"model_type", "llama"},    {"architectures", {"LlamaForCausalLM"}},
          {"vocab_size", 50},         {"hidden_size", 24},
          {"intermediate_size", 40},  {"num_hidden_layers", 3},
          {"num_attention_heads", 6}, {"rms_norm_eps", 1e-5},
          {"hidden_act", "silu"}};
}
tales::LlamaConfig read(const nlohmann::json& json) {
  const TemporaryFolder folder;
  folder.write("config.json", json);
  return tales::read_llama_config(folder.path());
}
nlohmann::json with(const char* field, nlohmann::json value) {
  auto json = small_config();
  json[field] = std::move(value);
  return json;
}
}  // namespace

TEST_CASE("tales: config.json is read with transformers' defaults") {
  const auto config = read(small_config());
  CHECK(config.vocab_size == 50);
  CHECK(config.num_hidden_layers == 3);
  CHECK(config.num_key_value_heads == 6);
  CHECK(config.head_dim == 4);
  CHECK(config.rope_theta == 10000);
  CHECK(config.rms_norm_eps == 1e-5);
  CHECK(!config.tie_word_embeddings);
  CHECK(!config.attention_bias);
  CHECK(read(with("num_key_value_heads", nullptr)).num_key_value_heads == 6);
  CHECK(read(with("num_key_value_heads", 2)).num_key_value_heads == 2);
  CHECK(read(with("head_dim", nullptr)).head_dim == 4);
  CHECK(read(with("head_dim", 10)).head_dim == 10);
  CHECK(read(with("tie_word_embeddings", true)).tie_word_embeddings);
  CHECK(read(with("attention_bias", true)).attention_bias);
  CHECK(read(with("mlp_bias", true)).mlp_bias);
}

TEST_CASE("tales: theta stands where transformers 4 and 5 write it") {
  CHECK(read(with("rope_theta", 5e5)).rope_theta == 5e5);
  CHECK(read(with("rope_theta", 500000)).rope_theta == 5e5);
  CHECK(read(with("rope_scaling", nullptr)).rope_theta == 10000);
  CHECK(read(with("rope_parameters", {{"rope_theta", 1e6}, {"rope_type", "default"}})).rope_theta == 1e6);
  CHECK(read(with("rope_scaling", {{"type", "default"}})).rope_theta == 10000);
}

TEST_CASE("tales: what is computed otherwise is an error, not a wrong figure") {
  CHECK_THROWS_AS(read(with("model_type", "mistral")), graft::ConfigError);
  CHECK_THROWS_AS(read(with("model_type", nullptr)), graft::ConfigError);
  CHECK_THROWS_AS(read(with("architectures", {"LlamaForSequenceClassification"})), graft::ConfigError);
  CHECK_THROWS_AS(read(with("hidden_act", "gelu")), graft::ConfigError);
  CHECK_THROWS_AS(read(with("quantization_config", {{"bits", 4}})), graft::ConfigError);
  CHECK_THROWS_AS(read(with("rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}})), graft::ConfigError);
  CHECK_THROWS_AS(read(with("rope_scaling", {{"type", "linear"}, {"factor", 2.0}})), graft::ConfigError);
  CHECK_THROWS_AS(read(with("rope_parameters", {{"rope_theta", 1e4}, {"partial_rotary_factor", 0.5}})),
                  graft::FileError);
  CHECK_THROWS_AS(read(with("num_key_value_heads", 4)), graft::FileError);
  CHECK_THROWS_AS(read(with("hidden_size", "24")), graft::FileError);
  CHECK_THROWS_AS(read(with("hidden_size", -24)), graft::FileError);
  CHECK_THROWS_AS(read(nlohmann::json::array()), graft::FileError);
  CHECK_THROWS_WITH_AS(read(with("model_type", "mistral")), doctest::Contains("'mistral'"),
                       graft::ConfigError);
}

TEST_CASE("tales: generation ends at the ids of generation_config.json, else of config.json") {
  const TemporaryFolder folder;
  CHECK(tales::end_of_text_ids(folder.path()).empty());
  folder.write("config.json", nlohmann::json{{"eos_token_id", 2}});
  CHECK(tales::end_of_text_ids(folder.path()) == std::vector<int>{2});
  folder.write("generation_config.json", nlohmann::json{{"eos_token_id", {5, 7}}});
  CHECK(tales::end_of_text_ids(folder.path()) == std::vector<int>{5, 7});
}
