#pragma once

#include <graft/graft.hpp>
#include <vector>

#include "llama_config.hpp"

namespace tales {

// A Llama as its author writes it: nothing below knows of batches, caches, threads or which adapter is in
// use. W is the scalar of the weights, which stay where they are, in the mapped file; activations are floats.
template <class W>
using Linear = graft::Adaptable<graft::Linear<W, graft::mapped>>;
template <class W>
using Embedding = graft::Adaptable<graft::Embedding<W, graft::mapped>>;
template <class W>
using Norm = graft::RMSNorm<W, graft::mapped>;

template <class W>
struct LlamaAttention {
  Linear<W> q_proj, k_proj, v_proj, o_proj;
  graft::RotaryOptions rope;
  graft::AttentionOptions shape;

  LlamaAttention(const LlamaConfig& c, graft::Index layer)
      : q_proj(c.hidden_size, c.num_attention_heads * c.head_dim, c.attention_bias),
        k_proj(c.hidden_size, c.num_key_value_heads * c.head_dim, c.attention_bias),
        v_proj(c.hidden_size, c.num_key_value_heads * c.head_dim, c.attention_bias),
        o_proj(c.num_attention_heads * c.head_dim, c.hidden_size, c.attention_bias),
        rope{.head_dim = c.head_dim, .theta = c.rope_theta},
        shape{.heads = c.num_attention_heads, .kv_heads = c.num_key_value_heads, .layer = layer} {}

  auto operator()(const auto& x) const {
    auto q = graft::rotary(q_proj(x), rope);
    auto k = graft::rotary(k_proj(x), rope);
    return o_proj(graft::attention(q, k, v_proj(x), shape));
  }
  GRAFT_MODULE(q_proj, k_proj, v_proj, o_proj)
};

template <class W>
struct LlamaMLP {
  Linear<W> gate_proj, up_proj, down_proj;

  explicit LlamaMLP(const LlamaConfig& c)
      : gate_proj(c.hidden_size, c.intermediate_size, c.mlp_bias),
        up_proj(c.hidden_size, c.intermediate_size, c.mlp_bias),
        down_proj(c.intermediate_size, c.hidden_size, c.mlp_bias) {}

  auto operator()(const auto& x) const {
    return down_proj(graft::mul(graft::silu(gate_proj(x)), up_proj(x)));
  }
  GRAFT_MODULE(gate_proj, up_proj, down_proj)
};

template <class W>
struct LlamaDecoderLayer {
  LlamaAttention<W> self_attn;
  LlamaMLP<W> mlp;
  Norm<W> input_layernorm, post_attention_layernorm;

  LlamaDecoderLayer(const LlamaConfig& c, graft::Index layer)
      : self_attn(c, layer),
        mlp(c),
        input_layernorm(c.hidden_size, c.rms_norm_eps),
        post_attention_layernorm(c.hidden_size, c.rms_norm_eps) {}

  auto operator()(const auto& x) const {
    auto h = graft::add(x, self_attn(input_layernorm(x)));
    return graft::add(h, mlp(post_attention_layernorm(h)));
  }
  GRAFT_MODULE(self_attn, mlp, input_layernorm, post_attention_layernorm)
};

template <class W>
struct LlamaModel {
  Embedding<W> embed_tokens;
  std::vector<LlamaDecoderLayer<W>> layers;
  Norm<W> norm;

  explicit LlamaModel(const LlamaConfig& c)
      : embed_tokens(c.vocab_size, c.hidden_size), norm(c.hidden_size, c.rms_norm_eps) {
    layers.reserve(std::size_t(c.num_hidden_layers));
    for (graft::Index layer = 0; layer < c.num_hidden_layers; ++layer) layers.emplace_back(c, layer);
  }

  auto operator()(const auto& input_ids) const {
    auto h = embed_tokens(input_ids);
    for (const auto& layer : layers) h = layer(h);
    return norm(h);
  }
  GRAFT_MODULE(embed_tokens, layers, norm)
};

/// Module names are those of transformers, so checkpoints and PEFT adapters fit as they are.
template <class W>
struct LlamaForCausalLM {
  LlamaModel<W> model;
  Linear<W> lm_head;

  explicit LlamaForCausalLM(const LlamaConfig& c) : model(c), lm_head(c.hidden_size, c.vocab_size, false) {}

  [[nodiscard]] graft::Index vocab_size() const { return lm_head->weight.rows(); }
  /// Logits, (n, vocab_size).
  auto operator()(const auto& input_ids) const { return lm_head(model(input_ids)); }
  /// Logits of the last row of each sequence: all that generation needs.
  auto next(const auto& input_ids) const { return lm_head(graft::last(model(input_ids))); }
  GRAFT_MODULE(model, lm_head)
};

}  // namespace tales
