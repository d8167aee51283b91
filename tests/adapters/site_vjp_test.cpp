#include <graft/adapters/site_vjp.hpp>

#include "support/laws.hpp"
#include "support/site_gradients.hpp"

using graft::Index;
using graft::Matrix;
using site_gradients::Probe;

namespace {

/// A second adapter of a model may train no biases.
template <class Config>
Config without_biases(Config config) {
  if constexpr (requires { config.bias; }) config.bias = graft::Bias::none;
  return config;
}
template <class Case, template <class> class Method>
Probe<Case> with_method() {
  Probe<Case> probe;
  trained::inject(Method<Case>::config(), probe.net, "a");
  return probe;
}
template <class Case, template <class> class Method>
void has_gradients() {
  Probe<Case> probe = with_method<Case, Method>();
  CHECK(probe.vjp().trainable(graft::detail::OneSequence(5).view()));
  probe.check_all({"a"});
}

template <class Case>
void dora_has_gradients(double weight = 1) {
  Probe<Case> probe = with_method<Case, laws::DoraMethod>();
  trained::inject(without_biases(laws::LoraMethod<Case>::config()), probe.net, "plain", 31, false);
  // what adapters before have added is scaled too, what those behind add is not
  probe.rows = {{5, graft::select(probe.net, {{"plain"}, {"a", weight}})}};
  site_gradients::hold_norms(probe, "a", weight);
  probe.check_all({"a", "plain"});
}

/// A module of features that a norm scales, and one that a stack of weights multiplies.
template <class T>
struct NormCase {
  using Scalar = T;
  using Layer = graft::LayerNorm<T>;
  static Layer make() {
    Layer layer(7);
    awkward::fill<T>(layer.weight.untyped(), 1);
    awkward::fill<T>(layer.bias.untyped(), 2);
    return layer;
  }
  static auto input(Index n) { return awkward::rows<T>(n, 14); }  // two heads
};
template <class T, template <class...> class Weight = graft::Parameter>
struct StackCase {
  using Scalar = T;
  using Layer = Weight<T>;
  static Layer make() {
    constexpr bool transposed = std::is_same_v<Layer, graft::TransposedParameter<T>>;
    Layer layer(transposed ? graft::Shape{3, 13, 7} : graft::Shape{3, 7, 13});
    awkward::fill<T>(layer.untyped(), 1);
    return layer;
  }
  static auto input(Index n) { return awkward::rows<T>(n, 13); }
};
template <class T>
struct PlainEmbeddingCase : awkward::LookupCase<T> {
  using Layer = graft::Embedding<T>;
  static Layer make() {
    Layer layer(13, 7);
    awkward::fill<T>(layer.weight.untyped(), 6);
    return layer;
  }
};

}  // namespace

TEST_CASE("LoRA, AdaLoRA and (IA)3 at linear layers have the gradients of their forward") {
  has_gradients<awkward::LinearCase<double>, laws::LoraMethod>();
  has_gradients<awkward::LinearCase<double>, laws::AdaLoraMethod>();
  has_gradients<awkward::LinearCase<double>, laws::Ia3Method>();
  has_gradients<awkward::LinearCase<double>, laws::Ia3FeedforwardMethod>();
  has_gradients<awkward::TransposedCase<double>, laws::LoraMethod>();
  has_gradients<awkward::PlainLinearCase<double>, laws::LoraMethod>();
}
TEST_CASE("LoRA, AdaLoRA and (IA)3 at convolutions have the gradients of their forward") {
  has_gradients<awkward::Conv1dCase<double>, laws::LoraMethod>();
  has_gradients<awkward::GroupedConv2dCase<double>, laws::LoraMethod>();
  has_gradients<awkward::GroupedConv2dCase<double>, laws::Ia3Method>();
  has_gradients<awkward::GroupedConv2dCase<double>, laws::Ia3FeedforwardMethod>();
  has_gradients<awkward::Conv2dCase<double>, laws::AdaLoraMethod>();
  has_gradients<awkward::StridedCase<double>, laws::LoraMethod>();
}
TEST_CASE("LoRA at an embedding has the gradients of its forward") {
  has_gradients<awkward::LookupCase<double>, laws::LoraMethod>();
}

TEST_CASE("DoRA has the gradients of its forward, whose norms are constants") {
  dora_has_gradients<awkward::LinearCase<double>>();
  dora_has_gradients<awkward::LinearCase<double>>(0.75);
  dora_has_gradients<awkward::TransposedCase<double>>();
  dora_has_gradients<awkward::PlainLinearCase<double>>();
  dora_has_gradients<awkward::Conv2dCase<double>>(1.5);
  dora_has_gradients<awkward::LookupCase<double>>();
}

