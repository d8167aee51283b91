#include <graft/training/adam.hpp>

#include <graft/training/clip_grad_norm.hpp>

#include "training/recorded.hpp"

using graft::Adam;
using graft::AdamW;

TEST_CASE("steps are those of torch.optim.Adam and AdamW") {
  const auto check = [](const char* name, auto options) {
    using Options = decltype(options);
    using Kind = std::conditional_t<std::is_same_v<Options, graft::AdamWOptions>, AdamW, Adam>;
    recorded::follow_both(name, [&](graft::TrainableParameters list) { return std::make_unique<Kind>(std::move(list), options); });
  };
  check("adam", graft::AdamOptions{.lr = 0.02, .betas = {0.8, 0.95}, .weight_decay = 0.1});
  check("adam_small_beta", graft::AdamOptions{.lr = 0.02, .betas = {0.3, 0.95}, .eps = 1e-3});
  check("adamw", graft::AdamWOptions{});
  check("adamw_amsgrad", graft::AdamWOptions{.lr = 0.02, .betas = {0.8, 0.7}, .weight_decay = 0.3, .amsgrad = true});
}

TEST_CASE("a mean that keeps nothing is the gradient, to the bit") {
  recorded::TwoParameters parameters(graft::Dtype::f32);
  Adam optimizer(parameters.list(), {.betas = {0, 0.9}});
  graft::Gradients gradients;
  for (int step = 0; step < 4; ++step) {
    gradients.clear();
    parameters.add_gradients<float>(gradients, step);
    optimizer.step(gradients);
  }
  const graft::StateDict state = optimizer.state_dict();
  const graft::Matrix<float>& gradient = *gradients.find_at<float>(parameters.weight);
  for (graft::Index i = 0; i < 15; ++i) CHECK(float(recorded::at(state.at("exp_avg.a.weight"), i)) == gradient.data()[i]);
}

namespace {
struct Net {
  graft::Adaptable<graft::Linear<double>> up{5, 7}, down{7, 3};
  GRAFT_MODULE(up, down)
};
}  // namespace

TEST_CASE("an adapter of a model goes where PEFT's goes") {
  const graft::StateDict& values = recorded::optimizers();
  Net net;
  graft::StateDict base, start;
  for (const auto& [key, view] : values) {
    if (key.starts_with("lora.base.")) base.insert(key.substr(10), view);
    if (key.starts_with("lora.0.")) start.insert(key.substr(7), view);
  }
  (void)graft::set_base_model_state_dict(net, base);
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.r = 2, .lora_alpha = 3, .target_modules = {"up", "down"}, .use_dora = true}, net);
  (void)graft::set_peft_model_state_dict(net, start);
  AdamW optimizer(graft::trainable_parameters(net), {.lr = 0.01, .weight_decay = 0.05});
  REQUIRE(optimizer.parameters().size() == 6);
  graft::Gradients gradients;
  for (int step = 0; step < 6; ++step) {
    CAPTURE(step);
    gradients.clear();
    for (const graft::TrainableParameter& one : optimizer.parameters())
      recorded::add_gradient<double>(gradients, *one.parameter, values.at("lora.gradient." + std::to_string(step) + "." + one.key));
    const double norm = graft::clip_grad_norm(optimizer.parameters(), gradients, 0.3);
    CHECK(std::abs(norm - recorded::at(values.at("lora.norm." + std::to_string(step)), 0)) < 1e-13);
    optimizer.step(gradients);
    for (const graft::TrainableParameter& one : optimizer.parameters()) {
      CAPTURE(one.key);
      CHECK(recorded::error(*one.parameter, values.at("lora." + std::to_string(step + 1) + "." + one.key)) < 1e-13);
    }
  }
  for (const auto& [key, view] : graft::get_peft_model_state_dict(net)) CHECK(recorded::error(view, values.at("lora.file." + key)) < 1e-13);
}

TEST_CASE("options that torch refuses are errors") {
  recorded::TwoParameters parameters(graft::Dtype::f32);
  const auto make = [&](const graft::AdamOptions& options) { const Adam optimizer(parameters.list(), options); };
  CHECK_THROWS_AS(make({.lr = -1}), graft::TrainingError);
  CHECK_THROWS_AS(make({.betas = {1, 0.9}}), graft::TrainingError);
  CHECK_THROWS_AS(make({.betas = {0.9, -0.1}}), graft::TrainingError);
  CHECK_THROWS_AS(make({.eps = -1e-8}), graft::TrainingError);
  CHECK_THROWS_AS(make({.weight_decay = -1}), graft::TrainingError);
  make({.lr = 0, .betas = {0, 0}, .eps = 0});
}
