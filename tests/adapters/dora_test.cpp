#include <graft/adapters/dora.hpp>

#include "support/laws.hpp"

using graft::Index;
using graft::Matrix;

namespace {

template <class Layer>
struct One {
  graft::Adaptable<Layer> p;
  auto operator()(const auto& x) const { return p(x); }
  GRAFT_MODULE(p)
};
using Net = One<graft::Linear<>>;

struct Two {
  graft::Adaptable<graft::Linear<>> p{13, 7}, q{7, 3};
  auto operator()(const auto& x) const { return q(p(x)); }
  GRAFT_MODULE(p, q)
};

/// A layer that shows no weight.
struct Closed {
  Matrix<float> hidden = Matrix<float>::Ones(2, 3);
  Matrix<float> operator()(const Matrix<float>& x) const { return x * hidden.transpose(); }
};

void set(const graft::ParameterView& parameter, std::initializer_list<float> values) {
  REQUIRE(parameter.view<float>().size() == Index(values.size()));
  std::copy(values.begin(), values.end(), parameter.view<float>().data());
}
void set(graft::Parameter<float>& parameter, std::initializer_list<float> values) {
  REQUIRE(parameter.size() == Index(values.size()));
  std::copy(values.begin(), values.end(), parameter.data());
}
bool is(const auto& y, std::vector<float> expected) { return results::close(results::values_of(y), expected); }

/// W [[1,2],[3,4]], b [.5,-.5], r = 1, scaling 3.
graft::LoraConfig config_of(bool use_dora = true) {
  return {.r = 1, .lora_alpha = 3, .target_modules = {"p"}, .use_dora = use_dora};
}
Net golden(const std::string& name = "default") {
  Net net{{2, 2}};
  set(net.p->weight, {1, 2, 3, 4});
  set(net.p->bias, {0.5F, -0.5F});
  (void)graft::inject_adapter_in_model(config_of(), net, name);
  return net;
}
void train(Net& net, const std::string& name = "default") {
  set(net.p.parameter(name, "lora_A"), {1, -1});
  set(net.p.parameter(name, "lora_B"), {2, 1});
}
const Matrix<float> x12 = (Matrix<float>(1, 2) << 1, 2).finished();

/// A wider one, with every value its own.
Net wide(float weight = 1) {
  Net net{{13, 7}};
  awkward::fill<float>(net.p->weight.untyped(), weight);
  awkward::fill<float>(net.p->bias.untyped(), 2);
  net.p->weight.untyped().touch();
  return net;
}
graft::LoraConfig wide_config() { return {.r = 3, .lora_alpha = 7, .target_modules = {"p"}, .use_dora = true}; }

}  // namespace

template <>
struct graft::layer_traits<Closed> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = float;
  static Index in_features(const Closed&) { return 3; }
  static Index out_features(const Closed&) { return 2; }
};

TEST_CASE("DoRA at a linear layer: PEFT's golden vector 4") {
  Net net = golden();
  CHECK(is(net.p.parameter("default", "lora_magnitude_vector").view<float>().eval(), {2.2360680F, 5}));
  CHECK(is(net(x12), {5.5F, 10.5F}));
  train(net);
  CHECK(is(net(x12), {0.22264990F, 6.07595949F}));
  set(net.p.parameter("default", "lora_magnitude_vector"), {2, 3});
  CHECK(is(net(x12), {0.25193053F, 3.44557570F}));
}

TEST_CASE("a magnitude is a parameter like the others, with a key of its own in files") {
  Net net = golden("alice");
  CHECK(net.p.parameter("alice", "lora_magnitude_vector").requires_grad());
  CHECK(net.p.parameter("alice", "lora_magnitude_vector.weight").shape() == std::vector<Index>{2});
  CHECK(graft::get_peft_model_state_dict(net, "alice").keys() ==
        std::vector<std::string>{"p.lora_A.weight", "p.lora_B.weight", "p.lora_magnitude_vector"});
  CHECK(graft::state_dict(net).keys() ==
        std::vector<std::string>{"p.base_layer.weight", "p.base_layer.bias", "p.lora_A.alice.weight", "p.lora_B.alice.weight",
                                 "p.lora_magnitude_vector.alice.weight"});
  graft::LoraConfig config = config_of();
  config.inference_mode = true;
  (void)graft::inject_adapter_in_model(config, net, "bob");
  CHECK_FALSE(net.p.parameter("bob", "lora_magnitude_vector").requires_grad());
  const graft::StateDict saved = graft::get_peft_model_state_dict(net, "alice").clone();
  for (const char* key : {"p.lora_magnitude_vector.weight", "p.lora_magnitude_vector.bob.weight"}) {
    graft::StateDict spelled = saved;
    spelled.erase("p.lora_magnitude_vector");
    spelled.insert(key, saved.at("p.lora_magnitude_vector"));
    CHECK(graft::set_peft_model_state_dict(net, spelled, "bob").loaded.size() == 3);
  }
}

