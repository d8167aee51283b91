#include <graft/training/optimizer.hpp>

#include <graft/training/adam.hpp>
#include <graft/training/sgd.hpp>

#include "support/allocation_counter.hpp"
#include "training/recorded.hpp"

using graft::AdamW;
using graft::Dtype;
using graft::Gradients;
using graft::Index;
using graft::ParameterData;
using graft::TrainableParameters;
using recorded::TwoParameters;
using Strings = std::vector<std::string>;

namespace {
std::string bytes_of(const ParameterData& data) { return {reinterpret_cast<const char*>(data.data()), data.bytes()}; }
std::string bytes_of(const TwoParameters& parameters) { return bytes_of(parameters.weight) + bytes_of(parameters.bias); }

template <class T>
void make_steps(graft::Optimizer& optimizer, const TwoParameters& parameters, int begin, int end) {
  Gradients gradients;
  for (int step = begin; step < end; ++step) {
    gradients.clear();
    parameters.add_gradients<T>(gradients, step);
    optimizer.step(gradients);
  }
}
template <class T>
void goes_on_where_it_was(Dtype dtype) {
  TwoParameters whole(dtype), first(dtype), second(dtype);
  AdamW all(whole.list(), {.lr = 0.02}), before(first.list(), {.lr = 0.02}), after(second.list(), {.lr = 0.02});
  make_steps<T>(all, whole, 0, 6);
  make_steps<T>(before, first, 0, 3);
  const graft::StateDict state = before.state_dict().clone();
  graft::detail::assign(second.weight, first.weight.view(), false);
  graft::detail::assign(second.bias, first.bias.view(), false);
  after.load_state_dict(state);
  make_steps<T>(after, second, 3, 6);
  CHECK(bytes_of(second) == bytes_of(whole));
  CHECK(bytes_of(first) != bytes_of(whole));
  CHECK(all.state_dict().at("step.a.weight").size() == 1);

  AdamW fresh(first.list(), {.lr = 0.02});
  make_steps<T>(fresh, first, 3, 6);
  CHECK(bytes_of(first) != bytes_of(whole));  // the state is needed
}
}  // namespace

TEST_CASE("a parameter without gradient is left as it is, and so is its state") {
  TwoParameters parameters(Dtype::f64);
  AdamW optimizer(parameters.list(), {.weight_decay = 0.5});
  const std::string start = bytes_of(parameters.bias);
  Gradients gradients;
  parameters.add_gradients<double>(gradients, 2);
  const std::uint64_t weight = parameters.weight.version(), bias = parameters.bias.version();
  optimizer.step(gradients);
  CHECK(bytes_of(parameters.bias) == start);
  CHECK(parameters.bias.version() == bias);
  CHECK(parameters.weight.version() != weight);  // packed copies and norms are outdated
  CHECK(optimizer.state_dict().keys() == Strings{"step.a.weight", "exp_avg.a.weight", "exp_avg_sq.a.weight"});
}

TEST_CASE("state is allocated at the first step alone") {
  TwoParameters parameters(Dtype::f32);
  AdamW optimizer(parameters.list(), {.amsgrad = true});
  CHECK(optimizer.state_dict().empty());
  Gradients gradients;
  parameters.add_gradients<float>(gradients, 0);
  CHECK(support::allocations_of([&] { optimizer.step(gradients); }) > 0);
  CHECK(support::allocations_of([&] { optimizer.step(gradients); }) == 0);
}

TEST_CASE("training goes on where its state was saved, with the same bits") {
  goes_on_where_it_was<double>(Dtype::f64);
  goes_on_where_it_was<float>(Dtype::f32);
  goes_on_where_it_was<float>(Dtype::bf16);
  goes_on_where_it_was<float>(Dtype::f16);
}