TEST_CASE("adapters side by side have the gradients of their forward, whatever their weights") {
  using Case = awkward::LinearCase<double>;
  Probe<Case> probe;
  trained::inject(laws::LoraMethod<Case>::config(), probe.net, "lora", 1);
  trained::inject(laws::AdaLoraMethod<Case>::config(), probe.net, "adalora", 2);
  trained::inject(laws::Ia3Method<Case>::config(), probe.net, "after", 3);
  trained::inject(laws::Ia3Method<Case>::config(), probe.net, "again", 4);
  trained::inject(laws::Ia3FeedforwardMethod<Case>::config(), probe.net, "before", 5);
  trained::inject(laws::Ia3FeedforwardMethod<Case>::config(), probe.net, "first", 6);
  trained::inject(without_biases(laws::DoraMethod<Case>::config()), probe.net, "dora", 7);
  site_gradients::hold_norms(probe, "dora", 0.75);
  probe.rows = {{5, graft::select(probe.net, {{"after", 0.5}, {"before", 2}, {"lora", -1}, {"dora", 0.75}, {"again"}, {"first", -0.5}, {"adalora", 3}})}};
  probe.check_all({"lora", "adalora", "after", "again", "before", "first", "dora"});
}

TEST_CASE("a stack of weights has the gradients of its forward, row by row of its experts") {
  const auto check = [](auto probe) {
    trained::inject(graft::LoraConfig{.r = 2, .lora_alpha = 3, .target_parameters = {"inner.site"}}, probe.net, "a");
    probe.x.experts = {2, 0, 2, 1, 2};
    probe.check_all({"a"});
    probe.x.experts = {1, 1, 1, 1, 1};
    probe.backward();
    probe.check({"x", probe.x.rows.data(), probe.x.rows.size(), probe.dx.data()});
    for (const auto& values : probe.parameters("a")) probe.check(values);
  };
  check(Probe<StackCase<double>>{});
  check(Probe<StackCase<double, graft::TransposedParameter>>{});
}
TEST_CASE("LoRA of the parameter of a transposed layer and of an embedding have the gradients of their forward") {
  const auto check = [](auto probe) {
    trained::inject(graft::LoraConfig{.r = 2, .lora_alpha = 3, .target_parameters = {"inner.site.weight"}}, probe.net, "a");
    probe.check_all({"a"});
  };
  check(Probe<awkward::TransposedCase<double>>{});
  check(Probe<PlainEmbeddingCase<double>>{});
  check(Probe<awkward::LinearCase<double>>{});
}

namespace {
template <class Case>
void copy_has_gradients(double step = 1.0 / 32, double tolerance = 1e-11) {
  Probe<Case> probe;
  probe.step = step;
  probe.tolerance = tolerance;
  trained::inject(graft::LoraConfig{.target_modules = {"other"}, .modules_to_save = {"site"}}, probe.net, "a");
  probe.check_all({"a"});
  CHECK(probe.gradients.size() == probe.parameters("a").size());  // and none of the layer's own
}
/// Of a layer that stores (in, out), so does its gradient.
void copy_of_users_layer() {
  Probe<awkward::TransposedCase<double>> probe;
  trained::inject(graft::LoraConfig{.target_modules = {"other"}, .modules_to_save = {"site"}}, probe.net, "a");
  auto& copy = static_cast<graft::detail::ModuleCopy<awkward::StoredTransposed<double>>&>(*probe.table()->find("a")->copy()).layer;
  probe.backward();
  probe.check({"kernel", copy.kernel.data(), copy.kernel.size(), probe.gradients.at<double>(copy.kernel.data(), 7, 13).data()});
  probe.check({"x", probe.x.rows.data(), probe.x.rows.size(), probe.dx.data()});
}
/// A copy, adapters over it and one before it.
void copy_under_adapters() {
  using Case = awkward::LinearCase<double>;
  Probe<Case> probe;
  trained::inject(graft::LoraConfig{.target_modules = {"other"}, .modules_to_save = {"site"}}, probe.net, "copy", 1);
  trained::inject(without_biases(laws::DoraMethod<Case>::config()), probe.net, "dora", 2, false);
  trained::inject(laws::Ia3FeedforwardMethod<Case>::config(), probe.net, "before", 3, false);
  trained::inject(laws::Ia3Method<Case>::config(), probe.net, "after", 3, false);
  graft::set_requires_grad(probe.net, {"dora", "before", "after"}, true);
  probe.rows = {{5, graft::select(probe.net, {{"copy"}, {"dora"}, {"before"}, {"after"}})}};
  probe.backward();
  for (const char* name : {"dora", "before", "after"})
    for (const auto& values : probe.parameters(name))
      if (values.name.find("lora_A") == std::string::npos && values.name.find("lora_B") == std::string::npos) probe.check(values);
  // the norms are those of the copy, and change with its weight: its bias alone has them constant
  for (const auto& values : probe.parameters("copy"))
    if (values.name.ends_with("bias")) probe.check(values);
  probe.check({"x", probe.x.rows.data(), probe.x.rows.size(), probe.dx.data()});
}
}  // namespace

