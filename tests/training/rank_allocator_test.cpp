#include <graft/training/rank_allocator.hpp>

#include <cmath>
#include <limits>

#include <graft/graft.hpp>
#include <graft/training/adam.hpp>

#include "training/recorded.hpp"

using graft::AdaLoraConfig;
using graft::Gradients;
using graft::Index;
using graft::RankAllocator;
using Bools = std::vector<bool>;

namespace {

template <class T>
struct Net {
  graft::Adaptable<graft::Linear<T>> up{5, 7}, down{7, 3};
  GRAFT_MODULE(up, down)
};
template <class T>
struct Golden {
  graft::Adaptable<graft::Linear<T>> lin{2, 2};
  GRAFT_MODULE(lin)
};
AdaLoraConfig schedule() {
  return {.init_r = 4, .target_r = 2, .lora_alpha = 3, .target_modules = {"up", "down"}, .tinit = 2, .tfinal = 3, .deltaT = 2,
          .beta1 = 0.8, .beta2 = 0.9, .orth_reg_weight = 0.3, .total_step = 13};
}
const AdaLoraConfig& config_of(const auto& model) {
  return std::get<AdaLoraConfig>(graft::detail::need_record(graft::sites_of(model), "default")->config());
}
template <class T>
void set(const auto& site, const char* name, std::vector<T> values) {
  const auto view = site.parameter("default", name).template view<T>();
  REQUIRE(view.size() == Index(values.size()));
  std::copy(values.begin(), values.end(), const_cast<T*>(view.data()));
}
void set_all_gradients(const graft::TrainableParameters& parameters, Gradients& gradients, double value) {
  for (const graft::TrainableParameter& one : parameters)
    if (one.parameter->dtype() == graft::Dtype::f64) gradients.at<double>(*one.parameter).setConstant(value);
    else gradients.at<float>(*one.parameter).setConstant(float(value));
}

}  // namespace

TEST_CASE("the budget falls as golden vector 7 says") {
  Net<float> net;
  (void)graft::inject_adapter_in_model(schedule(), net);
  const RankAllocator allocator(net);
  const Index budgets[] = {8, 8, 8, 6, 5, 4, 4, 4, 4, 4, 4, 4, 4, 4};
  const Bools masks{false, false, false, false, true, false, true, false, true, false, true, true, true, true};
  for (long step = 0; step <= 13; ++step) {
    CAPTURE(step);
    CHECK(allocator.budget(step) == budgets[step]);
    CHECK(allocator.masks_at(step) == masks[std::size_t(step)]);
  }
}

TEST_CASE("importance and masks are those of golden vector 8") {
  const auto check = [&]<class T>(T) {
    Golden<T> net;
    (void)graft::inject_adapter_in_model(AdaLoraConfig{.init_r = 2, .target_r = 1, .lora_alpha = 3, .target_modules = {"lin"}, .tfinal = 1, .total_step = 3}, net);
    set<T>(net.lin, "lora_A", {1, -1, 0, 2});
    set<T>(net.lin, "lora_B", {2, 0, 1, 1});
    set<T>(net.lin, "lora_E", {T(0.5), -1});
    RankAllocator allocator(net);
    Gradients gradients;
    set_all_gradients(graft::trainable_parameters(net), gradients, 1);
    CHECK(allocator.budget(1) == 1);
    CHECK(allocator.scores("lin").empty());
    allocator.update_and_allocate(1, gradients);
    const std::vector<double> scores = allocator.scores("lin");
    REQUIRE(scores.size() == 2);
    CHECK(std::abs(scores[0] - 0.07171875) < 4 * double(std::numeric_limits<T>::epsilon()));
    CHECK(std::abs(scores[1] - 0.0669375) < 4 * double(std::numeric_limits<T>::epsilon()));
    CHECK(config_of(net).rank_pattern == graft::RankPattern{{"lin", {true, false}}});
    const auto e = net.lin.parameter("default", "lora_E").template view<T>();
    CHECK(e(0, 0) == T(0.5));
    CHECK(e(1, 0) == T(0));
    CHECK(net.lin.parameter("default", "lora_A").template view<T>()(1, 1) == T(2));
  };
  check(double{});
  check(float{});
}