TEST_CASE("a state that does not fit is an error, and nothing has changed") {
  TwoParameters parameters(Dtype::f32), others(Dtype::f64);
  AdamW optimizer(parameters.list()), of_doubles(others.list());
  make_steps<float>(optimizer, parameters, 0, 1);
  make_steps<double>(of_doubles, others, 0, 1);
  const graft::StateDict good = optimizer.state_dict().clone();
  const auto with = [&](const char* key, const graft::TensorView* view) {
    graft::StateDict state = good;
    state.erase(key);
    if (view) state.insert(key, *view);
    optimizer.load_state_dict(state);
  };
  CHECK_THROWS_AS(optimizer.load_state_dict(of_doubles.state_dict()), graft::StateDictError);
  CHECK_THROWS_AS(with("exp_avg.a.weight", nullptr), graft::StateDictError);
  CHECK_THROWS_WITH_AS(with("step.a.weight", nullptr), doctest::Contains("'exp_avg.a.weight'"), graft::StateDictError);
  CHECK_THROWS_AS(with("exp_avg.a.weight", &good.at("exp_avg.a.bias")), graft::StateDictError);
  CHECK_THROWS_AS(with("exp_avg.b.weight", &good.at("exp_avg.a.weight")), graft::StateDictError);
  CHECK_THROWS_AS(with("max_exp_avg_sq.a.weight", &good.at("exp_avg.a.weight")), graft::StateDictError);
  CHECK_THROWS_AS(with("step.a.weight", &good.at("exp_avg.a.weight")), graft::StateDictError);
  const std::int64_t none = 0;
  const graft::TensorView no_step{Dtype::i64, {}, reinterpret_cast<const std::byte*>(&none), nullptr};
  CHECK_THROWS_AS(with("step.a.weight", &no_step), graft::StateDictError);
  const graft::StateDict now = optimizer.state_dict();
  CHECK(now.keys() == good.keys());
  for (const auto& [key, view] : now) CHECK(recorded::error(view, good.at(key)) == 0);
  graft::Sgd other_kind(parameters.list());
  CHECK_THROWS_AS(other_kind.load_state_dict(good), graft::StateDictError);
  optimizer.load_state_dict({});  // afresh
  CHECK(optimizer.state_dict().empty());
}

TEST_CASE("a narrow parameter does not lose what is below its last place") {
  ParameterData narrow(Dtype::bf16, {1, 3}), wide(Dtype::f32, {1, 3});
  for (ParameterData* data : {&narrow, &wide}) data->allocate();
  auto* values = reinterpret_cast<graft::bf16*>(narrow.data());
  auto* floats = reinterpret_cast<float*>(wide.data());
  for (int i = 0; i < 3; ++i) values[i] = graft::bf16(1.0f), floats[i] = 1;
  graft::Sgd of_narrow(TrainableParameters({{"p", "p", &narrow, {}}}), {.lr = 1}), of_wide(TrainableParameters({{"p", "p", &wide, {}}}), {.lr = 1});
  Gradients gradients;
  for (int step = 0; step < 16; ++step) {
    gradients.clear();
    gradients.at<float>(narrow).setConstant(0x1p-11f);  // an eighth of bf16's spacing below 1, a sixteenth of that above
    gradients.at<float>(wide).setConstant(0x1p-11f);
    of_narrow.step(gradients);
    of_wide.step(gradients);
  }
  CHECK(floats[0] == 1 - 0x1p-7f);
  for (int i = 0; i < 3; ++i) CHECK(float(values[i]) == floats[i]);
  CHECK(of_narrow.state_dict().contains("master.p"));
  CHECK_FALSE(of_wide.state_dict().contains("master.p"));

  values[1] = graft::bf16(5.0f);  // by somebody else
  of_narrow.step(gradients);
  CHECK(float(values[1]) == 5);
  CHECK(of_narrow.state_dict().at("master.p").shape == std::vector<Index>{1, 3});
  CHECK(recorded::at(of_narrow.state_dict().at("master.p"), 1) == 5 - 0x1p-11);
}

