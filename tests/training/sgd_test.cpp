#include <graft/training/sgd.hpp>

#include "training/recorded.hpp"

using graft::Sgd;
using graft::SgdOptions;

TEST_CASE("steps are those of torch.optim.SGD") {
  const auto check = [](const char* name, const SgdOptions& options) {
    recorded::follow_both(name, [&](graft::TrainableParameters list) { return std::make_unique<Sgd>(std::move(list), options); });
  };
  check("sgd", {});
  check("sgd_decay", {.lr = 0.03, .weight_decay = 0.1});
  check("sgd_momentum", {.lr = 0.03, .momentum = 0.9, .dampening = 0.2, .weight_decay = 0.1});
  check("sgd_nesterov", {.lr = 0.03, .momentum = 0.8, .nesterov = true});
}

TEST_CASE("a state exists where there is momentum") {
  recorded::TwoParameters parameters(graft::Dtype::f32);
  Sgd plain(parameters.list()), heavy(parameters.list(), {.momentum = 0.5});
  graft::Gradients gradients;
  parameters.add_gradients<float>(gradients, 2);
  plain.step(gradients);
  heavy.step(gradients);
  CHECK(plain.state_dict().keys() == std::vector<std::string>{"step.a.weight"});
  CHECK(heavy.state_dict().keys() == std::vector<std::string>{"step.a.weight", "momentum_buffer.a.weight"});
}

TEST_CASE("options that torch refuses are errors") {
  recorded::TwoParameters parameters(graft::Dtype::f32);
  const auto make = [&](const SgdOptions& options) { const Sgd optimizer(parameters.list(), options); };
  CHECK_THROWS_AS(make({.lr = -1}), graft::TrainingError);
  CHECK_THROWS_AS(make({.momentum = -0.1}), graft::TrainingError);
  CHECK_THROWS_AS(make({.weight_decay = -0.1}), graft::TrainingError);
  CHECK_THROWS_AS(make({.nesterov = true}), graft::TrainingError);
  CHECK_THROWS_AS(make({.momentum = 0.5, .dampening = 0.1, .nesterov = true}), graft::TrainingError);
}
