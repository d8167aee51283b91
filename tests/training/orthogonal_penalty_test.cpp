#include <graft/training/orthogonal_penalty.hpp>

#include <cmath>

#include <graft/graft.hpp>

#include "support/ramp.hpp"
#include "training/recorded.hpp"

using graft::AdaLoraConfig;
using graft::Gradients;
using graft::Index;

namespace {
template <class T>
struct Golden {
  graft::Adaptable<graft::Linear<T>> lin{2, 2};
  GRAFT_MODULE(lin)
};
template <class T>
struct Net {
  graft::Adaptable<graft::Linear<T>> up{5, 7}, down{7, 3};
  GRAFT_MODULE(up, down)
};
template <class T>
void set(const graft::ParameterView& parameter, std::vector<T> values) {
  REQUIRE(parameter.view<T>().size() == Index(values.size()));
  std::copy(values.begin(), values.end(), parameter.view<T>().data());
}
double penalty_of(const auto& net) {
  Gradients gradients;
  return graft::add_orthogonal_penalty(net, "default", gradients);
}
}  // namespace

TEST_CASE("the penalty is golden vector 6's") {
  const auto check = [&]<class T>(T, double tolerance) {
    Golden<T> net;
    (void)graft::inject_adapter_in_model(AdaLoraConfig{.init_r = 2, .target_r = 1, .target_modules = {"lin"}}, net);
    set<T>(net.lin.parameter("default", "lora_A"), {1, -1, 0, 2});
    set<T>(net.lin.parameter("default", "lora_B"), {2, 0, 1, 1});
    CHECK(std::abs(penalty_of(net) - 0.5 * std::sqrt(18.0)) < tolerance);
    set<T>(net.lin.parameter("default", "lora_A"), {0, 1, 1, 0});  // orthogonal: no slope
    set<T>(net.lin.parameter("default", "lora_B"), {1, 0, 0, 1});
    Gradients gradients;
    CHECK(graft::add_orthogonal_penalty(net, "default", gradients) == 0);
    CHECK(gradients.norm() == 0);
  };
  check(double{}, 1e-15);
  check(float{}, 1e-6);
}

TEST_CASE("the penalty and its gradient are PEFT's, and the slope of the penalty") {
  const graft::StateDict& values = recorded::file("adalora");
  Net<double> net;
  (void)graft::inject_adapter_in_model(AdaLoraConfig{.init_r = 4, .target_r = 2, .target_modules = {"up", "down"}, .orth_reg_weight = 0.3}, net);
  const graft::TrainableParameters parameters = graft::trainable_parameters(net);
  for (const graft::TrainableParameter& one : parameters) graft::detail::assign(*one.parameter, values.at("start." + one.key), false);
  Gradients gradients;
  const double penalty = graft::add_orthogonal_penalty(net, "default", gradients);
  CHECK(penalty > 0.1);
  CHECK(std::abs(penalty - recorded::at(values.at("0.penalty"), 0)) < 1e-14);
  CHECK(gradients.size() == 4);
  for (const graft::TrainableParameter& one : parameters) {
    CAPTURE(one.key);
    const graft::Matrix<double>* gradient = gradients.find_at<double>(*one.parameter);
    CHECK((gradient != nullptr) == (one.name != "lora_E"));
    if (!gradient) continue;
    const graft::TensorView& expected = values.at("penalty." + one.key);
    auto* elements = reinterpret_cast<double*>(one.parameter->data());
    const double h = 1e-5;  // the rest is h²/6 · the third derivative, some 10; rounding is 1e-16 / h
    for (Index i = 0; i < gradient->size(); ++i) {
      CHECK(std::abs(gradient->data()[i] - recorded::at(expected, i)) < 1e-14);
      const double kept = std::exchange(elements[i], elements[i] + h), above = penalty_of(net);
      elements[i] = kept - h;
      CHECK(std::abs((above - penalty_of(net)) / (2 * h) - gradient->data()[i]) < 1e-8);
      elements[i] = kept;
    }
  }
  const graft::Matrix<double> once = *gradients.find_at<double>(*parameters[0].parameter);
  (void)graft::add_orthogonal_penalty(net, "default", gradients);
  CHECK((*gradients.find_at<double>(*parameters[0].parameter) - 2 * once).norm() < 1e-14);  // added, not written
}

TEST_CASE("a layer without ranks counts as PEFT counts it") {
  Net<float> net, whole;
  (void)graft::inject_adapter_in_model(AdaLoraConfig{.init_r = 2, .target_r = 1, .target_modules = {"up", "down"}, .rank_pattern = {{"down", {false, false}}}}, net);
  (void)graft::inject_adapter_in_model(AdaLoraConfig{.init_r = 2, .target_r = 1, .target_modules = {"up"}}, whole);
  CHECK(penalty_of(net) > 0);
  CHECK(std::abs(penalty_of(net) - penalty_of(whole) / 2) < 1e-6);
  graft::set_requires_grad(net, "default", false);
  CHECK_THROWS_AS((void)penalty_of(net), graft::TrainingError);
}