TEST_CASE("borrowed memory is not written, and what is tied to it follows") {
  const std::vector<float> buffer{1, 2, 3};
  graft::Parameter<float, graft::mapped> embed({1, 3});
  embed.bind(buffer.data());
  auto head = embed.share();
  graft::Sgd optimizer(TrainableParameters({{"embed", "embed", &embed.untyped(), {&head.untyped()}}}), {.lr = 1});
  Gradients gradients;
  gradients.of(embed).setConstant(0.5f);
  embed.set_requires_grad(true);
  optimizer.step(gradients);
  REQUIRE(gradients.find(embed));  // by its new memory
  CHECK(gradients.find(embed)->isConstant(0.5f, 0));
  CHECK(gradients.size() == 1);
  CHECK(buffer == std::vector<float>{1, 2, 3});
  CHECK(std::as_const(embed).view()(0, 0) == 0.5f);
  CHECK(std::as_const(head).data() == std::as_const(embed).data());
  CHECK_FALSE(head.requires_grad());
  gradients.clear();
  gradients.of(embed).setConstant(0.5f);
  CHECK(gradients.size() == 1);
  optimizer.step(std::as_const(gradients));
  CHECK(std::as_const(head).view()(0, 2) == 2);
}

TEST_CASE("some parameters have another learning rate, or another decay") {
  TwoParameters plus(Dtype::f64), slow(Dtype::f64), fast(Dtype::f64);
  AdamW both(plus.list(), {.lr = 0.01}), at_lr(slow.list(), {.lr = 0.01}), at_more(fast.list(), {.lr = 0.16, .weight_decay = 0});
  const auto is_bias = [](const graft::TrainableParameter& one) { return one.name == "bias"; };
  both.set_lr_ratio(is_bias, 16);
  both.set_weight_decay(is_bias, 0);
  make_steps<double>(both, plus, 0, 2);
  make_steps<double>(at_lr, slow, 0, 2);
  make_steps<double>(at_more, fast, 0, 2);
  CHECK(bytes_of(plus.weight) == bytes_of(slow.weight));
  CHECK(bytes_of(plus.bias) == bytes_of(fast.bias));
  CHECK(bytes_of(slow.bias) != bytes_of(fast.bias));
  both.load_state_dict(both.state_dict().clone());  // they are the program's, and stay
  make_steps<double>(both, plus, 3, 4);
  make_steps<double>(at_more, fast, 3, 4);
  CHECK(bytes_of(plus.bias) == bytes_of(fast.bias));
  CHECK_THROWS_AS(both.set_lr(-1), graft::TrainingError);
  CHECK_THROWS_AS(both.set_lr(std::numeric_limits<double>::quiet_NaN()), graft::TrainingError);
  CHECK_THROWS_AS(both.set_lr_ratio(is_bias, -1), graft::TrainingError);
  CHECK_THROWS_AS(both.set_weight_decay(is_bias, -1), graft::TrainingError);
}

TEST_CASE("a gradient of another scalar is an error, and no parameter was stepped") {
  TwoParameters parameters(Dtype::f32);
  graft::Sgd optimizer(parameters.list());
  const std::string start = bytes_of(parameters);
  Gradients gradients;
  recorded::add_gradient<float>(gradients, parameters.weight, recorded::optimizers().at("gradient.weight.0"));
  recorded::add_gradient<double>(gradients, parameters.bias, recorded::optimizers().at("gradient.bias.0"));
  CHECK_THROWS_AS(optimizer.step(gradients), graft::TrainingError);
  CHECK(bytes_of(parameters) == start);
  Gradients of_other_size;
  of_other_size.at<float>(parameters.bias.data(), 2, 2).setOnes();
  CHECK_THROWS_AS(optimizer.step(of_other_size), graft::TrainingError);
  CHECK(optimizer.state_dict().empty());
}
