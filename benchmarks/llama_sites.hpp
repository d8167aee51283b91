#pragma once

#include <vector>

#include <graft/graft.hpp>

/// The 224 sites of a Llama of 32 blocks. Its weights have shapes and no memory: what is measured is not theirs.
struct LlamaSites {
  using Site = graft::Adaptable<graft::Linear<float, graft::lazy>>;
  static constexpr graft::Index hidden = 4096, intermediate = 11008;

  static Site square() { return Site(hidden, hidden, false); }
  struct Attention {
    Site q_proj = square(), k_proj = square(), v_proj = square(), o_proj = square();
    GRAFT_MODULE(q_proj, k_proj, v_proj, o_proj)
  };
  struct Mlp {
    Site gate_proj{hidden, intermediate, false}, up_proj{hidden, intermediate, false};
    Site down_proj{intermediate, hidden, false};
    GRAFT_MODULE(gate_proj, up_proj, down_proj)
  };
  struct Layer {
    Attention self_attn;
    Mlp mlp;
    GRAFT_MODULE(self_attn, mlp)
  };
  std::vector<Layer> layers = std::vector<Layer>(32);
  GRAFT_MODULE(layers)

  static graft::LoraConfig lora(int r) {
    return {.r = r, .target_modules = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}};
  }
};