TEST_CASE("a copy of the layer has the gradients of its forward") {
  copy_has_gradients<awkward::LinearCase<double>>();
  copy_has_gradients<PlainEmbeddingCase<double>>();
  copy_of_users_layer();
  copy_has_gradients<awkward::Conv2dCase<double>>();
  copy_has_gradients<NormCase<double>>(1.0 / 4096, 1e-6);  // of third order by x: the error is h² / 6 times that derivative
  copy_under_adapters();
}

TEST_CASE("a trained bias has the gradients of the forward where DoRA takes it out of what it scales") {
  using Case = awkward::LinearCase<double>;
  Probe<Case> probe;
  trained::inject(graft::LoraConfig{.bias = graft::Bias::all, .target_modules = {"other"}}, probe.net, "bias", 1);
  trained::inject(without_biases(laws::DoraMethod<Case>::config()), probe.net, "dora", 2);
  graft::set_requires_grad(probe.net, {"dora", "bias"}, true);
  site_gradients::hold_norms(probe, "dora", 2);
  probe.rows = {{5, graft::select(probe.net, {{"bias"}, {"dora", 2}})}};
  probe.check_all({"bias", "dora"});
  // and so has the layer's own where that is trained
  probe.net.inner.site->bias.set_requires_grad(true);
  probe.rows = {{5, graft::select(probe.net, {{"dora", 2}})}};
  probe.backward();
  graft::Parameter<double>& bias = probe.net.inner.site->bias;
  probe.check({"bias", bias.data(), bias.size(), probe.gradients.of(bias).data()});
}

TEST_CASE("a norm's trained bias has the gradients of its forward") {
  Probe<NormCase<double>> probe;
  trained::inject(graft::LoraConfig{.bias = graft::Bias::all, .target_modules = {"other"}}, probe.net, "a");
  probe.step = 1.0 / 4096;
  probe.tolerance = 1e-6;
  probe.check_all({"a"});
}

namespace {
template <class Case>
Probe<Case> with_tokens(std::vector<Index> ids) {
  Probe<Case> probe;
  graft::TokenIndices tokens;
  trained::inject(graft::LoraConfig{.target_modules = {"other"}, .trainable_token_indices = {{"site", ids}}}, probe.net, "a");
  return probe;
}
}  // namespace

TEST_CASE("trained tokens have the gradients of their forward, and the rows in whose place they stand none") {
  Probe<awkward::LinearCase<double>> head = with_tokens<awkward::LinearCase<double>>({5, 0, 3});
  head.check_all({"a"});
  for (graft::Parameter<double>* own : {&head.net.inner.site->weight, &head.net.inner.site->bias}) own->set_requires_grad(true);
  head.backward();
  for (graft::Parameter<double>* own : {&head.net.inner.site->weight, &head.net.inner.site->bias})
    head.check({"own", own->data(), own->size(), head.gradients.of(*own).data()});
  Probe<PlainEmbeddingCase<double>> table = with_tokens<PlainEmbeddingCase<double>>({3, 8, 12});
  table.check_all({"a"});
}

TEST_CASE("where methods are nested the outer one does not see how the inner one scales the input") {
  using Case = awkward::LinearCase<double>;
  for (const bool is_lora_inside : {false, true}) {
    Probe<Case> probe;
    trained::inject(graft::LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = {"site"}}, probe.net, "lora", 1);
    trained::inject(laws::Ia3FeedforwardMethod<Case>::config(), probe.net, "before", 2);
    trained::inject(laws::Ia3Method<Case>::config(), probe.net, "after", 3);
    graft::set_requires_grad(probe.net, {"lora", "before", "after"}, true);
    probe.rows = {{5, graft::select(probe.net, {{"lora"}, {"before"}, {"after"}})}};
    const Matrix<double> beside = probe.forward();
    for (const char* name : {"lora", "before", "after"})
      probe.table()->find(name)->here()->depth = (std::string(name) == "lora") == is_lora_inside;
    REQUIRE(results::same_values(probe.forward(), beside) == is_lora_inside);
    probe.check_all({"lora", "before", "after"});
  }
}