TEST_CASE("shapes of magnitudes") {
  const auto shape_at = []<class Layer>(One<Layer> net) {
    graft::initialise(net, 3);
    (void)graft::inject_adapter_in_model(config_of(), net);
    return net.p.parameter("default", "lora_magnitude_vector").shape();
  };
  CHECK(shape_at(One<graft::Embedding<>>{{11, 3}}) == std::vector<Index>{3});
  CHECK(shape_at(One<graft::Conv1d<>>{{5, 7, graft::Conv1dOptions{.kernel = 3}}}) == std::vector<Index>{1, 7, 1});
  CHECK(shape_at(One<graft::Conv3d<>>{{5, 7, graft::Conv3dOptions{.kernel = 1}}}) == std::vector<Index>{1, 7, 1, 1, 1});
}

TEST_CASE("DoRA starts as the identity, to the bit") {
  Net net = wide();
  const Matrix<float> x = awkward::rows<float>(5, 13);
  const auto base = net(x);
  (void)graft::inject_adapter_in_model(wide_config(), net);
  CHECK(results::same_bits(net(x), base));
}

TEST_CASE("adapters act in the order of activation, each on what stands there, with norms of the base weight") {
  // c2 (c1 (y - b + u) + u) + b with u the update of golden vector 4, a plain LoRA's u before or after
  Net net = golden("one");
  train(net, "one");
  const auto inject = [&](const std::string& name, bool use_dora) {
    (void)graft::inject_adapter_in_model(config_of(use_dora), net, name);
    train(net, name);
  };
  inject("two", true);
  set(net.p.parameter("two", "lora_magnitude_vector"), {2, 3});
  inject("plain", false);
  const double n[] = {std::sqrt(65.0), std::sqrt(37.0)}, m[] = {std::sqrt(5.0), 5}, y[] = {5, 11}, u[] = {-6, -3}, b[] = {0.5, -0.5};
  const auto expect = [&](auto of) {
    std::vector<float> values;
    for (int o = 0; o < 2; ++o) values.push_back(float(of(y[o], u[o], m[o] / n[o], (o ? 3 : 2) / n[o]) + b[o]));
    return values;
  };
  graft::set_adapter(net, {"one", "two"});
  CHECK(is(net(x12), expect([](double v, double d, double c1, double c2) { return c2 * (c1 * (v + d) + d); })));
  graft::set_adapter(net, {"plain", "two"});
  CHECK(is(net(x12), expect([](double v, double d, double, double c2) { return c2 * (v + d + d); })));
  graft::set_adapter(net, {"two", "plain"});
  CHECK(is(net(x12), expect([](double v, double d, double, double c2) { return c2 * (v + d) + d; })));
}

TEST_CASE("a selection's weight and a strength multiply the scaling in the norm too") {
  Net net = golden();
  train(net);
  graft::set_scale(net, "default", -2);  // scaling -6: V = [[-11, 14], [-3, 10]]
  const std::vector<float> expected{float(std::sqrt(5.0) * 17 / std::sqrt(317.0) + 0.5), float(5 * 17 / std::sqrt(109.0) - 0.5)};
  CHECK(is(net(x12), expected));
  graft::set_scale(net, "default", 1);
  graft::Batch batch;
  batch.add(1, graft::select(net, {{"default", -2}}));
  CHECK(is(Matrix<float>(net(batch.input(x12)).value()), expected));
}

TEST_CASE("norms are taken again after every write of the weight, A, B or the magnitude") {
  const Matrix<float> x = awkward::rows<float>(3, 13);
  const auto fresh = [&](float weight, double adapter) {
    Net net = wide(weight);
    trained::inject(wide_config(), net, "default", adapter);
    return results::values_of(net(x));
  };
  Net net = wide();
  trained::inject(wide_config(), net, "default", 20);
  REQUIRE(results::values_of(net(x)) == fresh(1, 20));
  REQUIRE(fresh(1, 20) != fresh(1, 21));
  trained::fill(net, "default", 21);
  CHECK(results::values_of(net(x)) == fresh(1, 21));
  net.p->weight.view() = wide(5).p->weight.view();
  CHECK(results::values_of(net(x)) == fresh(5, 21));
  Net copy = net;
  CHECK(results::values_of(copy(x)) == fresh(5, 21));
  for (const char* name : {"lora_A", "lora_B", "lora_magnitude_vector"}) {
    const auto before = results::values_of(net(x));
    net.p.parameter("default", name).view<float>() *= 2;
    const auto after = results::values_of(net(x));
    CHECK_FALSE(results::close(after, before));
    Net other = wide(5);
    (void)graft::inject_adapter_in_model(wide_config(), other);
    (void)graft::set_peft_model_state_dict(other, graft::get_peft_model_state_dict(net).clone());
    CHECK(results::values_of(other(x)) == after);
  }
  CHECK(results::values_of(copy(x)) == fresh(5, 21));
  net = wide();
  trained::inject(wide_config(), net, "default", 20);
  CHECK(results::values_of(net(x)) == fresh(1, 20));
}

