#include <graft/training/clip_grad_norm.hpp>

#include <limits>

#include "training/recorded.hpp"

using graft::Gradients;
using recorded::TwoParameters;

TEST_CASE("gradients are clipped as torch.nn.utils.clip_grad_norm_ does") {
  const graft::StateDict& values = recorded::optimizers();
  TwoParameters parameters(graft::Dtype::f64);
  for (const double max_norm : {0.5, 100.0})
    for (const bool all : {false, true}) {
      const std::string name = max_norm == 0.5 ? "clip.0.5." : "clip.100.";
      Gradients gradients;
      parameters.add_gradients<double>(gradients, 3);
      const double norm = all ? graft::clip_grad_norm(gradients, max_norm) : graft::clip_grad_norm(parameters.list(), gradients, max_norm);
      CHECK(norm > 0.5);
      CHECK(std::abs(norm - recorded::at(values.at(name + "norm"), 0)) < 1e-14 * norm);
      const auto check = [&](const graft::ParameterData& parameter, const graft::TensorView& expected) {
        const graft::Matrix<double>* gradient = gradients.find_at<double>(parameter);
        REQUIRE(gradient);
        for (graft::Index i = 0; i < gradient->size(); ++i) CHECK(std::abs(gradient->data()[i] - recorded::at(expected, i)) < 1e-15);
      };
      check(parameters.weight, values.at(name + "weight"));
      check(parameters.bias, values.at(name + "bias"));
    }
}

TEST_CASE("gradients of other parameters stay as they are where a list is given") {
  TwoParameters parameters(graft::Dtype::f32);
  graft::ParameterData other(graft::Dtype::f32, {1, 2});
  other.allocate();
  Gradients gradients;
  parameters.add_gradients<float>(gradients, 3);
  gradients.at<float>(other).setConstant(100);
  const double norm = graft::clip_grad_norm(parameters.list(), gradients, 0.5);
  CHECK(norm < 50);
  CHECK((gradients.find_at<float>(other)->array() == 100).all());
  CHECK(std::abs(graft::clip_grad_norm(parameters.list(), gradients, 10) - 0.5) < 1e-5);
  CHECK(graft::clip_grad_norm(gradients, 10) > 100);
  CHECK(std::abs(gradients.norm() - 10) < 1e-5);
}

TEST_CASE("norms that are none") {
  Gradients none;
  CHECK(graft::clip_grad_norm(none, 1) == 0);
  graft::ParameterData one(graft::Dtype::f64, {1, 2});
  one.allocate();
  Gradients gradients;
  gradients.at<double>(one).setConstant(std::numeric_limits<double>::infinity());
  CHECK_THROWS_AS((void)graft::clip_grad_norm(gradients, -1), graft::TrainingError);
  CHECK_THROWS_AS((void)graft::clip_grad_norm(gradients, std::numeric_limits<double>::quiet_NaN()), graft::TrainingError);
  CHECK(std::isinf(graft::clip_grad_norm(gradients, 1)));
  CHECK(std::isnan((*gradients.find_at<double>(one))(0, 0)));  // as torch
}
