#include <graft/adapters/base_vjp.hpp>

#include "support/laws.hpp"
#include "support/peft_gradients.hpp"
#include "support/site_gradients.hpp"

using peft_gradients::check;
using site_gradients::NormCase;
using site_gradients::PlainEmbeddingCase;
using site_gradients::Probe;
using site_gradients::without_biases;

namespace {
/// torch's options of an embedding that its gradient sees.
struct OptionsCase : PlainEmbeddingCase<double> {
  static Layer make() { return Layer(13, 7, {.padding_idx = 3, .max_norm = 1.5, .scale_grad_by_freq = true}); }
};
const std::vector<int> recorded_ids{3, 8, 0, 8, 12};
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
TEST_CASE("a copy has the gradients that torch finds of PEFT's") {
  const graft::LoraConfig config{.target_modules = {"other"}, .modules_to_save = {"site"}};
  check<awkward::LinearCase<double>>("linear_copy", config);
  check<OptionsCase>("embedding_copy", config, recorded_ids);
}