TEST_CASE("a write through a view that is still held is seen by the next forward") {
  const Matrix<float> x = awkward::rows<float>(3, 13);
  for (const char* name : {"lora_A", "lora_B", "lora_magnitude_vector"}) {
    Net net = wide();
    trained::inject(wide_config(), net, "default", 20);
    auto held = net.p.parameter("default", name).view<float>();
    for (const double weight : {1.0, -0.5}) {
      graft::set_scale(net, "default", weight);
      const auto before = results::values_of(net(x));
      REQUIRE(results::values_of(net(x)) == before);
      const float value = std::exchange(held(0, held.cols() - 1), 0.75F);
      const auto after = results::values_of(net(x));
      CHECK_FALSE(results::close(after, before));
      Net fresh = wide();
      (void)graft::inject_adapter_in_model(wide_config(), fresh);
      (void)graft::set_peft_model_state_dict(fresh, graft::get_peft_model_state_dict(net).clone());
      graft::set_scale(fresh, "default", weight);
      CHECK(results::values_of(fresh(x)) == after);
      held(0, held.cols() - 1) = value;  // the values are those that the norms were taken of first
      CHECK(results::values_of(net(x)) == before);
    }
  }
}

TEST_CASE("a layer whose writes cannot be seen has its norms taken in every forward") {
  using Layer = awkward::PlainLinear<float>;
  const Matrix<float> x = awkward::rows<float>(3, 13);
  const auto made = [&](double seed) {
    One<Layer> net{awkward::PlainLinearCase<float>::make()};
    awkward::fill(net.p->kernel, seed);
    return net;
  };
  One<Layer> net = made(3), other = made(30);
  trained::inject(wide_config(), net, "default", 20);
  trained::inject(wide_config(), other, "default", 20);
  REQUIRE_FALSE(results::same_values(net(x), other(x)));
  net.p->kernel = other.p->kernel;
  CHECK(results::same_bits(net(x), other(x)));
}

TEST_CASE("where another adapter's copy of the layer stands, its weight has the norms") {
  Two net, whole;  // whole: with the copy's weight in the layer itself
  graft::initialise(net, 4);
  graft::initialise(whole, 5);
  trained::inject(graft::LoraConfig{.target_modules = {"q"}, .modules_to_save = {"p"}}, net, "copy");
  graft::StateDict saved = graft::get_peft_model_state_dict(net, "copy").clone();
  for (const std::string key : {"p.weight", "p.bias"}) {
    saved.erase(key);
    saved.insert(key, graft::get_base_model_state_dict(whole).at(key));
  }
  (void)graft::set_peft_model_state_dict(net, saved, "copy");
  trained::inject(wide_config(), net, "dora", 20);
  trained::inject(wide_config(), whole, "dora", 20);
  const Matrix<float> x = awkward::rows<float>(3, 13);
  const auto alone = net.p(x);
  graft::set_adapter(net, {"copy", "dora"});
  CHECK(results::same_values(net.p(x), whole.p(x)));
  REQUIRE_FALSE(results::same_values(net.p(x), alone));
  Two merged = net;
  (void)graft::merge_and_unload(merged);
  CHECK(results::same_values(merged.p(x), whole.p(x)));
  graft::set_adapter(net, "dora");
  CHECK(results::same_bits(net.p(x), alone));
}

TEST_CASE("merged, the layer alone computes the same: PEFT's golden vector 4") {
  Net net = golden();
  train(net);
  set(net.p.parameter("default", "lora_magnitude_vector"), {2, 3});
  const Matrix<float> before = net.p->weight.view();
  (void)graft::merge_adapter(net);
  CHECK(is(Matrix<float>(net.p->weight.view()), {1.73648628F, -0.99227788F, 2.95918177F, 0.49319696F}));
  CHECK(is(net(x12), {0.25193053F, 3.44557570F}));
  (void)graft::unmerge_adapter(net);
  CHECK(results::same_bits(Matrix<float>(net.p->weight.view()), before));
}

