#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include <graft/thread_pool.hpp>
#include <graft/train.hpp>

// Training as a whole, at awkward sizes, for AddressSanitizer and UndefinedBehaviorSanitizer to watch: they are too slow to
// compile for the tests of the training room.

using graft::Adaptable;
using graft::Index;

namespace {
struct Net {
  Adaptable<graft::Embedding<>> embed{13, 7, graft::EmbeddingOptions{.padding_idx = 2, .scale_grad_by_freq = true}};
  graft::RMSNorm<> norm{7};
  Adaptable<graft::Linear<>> q{7, 131}, down{131, 7}, head{7, 13};
  auto operator()(const auto& ids) const {
    const auto x = embed(ids);
    return head(graft::add(x, down(graft::silu(q(norm(x))))));
  }
  GRAFT_MODULE(embed, norm, q, down, head)
};
}  // namespace

TEST_CASE("methods of every kind train side by side, on threads, in short parts and long ones") {
  Net net;
  graft::initialise(net, 3);
  graft::LoraConfig lora{.r = 33, .lora_alpha = 5, .bias = graft::Bias::lora_only, .target_modules = {"embed", "q", "down"}, .lora_bias = false,
                         .init_lora_weights = false, .modules_to_save = {"head"}};
  graft::LoraConfig dora{.r = 3, .lora_dropout = 0.2, .target_modules = {"embed", "q"}, .use_dora = true, .init_lora_weights = false};
  const graft::AdaLoraConfig adalora{.init_r = 5, .target_r = 2, .target_modules = {"q", "down"}, .tinit = 0, .tfinal = 1, .deltaT = 1,
                                     .total_step = 4, .init_lora_weights = false};
  const graft::Ia3Config ia3{.target_modules = {"q", "down"}, .feedforward_modules = {"down"}, .init_ia3_weights = false};
  (void)graft::inject_adapter_in_model(lora, net, "lora");
  (void)graft::inject_adapter_in_model(dora, net, "dora");
  (void)graft::inject_adapter_in_model(ia3, net, "ia3");
  (void)graft::inject_adapter_in_model(adalora, net, "adalora", {.low_cpu_mem_usage = true});
  {
    Net other;  // whose adapter stays where it is, until it is stepped
    (void)graft::inject_adapter_in_model(adalora, other, "adalora");
    (void)graft::set_peft_model_state_dict(net, graft::get_peft_model_state_dict(other, "adalora").clone(), "adalora", {.low_cpu_mem_usage = true});
  }
  graft::set_requires_grad(net, {"lora", "dora", "ia3", "adalora"}, true);
  net.norm.weight.set_requires_grad(true);
  const auto of_lora = graft::select(net, {{"lora"}}), two = graft::select(net, {{"dora", 0.5}, {"ia3"}}),
             ranked = graft::select(net, {{"adalora"}, {"ia3", 0.7}});

  graft::ThreadPool pool(3);
  graft::Batch batch;
  batch.set_parallel_for(pool);
  graft::Tape tape({.seed = 7});
  graft::AdamW optimizer(graft::trainable_parameters(net), {.lr = 0.01});
  graft::RankAllocator allocator(net, "adalora");
  double first = 0, last = 0;
  for (long step = 0; step < 4; ++step) {
    batch.clear();
    batch.add(5, of_lora).add(3, two).add(1, of_lora).add(1, graft::base_only()).add(2, two).add(4, ranked).add(600, of_lora).add(2, ranked);
    std::vector<int> ids;
    for (Index i = 0; i < batch.rows(); ++i) ids.push_back(int(i * i % 13));
    const auto tokens = batch.input(ids);
    const graft::Loss loss = graft::cross_entropy(net(tape.input(tokens)), graft::next_token_targets(tokens));
    (step ? last : first) = loss.value();
    tape.backward(loss);
    graft::add_orthogonal_penalty(net, "adalora", tape.gradients());
    (void)graft::clip_grad_norm(tape.gradients(), 1);
    optimizer.step(tape.gradients());
    allocator.update_and_allocate(step, tape.gradients());
    tape.gradients().clear();
    tape.clear();
  }
  CHECK(std::isfinite(last));
  CHECK(last < first);
  const graft::StateDict state = optimizer.state_dict().clone();
  optimizer.load_state_dict(state);
  CHECK(graft::get_peft_model_state_dict(net, "adalora").at("q.lora_A").shape[0] < 5);
}
