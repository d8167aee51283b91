#include <graft/adapters/adalora.hpp>

#include "support/laws.hpp"

using graft::Index;
using graft::Matrix;

namespace {

struct Net {
  graft::Adaptable<graft::Linear<double>> lin{2, 2};
  auto operator()(const auto& x) const { return lin(x); }
  GRAFT_MODULE(lin)
};
void set(const graft::ParameterView& parameter, std::initializer_list<double> values) {
  REQUIRE(parameter.view<double>().size() == Index(values.size()));
  std::copy(values.begin(), values.end(), parameter.view<double>().data());
}
Net golden(graft::AdaLoraConfig config) {
  Net net;
  net.lin->weight.view() << 1, 2, 3, 4;
  net.lin->bias.view() << 0.5, -0.5;
  config.target_modules = {"lin"};
  (void)graft::inject_adapter_in_model(config, net);
  return net;
}
const Matrix<double> x12 = (Matrix<double>(1, 2) << 1, 2).finished();
bool is(const Matrix<double>& y, std::vector<double> expected, double tolerance) {
  return results::close(results::values_of(y), expected, tolerance);
}

}  // namespace

TEST_CASE("AdaLoRA: PEFT's golden vector 5") {
  Net net = golden({.init_r = 2, .target_r = 1, .lora_alpha = 3});
  set(net.lin.parameter("default", "lora_A"), {1, -1, 0, 2});
  set(net.lin.parameter("default", "lora_E"), {0.5, -1});
  set(net.lin.parameter("default", "lora_B"), {2, 0, 1, 1});
  CHECK(is(net(x12), {4.00000750, 3.75003375}, 1e-8));  // printed with eight decimals
}

TEST_CASE(
    "AdaLoRA keeps dividing by the initial rank when ranks are pruned, and falls back to it for alpha <= 0") {
  Net net = golden(
      {.init_r = 3, .target_r = 1, .lora_alpha = 6, .rank_pattern = {{"lin.lora_E", {false, true, false}}}});
  CHECK(net.lin.parameter("default", "lora_A").shape() == std::vector<Index>{1, 2});
  CHECK(net.lin.parameter("default", "lora_B").shape() == std::vector<Index>{2, 1});
  CHECK(net.lin.parameter("default", "lora_E").shape() == std::vector<Index>{1, 1});
  CHECK(net.lin.parameter("default", "ranknum").view<double>()(0, 0) == 3);
  const auto fill = [](Net& one) {
    set(one.lin.parameter("default", "lora_A"), {1, 1});  // A·x = 3
    set(one.lin.parameter("default", "lora_E"), {0.5});
    set(one.lin.parameter("default", "lora_B"), {2, -4});  // B·E·A·x = (3, -6)
  };
  fill(net);
  const double kappa = 6 / 3.00001;
  CHECK(is(net(x12), {5.5 + 3 * kappa, 10.5 - 6 * kappa}, 1e-12));
  for (const double alpha : {0.0, -2.0}) {
    Net fallen =
        golden({.init_r = 3, .lora_alpha = alpha, .rank_pattern = {{"lin.lora_E", {false, true, false}}}});
    fill(fallen);
    const double one = 1 / 3.00001;  // the kept rank over the initial one
    CHECK(is(fallen(x12), {5.5 + 3 * one, 10.5 - 6 * one}, 1e-12));
  }
}

TEST_CASE("a layer whose ranks were all pruned adds nothing") {
  for (const bool meta : {false, true}) {
    Net net = golden({.init_r = 2, .rank_pattern = {{"lin.lora_E.default", {false, false}}}});
    CHECK(results::same_bits(net(x12), (Matrix<double>(1, 2) << 5.5, 10.5).finished()));
    const graft::StateDict saved = graft::get_peft_model_state_dict(net);
    CHECK(saved.keys() == std::vector<std::string>{"lin.lora_A", "lin.lora_B", "lin.lora_E"});
    CHECK(saved.at("lin.lora_A").shape == std::vector<Index>{0, 2});
    CHECK(saved.at("lin.lora_B").shape == std::vector<Index>{2, 0});
    CHECK(saved.at("lin.lora_E").shape == std::vector<Index>{0, 1});
    Net fresh;
    (void)graft::inject_adapter_in_model(
        graft::AdaLoraConfig{.init_r = 2,
                             .target_modules = {"lin"},
                             .rank_pattern = {{"base_model.model.lin.lora_E", {false, false}}}},
        fresh, "other", {.low_cpu_mem_usage = meta});
    CHECK(
        graft::set_peft_model_state_dict(fresh, saved, "other", {.low_cpu_mem_usage = meta}).loaded.size() ==
        3);
    CHECK(fresh.lin.parameter("other", "ranknum").view<double>()(0, 0) == 0);
  }
}

TEST_CASE("AdaLoRA starts as the identity, A and B small; without init everything is normal") {
  Net net = golden({.init_r = 50});
  const auto a = net.lin.parameter("default", "lora_A").view<double>();
  CHECK((net.lin.parameter("default", "lora_E").view<double>().array() == 0).all());
  CHECK(a.cwiseAbs().maxCoeff() < 0.02 * 5);
  CHECK(std::sqrt(a.squaredNorm() / 100) == doctest::Approx(0.02).epsilon(0.3));
  Net loud = golden({.init_r = 50, .init_lora_weights = false});
  for (const char* name : {"lora_A", "lora_B", "lora_E"}) {
    const auto values = loud.lin.parameter("default", name).view<double>();
    CHECK(std::sqrt(values.squaredNorm() / double(values.size())) == doctest::Approx(1).epsilon(0.3));
  }
}

TEST_CASE("AdaLoRA refuses 1-d and grouped convolutions before anything changes") {
  awkward::Net<awkward::Conv1dCase<float>> conv1d;
  awkward::Net<awkward::GroupedConv2dCase<float>> grouped;
  const graft::AdaLoraConfig config{.target_modules = {"site"}};
  CHECK_THROWS_AS(graft::inject_adapter_in_model(config, conv1d), graft::TargetError);
  CHECK_THROWS_AS(graft::inject_adapter_in_model(config, grouped), graft::TargetError);
  CHECK(results::everything(conv1d) == results::everything(awkward::Net<awkward::Conv1dCase<float>>{}));
}

TEST_CASE("the laws hold for AdaLoRA at a linear layer") {
  laws::all<awkward::LinearCase<double>, laws::AdaLoraMethod>();
}
TEST_CASE("the laws hold for AdaLoRA at a convolution") {
  laws::all<awkward::Conv2dCase<float>, laws::AdaLoraMethod>();
}
TEST_CASE("the laws hold for AdaLoRA at a transposed layer") {
  laws::all<awkward::TransposedCase<float>, laws::AdaLoraMethod>();
}