TEST_CASE_TEMPLATE("merged in their order, adapters compute what they did unmerged", Case, awkward::LinearCase<float>,
                   awkward::LookupCase<double>, awkward::TransposedCase<double>, awkward::Conv2dCase<float>) {
  awkward::Net<Case> net;
  auto config = laws::DoraMethod<Case>::config();
  config.bias = graft::Bias::none;
  trained::inject(config, net, "one", 20);
  config.use_rslora = true;
  trained::inject(config, net, "two", 21);
  config.use_dora = false;
  config.lora_bias = graft::sites_of(net).sites[0]->facts().has_bias;
  trained::inject(config, net, "plain", 22);
  graft::set_scale(net, "two", -0.5);
  const auto x = Case::input(5);
  for (const std::vector<std::string>& names : {std::vector<std::string>{"one", "plain", "two"}, {"two", "one", "plain"}, {"plain", "one"}}) {
    graft::set_adapter(net, {});
    const auto base = net(x);
    graft::set_adapter(net, names);
    const auto y = net(x);
    REQUIRE_FALSE(results::same_values(y, base));
    (void)graft::merge_adapter(net);
    CHECK(results::same_values(net(x), y));
    (void)graft::unmerge_adapter(net);
    CHECK(results::same_bits(net(x), y));
  }
  graft::set_adapter(net, {"plain", "one"});
  CHECK_THROWS_AS((void)graft::merge_adapter(net, "plain"), graft::MergeError);  // it would change the norms of "one"
}

TEST_CASE("on the meta device until it is loaded; a lenient load leaves the norm that an injection gives") {
  Net net = wide();
  const Matrix<float> x = awkward::rows<float>(3, 13);
  (void)graft::inject_adapter_in_model(wide_config(), net, "default", {.low_cpu_mem_usage = true});
  CHECK(net.p.parameter("default", "lora_magnitude_vector").device() == graft::Device::meta);
  CHECK_THROWS_AS((void)net(x), graft::MetaError);
  Net source = wide();
  trained::inject(wide_config(), source, "default", 20);
  graft::StateDict saved = graft::get_peft_model_state_dict(source).clone();
  (void)graft::set_peft_model_state_dict(net, saved, "default", {.low_cpu_mem_usage = true});
  CHECK(results::same_bits(net(x), source(x)));

  saved.erase("p.lora_magnitude_vector");
  Net lenient = wide();
  (void)graft::inject_adapter_in_model(wide_config(), lenient);
  CHECK_THROWS_AS((void)graft::set_peft_model_state_dict(lenient, saved), graft::StateDictError);
  const auto report = graft::set_peft_model_state_dict(lenient, saved, "default", {.strict = false});
  CHECK(report.missing_keys == std::vector<std::string>{"p.lora_magnitude_vector"});
  const auto norms = lenient.p->weight.view().rowwise().norm().eval();
  CHECK(results::same_values(Matrix<float>(lenient.p.parameter("default", "lora_magnitude_vector").view<float>()),
                             Matrix<float>(norms.transpose())));
}

TEST_CASE("a row of zeros has no direction to scale") {
  Net net = golden();
  set(net.p->weight, {0, 0, 3, 4});
  CHECK(is(net(x12), {0.5F, 10.5F}));
}

TEST_CASE("what DoRA cannot do is refused before anything changes") {
  const auto refused = []<class Error>(auto& net, const char* word, Error*) {
    const std::string before = results::everything(net);
    try {
      (void)graft::inject_adapter_in_model(config_of(), net);
      FAIL("nothing was thrown");
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find(word) != std::string::npos);
    }
    CHECK(results::everything(net) == before);
  };
  One<graft::Conv1d<>> grouped{{4, 6, graft::Conv1dOptions{.kernel = 3, .groups = 2}}};
  auto config = config_of();
  config.r = 2;
  CHECK_THROWS_AS((void)graft::inject_adapter_in_model(config, grouped), graft::ConfigError);
  config.use_dora = false;
  CHECK_NOTHROW((void)graft::inject_adapter_in_model(config, grouped));
  One<Closed> closed;
  refused(closed, "layer_traits<Closed> a weight", static_cast<graft::TargetError*>(nullptr));
  One<graft::Linear<float, graft::lazy>> empty{{2, 2}};
  refused(empty, "no memory", static_cast<graft::MetaError*>(nullptr));
  CHECK_NOTHROW((void)graft::inject_adapter_in_model(config_of(), empty, "default", {.low_cpu_mem_usage = true}));
  config = config_of();
  config.lora_bias = true;
  Net net = golden();
  CHECK_THROWS_AS((void)graft::inject_adapter_in_model(config, net, "second"), graft::ConfigError);
}

TEST_CASE("the laws hold for DoRA at a 2-d convolution") {
  laws::all<awkward::Conv2dCase<float>, laws::DoraMethod>();
}
