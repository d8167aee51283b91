#include <graft/state_dict/eva.hpp>

#include "support/awkward_layers.hpp"
#include "support/derived_values.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::LoraConfig;
using Strings = std::vector<std::string>;

// graft/factorise.hpp is part of this program by convert_to_lora_test.cpp

namespace {
struct Two {
  graft::Adaptable<graft::Linear<>> a{24, 20}, b{20, 10};
  auto operator()(const auto& x) const { return b(a(x)); }
  GRAFT_MODULE(a, b)
};
graft::Activations<float> activations() {
  return {{"a", derived::values("eva.x").cast<float>()}, {"b", derived::values("eva.hidden").cast<float>()}};
}
Two injected() {
  Two net;
  graft::initialise(net, 1);
  (void)graft::inject_adapter_in_model(
      LoraConfig{.r = 3, .lora_alpha = 6, .target_modules = {"a", "b"}, .init_lora_weights = "eva"}, net);
  return net;
}
/// Each direction up to its sign: the smallest |cosine|. PEFT iterates in float and from random vectors.
double alignment(const derived::Values& got, const derived::Values& expected) {
  if (got.rows() != expected.rows()) return 0;
  return (got.array() * expected.array()).rowwise().sum().abs().minCoeff();
}
}  // namespace

TEST_CASE("EVA: PEFT's directions, and ranks that go to where they explain most") {
  for (const double rho : {1.0, 2.0}) {
    Two net = injected();
    const auto x = derived::values("eva.x").cast<float>().eval();
    const auto base = net(graft::Matrix<float>(x));
    (void)graft::initialize_lora_eva_weights(net, activations(), "default", {.rho = rho});
    const std::string tag = rho == 1 ? "eva.1." : "eva.2.";
    CHECK(alignment(derived::matrix(net.a, "default", "A"), derived::values(tag + "a")) > 0.999);
    CHECK(alignment(derived::matrix(net.b, "default", "A"), derived::values(tag + "b")) > 0.999);
    CHECK(derived::matrix(net.a, "default", "B").isZero(0));
    CHECK(results::same_values(net(graft::Matrix<float>(x)), base));
    CHECK(graft::active_adapters(net) == Strings{"default"});
    CHECK(net.a.parameter("default", "lora_A").requires_grad());
    const auto config = derived::config_of<LoraConfig>(net, "default");
    CHECK(config.r == 3);
    CHECK(config.target_modules.names() == Strings{"a", "b"});
    if (rho == 1)
      CHECK(config.rank_pattern.empty());
    else
      CHECK(config.rank_pattern == graft::PatternMap<int>{{"a", 4}, {"b", 2}});
    if (rho == 2)
      CHECK(config.alpha_pattern == graft::PatternMap<double>{{"a", 8}, {"b", 4}});  // as PEFT has them
  }
}

TEST_CASE(
    "scaling factors that are not adjusted keep alpha; whitening divides by the root of a singular value") {
  Two plain = injected(), white = injected();
  (void)graft::initialize_lora_eva_weights(plain, activations(), "default",
                                           {.adjust_scaling_factors = false});
  (void)graft::initialize_lora_eva_weights(white, activations(), "default", {.whiten = true});
  CHECK(derived::config_of<LoraConfig>(plain, "default").alpha_pattern.empty());
  const auto a = derived::matrix(plain.a, "default", "A"), w = derived::matrix(white.a, "default", "A");
  const auto x = derived::values("eva.x");
  const double singular = ((x.rowwise() - x.colwise().mean()) * a.row(0).transpose()).norm();
  CHECK(w.row(0).norm() == doctest::Approx(1 / std::sqrt(singular)).epsilon(1e-6));
  CHECK(derived::error(w.row(0) / w.row(0).norm(), a.row(0)) < 1e-6);
}

TEST_CASE("a site without ranks is taken out; one without data starts as usual, which is reported") {
  Two net = injected();
  auto data = activations();
  data[1].second.setConstant(1);  // explains nothing
  (void)graft::initialize_lora_eva_weights(net, data);
  CHECK_THROWS_AS((void)net.b.parameter("default", "lora_A"), graft::AdapterError);
  CHECK(derived::config_of<LoraConfig>(net, "default").target_modules.names() == Strings{"a"});
  CHECK(derived::matrix(net.a, "default", "A").rows() == 6);

  Two partly = injected();
  const auto before = derived::matrix(partly.b, "default", "A");
  const auto report = graft::initialize_lora_eva_weights(partly, {{"a", data[0].second}});
  CHECK(derived::matrix(partly.b, "default", "A") == before);
  CHECK(graft::join(report.warnings, ";").find("no activations were given for b") != std::string::npos);
}

TEST_CASE("EVA of what cannot start so is a typed error, and nothing changes") {
  Two net = injected();
  trained::inject(LoraConfig{.r = 2, .target_modules = {"a"}}, net, "plain", 1);
  const std::string before = results::everything(net);
  const auto refused = [&]<class E>(E*, const graft::Activations<float>& data, const char* name = "default",
                                    const graft::EvaOptions& options = {}) {
    CHECK_THROWS_AS((void)graft::initialize_lora_eva_weights(net, data, name, options), E);
    CHECK(results::everything(net) == before);
  };
  graft::AdapterError* adapter = nullptr;
  graft::ConfigError* config = nullptr;
  graft::ShapeError* shape = nullptr;
  refused(adapter, activations(), "nobody");
  refused(adapter, {});
  refused(adapter, {{"c", graft::Matrix<float>::Ones(9, 24)}});
  refused(config, activations(), "plain");
  refused(config, activations(), "default", {.rho = 0.5});
  refused(shape, {{"a", graft::Matrix<float>::Ones(9, 23)}});
  refused(shape, {{"a", graft::Matrix<float>::Ones(5, 24)}});  // six directions need six rows
}
