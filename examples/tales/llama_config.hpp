#pragma once

#include <graft/tensor/shape.hpp>

namespace tales {

/// The sizes of a Llama, under the names of its config.json.
struct LlamaConfig {
  graft::Index vocab_size = 32000, hidden_size = 4096, intermediate_size = 11008;
  graft::Index num_hidden_layers = 32, num_attention_heads = 32, num_key_value_heads = 32, head_dim = 128;
  double rms_norm_eps = 1e-6, rope_theta = 10000;
  bool attention_bias = false, mlp_bias = false, tie_word_embeddings = false;
};

}  // namespace tales
