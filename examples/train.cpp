// Trains a LoRA of a small language model of the caller's, with two other adapters beside it in the same batches: what it
// learns, and that the base did not change.
#include <graft/graft.hpp>
#include <graft/train.hpp>

#include <cstdio>
#include <vector>

using graft::Index;

// A model as its author writes it: nothing in it knows of training.
struct Block {
  graft::Adaptable<graft::Linear<double>> q_proj, k_proj, v_proj, o_proj, up_proj, down_proj;
  graft::RMSNorm<double> attention_norm, mlp_norm;

  explicit Block(Index width)
      : q_proj(width, width, false), k_proj(width, width, false), v_proj(width, width, false), o_proj(width, width, false),
        up_proj(width, 2 * width), down_proj(2 * width, width), attention_norm(width), mlp_norm(width) {}

  auto operator()(const auto& x) const {
    const auto n = attention_norm(x);
    const auto q = graft::rotary(q_proj(n), {.head_dim = 4}), k = graft::rotary(k_proj(n), {.head_dim = 4});
    const auto h = graft::add(x, o_proj(graft::attention(q, k, v_proj(n), {.heads = 4, .kv_heads = 4})));
    return graft::add(h, down_proj(graft::gelu(up_proj(mlp_norm(h)))));
  }
  GRAFT_MODULE(q_proj, k_proj, v_proj, o_proj, up_proj, down_proj, attention_norm, mlp_norm)
};

struct Model {
  graft::Embedding<double> embed_tokens{12, 16};
  std::vector<Block> layers;
  graft::RMSNorm<double> norm{16};
  graft::Linear<double> lm_head{16, 12, false};

  Model() { layers.assign(2, Block(16)); }

  auto operator()(const auto& ids) const {
    auto h = embed_tokens(ids);
    for (const auto& layer : layers) h = layer(h);
    return lm_head(norm(h));
  }
  GRAFT_MODULE(embed_tokens, layers, norm, lm_head)
};

// Counting up by `stride` from `start`, modulo 12.
std::vector<int> count(int start, int stride, int length) {
  std::vector<int> ids;
  for (int i = 0; i < length; ++i) ids.push_back((start + i * stride) % 12);
  return ids;
}

int main() {
  Model model;
  graft::initialise(model, 1);
  const std::vector<int> probe = count(3, 1, 6);
  const graft::Matrix<double> before = model(probe);

  // Three adapters, each of which will learn to count in its own way: by 1, by 5, by 7.
  const int strides[] = {1, 5, 7};
  const char* const names[] = {"ones", "fives", "sevens"};
  for (const char* name : names)
    graft::inject_adapter_in_model(graft::LoraConfig{.r = 4, .lora_alpha = 8, .target_modules = {"q_proj", "v_proj", "up_proj", "down_proj"}},
                                   model, name, {.activate = false});
  graft::set_requires_grad(model, {"ones", "fives", "sevens"}, true);

  graft::Batch batch;
  graft::Tape tape;
  graft::AdamW optimizer(graft::trainable_parameters(model), {.lr = 0.02});
  for (int step = 0; step < 120; ++step) {
    batch.clear();
    std::vector<int> ids;
    for (int i = 0; i < 3; ++i) {  // one sequence of each adapter, in one batch
      const std::vector<int> sequence = count(step * 5 + i, strides[i], 7 + i);
      batch.add(Index(sequence.size()), graft::select(model, {{names[i]}}));
      ids.insert(ids.end(), sequence.begin(), sequence.end());
    }
    const auto tokens = batch.input(ids);
    const graft::Loss loss = graft::cross_entropy(model(tape.input(tokens)), graft::next_token_targets(tokens));
    tape.backward(loss);
    optimizer.step(tape.gradients());
    if (step % 40 == 0 || step == 119) std::printf("step %3d  loss %.2f\n", step, loss.value());
    tape.gradients().clear();
    tape.clear();
  }

  // Each continues what it is given in its own way.
  for (int i = 0; i < 3; ++i) {
    std::vector<int> text = count(2, strides[i], 4);
    while (text.size() < 12) {
      batch.clear();
      batch.add(Index(text.size()), graft::select(model, {{names[i]}}));
      const auto logits = model(batch.input(text));
      Index next = 0;
      logits.value().row(logits.rows() - 1).maxCoeff(&next);
      text.push_back(int(next));
    }
    std::printf("%-7s", names[i]);
    for (const int id : text) std::printf(" %d", id);
    std::printf("\n");
  }

  const auto off = graft::disable_adapter(model);
  std::printf("the base is as it was: %s\n", graft::Matrix<double>(model(probe)) == before ? "yes" : "no");
}