// Real PEFT's parameters, gradients, budgets and patterns: tests/data/training/adalora.py.
TEST_CASE("thirteen steps follow PEFT's, masks and what comes back included") {
  const graft::StateDict& values = recorded::file("adalora");
  Net<double> net;
  (void)graft::inject_adapter_in_model(schedule(), net);
  graft::AdamW optimizer(graft::trainable_parameters(net), {.lr = 0.1});
  REQUIRE(optimizer.parameters().size() == 6);
  for (const graft::TrainableParameter& one : optimizer.parameters()) graft::detail::assign(*one.parameter, values.at("start." + one.key), false);
  RankAllocator allocator(net, "default");
  Gradients gradients;
  for (long step = 0; step < 13; ++step) {
    CAPTURE(step);
    const std::string now = std::to_string(step) + ".";
    gradients.clear();
    for (const graft::TrainableParameter& one : optimizer.parameters())
      recorded::add_gradient<double>(gradients, *one.parameter, values.at(now + "gradient." + one.key));
    optimizer.step(gradients);
    const std::uint64_t version = net.up.parameter("default", "lora_E").version();
    allocator.update_and_allocate(step, gradients);
    CHECK(allocator.budget(step) == Index(recorded::at(values.at(now + "budget"), 0)));
    for (const graft::TrainableParameter& one : optimizer.parameters()) {
      CAPTURE(one.key);
      CHECK(recorded::error(*one.parameter, values.at(now + one.key)) < 1e-12);
    }
    CHECK((net.up.parameter("default", "lora_E").version() != version) == allocator.masks_at(step));
    for (const auto& [path, kept] : config_of(net).rank_pattern) {
      const graft::TensorView& expected = values.at(now + "pattern." + path);
      REQUIRE(Index(kept.size()) == expected.size());
      for (Index k = 0; k < expected.size(); ++k) CHECK(kept[std::size_t(k)] == (std::to_integer<int>(expected.data[k]) != 0));
    }
    CHECK(config_of(net).rank_pattern.size() == (step < 4 ? 0u : 2u));
  }
  const graft::StateDict saved = graft::get_peft_model_state_dict(net);
  std::size_t count = 0;
  for (const auto& [key, view] : values)
    if (key.starts_with("file.")) {
      ++count;
      CHECK(recorded::error(saved.at(key.substr(5)), view) < 1e-12);
    }
  CHECK(count == saved.size());
  CHECK(saved.at("up.lora_B").shape == std::vector<Index>{7, 3});
  CHECK(graft::state_dict(net).at("up.lora_B.default").shape == std::vector<Index>{7, 4});

  SUBCASE("what was saved computes the same, and is trained on behind the last reduction") {
    Net<double> fresh;
    (void)graft::set_base_model_state_dict(fresh, graft::get_base_model_state_dict(net));
    (void)graft::inject_adapter_in_model(config_of(net), fresh);
    (void)graft::set_peft_model_state_dict(fresh, saved);
    const graft::Matrix<double> x = graft::Matrix<double>::Constant(3, 5, 0.7);
    CHECK((fresh.up(x) - net.up(x)).cwiseAbs().maxCoeff() < 1e-12);
    CHECK((net.up(x) - net.up.base_layer()(x)).cwiseAbs().maxCoeff() > 0.01);
    RankAllocator resumed(fresh);
    set_all_gradients(graft::trainable_parameters(fresh), gradients, 1);
    CHECK_THROWS_AS(resumed.update_and_allocate(4, gradients), graft::TrainingError);
    resumed.update_and_allocate(12, gradients);
    CHECK(fresh.up.parameter("default", "lora_E").view<double>()(0, 0) == recorded::at(saved.at("up.lora_E"), 0));
  }
}

TEST_CASE("a schedule that cannot be followed is an error") {
  const auto with = [](auto change) {
    Net<float> net;
    AdaLoraConfig config = schedule();
    config.total_step = 0;  // else injecting refuses most of them
    (void)graft::inject_adapter_in_model(config, net);
    AdaLoraConfig& injected = std::get<AdaLoraConfig>(graft::detail::need_record(graft::sites_of(net), "default")->generation.own()->config);
    injected.total_step = 13;
    change(injected);
    const RankAllocator allocator(net);
  };
  with([](AdaLoraConfig&) {});
  CHECK_THROWS_AS(with([](AdaLoraConfig& config) { config.total_step = 0; }), graft::ConfigError);
  CHECK_THROWS_AS(with([](AdaLoraConfig& config) { config.tinit = 10; }), graft::ConfigError);
  CHECK_THROWS_AS(with([](AdaLoraConfig& config) { config.deltaT = 0; }), graft::ConfigError);
  CHECK_THROWS_AS(with([](AdaLoraConfig& config) { config.beta1 = 1; }), graft::ConfigError);
  CHECK_THROWS_AS(with([](AdaLoraConfig& config) { config.beta2 = 0; }), graft::ConfigError);
  CHECK_THROWS_AS(with([](AdaLoraConfig& config) { config.tfinal = -1; }), graft::ConfigError);
  CHECK_THROWS_AS(with([](AdaLoraConfig& config) { config.target_r = 4; }), graft::ConfigError);
  CHECK_THROWS_AS(with([](AdaLoraConfig& config) { config.target_r = 9; }), graft::ConfigError);
}

