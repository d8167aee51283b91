#include <doctest/doctest.h>

#include <graft/core/keys.hpp>

using namespace graft;

TEST_CASE("a key's module stands before the last adapter parameter in it") {
  static_assert(adapted_module_of("q_proj.lora_A.weight") == "q_proj");
  static_assert(adapted_module_of("base_model.model.a.0.q_proj.lora_B.bias") == "a.0.q_proj");
  static_assert(adapted_module_of("a.q.lora_A.default.weight") == "a.q");
  static_assert(adapted_module_of("e.lora_embedding_A") == "e");
  static_assert(adapted_module_of("e.lora_embedding_B.default") == "e");
  static_assert(adapted_module_of("q.lora_E") == "q");
  static_assert(adapted_module_of("q.ia3_l") == "q");
  static_assert(adapted_module_of("q.lora_magnitude_vector") == "q");
  static_assert(adapted_module_of("q.base_layer.lora_A.weight") == "q.base_layer");
  static_assert(adapted_module_of("q.weight").empty());
  static_assert(adapted_module_of("lora_A.weight").empty());
  static_assert(adapted_module_of("q.base_layer.bias").empty());
  static_assert(adapted_module_of("").empty());
}

TEST_CASE("a module whose own name looks like a parameter's is no parameter") {
  static_assert(adapted_module_of("net.lora_tower.q.lora_A.weight") == "net.lora_tower.q");
  static_assert(adapted_module_of("net.lora_tower.q.weight").empty());
  static_assert(adapted_module_of("net.ia3_block.bias").empty());
  static_assert(adapted_module_of("net.lora_A.q.ia3_l") == "net.lora_A.q");
}

TEST_CASE("PeftModel's prefix is taken off once, at the beginning") {
  static_assert(strip_peft_prefix("base_model.model.base_model.model.q") == "base_model.model.q");
  static_assert(strip_peft_prefix("my.base_model.model.q") == "my.base_model.model.q");
  static_assert(strip_peft_prefix("q") == "q");
}

TEST_CASE("keys are put together from their parts") {
  CHECK(join_path("", "q") == "q");
  CHECK(join_path("a", "") == "a");
  CHECK(join_path("a.b", "q") == "a.b.q");
  CHECK(file_key("a.q", "lora_A", ".weight") == "a.q.lora_A.weight");
  CHECK(file_key("", "ia3_l", "") == "ia3_l");
  CHECK(memory_key("a.q", "lora_B", "x", ".bias") == "a.q.lora_B.x.bias");
  CHECK(memory_key("e", "lora_embedding_A", "x", "") == "e.lora_embedding_A.x");
}

TEST_CASE("a key is of a module, not of one whose name begins alike") {
  static_assert(is_key_of("a.b.weight", "a.b"));
  static_assert(is_key_of("a.b", "a.b"));
  static_assert(!is_key_of("a.bc.weight", "a.b"));
  static_assert(!is_key_of("a", "a.b"));
}

TEST_CASE("a rank pattern's key may carry the prefix and the adapter's name") {
  static_assert(rank_pattern_path("m.q.lora_E", "default") == "m.q");
  static_assert(rank_pattern_path("m.q.lora_E.default", "default") == "m.q");
  static_assert(rank_pattern_path("base_model.model.m.q.lora_E.x", "x") == "m.q");
  static_assert(rank_pattern_path("m.q.lora_E.default", "other") == "m.q.lora_E.default");
  static_assert(rank_pattern_path("m.default", "default") == "m.default");
}