TEST_CASE("an adapter that stands in somebody's memory has ranks as any other, also behind its first step") {
  Net<float> net, kept;
  (void)graft::inject_adapter_in_model(schedule(), net);
  (void)graft::inject_adapter_in_model(schedule(), kept, "default", {.low_cpu_mem_usage = true});
  const graft::StateDict file = graft::get_peft_model_state_dict(net).clone();
  (void)graft::set_peft_model_state_dict(kept, file, "default", {.low_cpu_mem_usage = true});
  for (Net<float>* model : {&net, &kept}) {
    const graft::TrainableParameters parameters = graft::trainable_parameters(*model);
    REQUIRE((*parameters.begin()).parameter->is_borrowed() == (model == &kept));
    graft::Adam optimizer(parameters, {.lr = 0.1});
    RankAllocator allocator(*model);
    for (long step = 0; step <= 10; ++step) {
      Gradients gradients;
      set_all_gradients(parameters, gradients, 0.5 + double(step));
      optimizer.step(gradients);
      allocator.update_and_allocate(step, gradients);
    }
  }
  CHECK(config_of(kept).rank_pattern == config_of(net).rank_pattern);
  CHECK(config_of(kept).rank_pattern.size() == 2);
  CHECK(file.at("up.lora_A").data != graft::get_peft_model_state_dict(kept).at("up.lora_A").data);
}

TEST_CASE("steps that cannot be made are errors, and nothing has changed") {
  Net<float> net;
  (void)graft::inject_adapter_in_model(schedule(), net);
  RankAllocator allocator(net);
  const graft::TrainableParameters parameters = graft::trainable_parameters(net);
  Gradients none, gradients;
  CHECK_THROWS_AS(allocator.update_and_allocate(0, none), graft::TrainingError);
  set_all_gradients(parameters, gradients, 1);
  gradients.at<float>(*parameters.find("down.lora_B.default")->parameter)(0, 0) = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH_AS(allocator.update_and_allocate(0, gradients), doctest::Contains("lora_B at 'down' is not finite"), graft::TrainingError);
  CHECK_THROWS_AS(allocator.update_and_allocate(10, gradients), graft::TrainingError);  // no importance yet
  CHECK_THROWS_AS(allocator.update_and_allocate(11, gradients), graft::TrainingError);  // no pattern yet
  CHECK(config_of(net).rank_pattern.empty());

  gradients.clear();
  set_all_gradients(parameters, gradients, 1);
  allocator.update_and_allocate(0, gradients);
  allocator.update_and_allocate(10, gradients);
  CHECK(config_of(net).rank_pattern.size() == 2);
  CHECK_THROWS_AS(allocator.update_and_allocate(10, gradients), graft::TrainingError);  // its importance was forgotten
  (void)graft::merge_adapter(net);
  CHECK_THROWS_AS(allocator.update_and_allocate(11, gradients), graft::TrainingError);
  CHECK_THROWS_AS((void)RankAllocator(net), graft::TrainingError);
  (void)graft::unmerge_adapter(net);
  graft::set_requires_grad(net, "default", false);
  CHECK_THROWS_AS((void)RankAllocator(net), graft::TrainingError);
  CHECK_THROWS_AS(RankAllocator(net, "other"), graft::AdapterError);

  Net<float> lora;
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.target_modules = {"up"}}, lora);
  CHECK_THROWS_AS((void)RankAllocator(lora), graft::AdapterError);
  Net<float> meta;
  (void)graft::inject_adapter_in_model(schedule(), meta, "default", {.low_cpu_mem_usage = true});
  CHECK_THROWS_AS((void)RankAllocator(meta), graft::MetaError);
}

TEST_CASE("ranks of equal score go together") {
  Net<float> net;
  (void)graft::inject_adapter_in_model(schedule(), net);
  for (const graft::TrainableParameter& one : graft::trainable_parameters(net))
    std::fill_n(reinterpret_cast<float*>(one.parameter->data()), one.shape().size(), 1.0f);
  RankAllocator allocator(net);
  Gradients gradients;
  set_all_gradients(graft::trainable_parameters(net), gradients, 1);
  for (long step = 0; step <= 4; ++step) allocator.update_and_allocate(step, gradients);
  CHECK(config_of(net).rank_pattern == graft::RankPattern{{"up", Bools(4, false)}, {"down", Bools(4, false)}});  // as PEFT
}
