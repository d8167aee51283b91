#include <graft/adapters/dora_vjp.hpp>

#include <graft/factorise.hpp>

#include "support/laws.hpp"
#include "support/peft_gradients.hpp"
#include "support/site_gradients.hpp"

using graft::Index;
using peft_gradients::check;
using site_gradients::PlainEmbeddingCase;
using site_gradients::ImageCase;
using site_gradients::Probe;
using site_gradients::without_biases;

namespace {
const std::vector<int> recorded_ids{3, 8, 0, 8, 12};
template <class Case>
void dora_has_gradients(double weight = 1) {
  Probe<Case> probe;
  trained::inject(laws::DoraMethod<Case>::config(), probe.net, "a");
  trained::inject(without_biases(laws::LoraMethod<Case>::config()), probe.net, "plain", 31, false);
  // what adapters before have added is scaled too, what those behind add is not
  probe.rows = {{5, graft::select(probe.net, {{"plain"}, {"a", weight}})}};
  site_gradients::hold_norms(probe, "a", weight);
  probe.check_all({"a", "plain"});
}

graft::LoraConfig recorded(graft::LoraConfig config = {}) {
  config.r = 3;
  config.lora_alpha = 7;
  config.target_modules = {"site"};
  config.use_dora = true;
  return config;
}
}  // namespace

TEST_CASE("DoRA has the gradients of its forward, whose norms are constants") {
  dora_has_gradients<awkward::LinearCase<double>>();
  dora_has_gradients<awkward::LinearCase<double>>(0.75);
  dora_has_gradients<awkward::TransposedCase<double>>();
  dora_has_gradients<awkward::PlainLinearCase<double>>();
  dora_has_gradients<awkward::Conv2dCase<double>>(1.5);
  dora_has_gradients<awkward::LookupCase<double>>();
}

TEST_CASE("DoRA has the gradients that torch finds of PEFT's") {
  check<awkward::LinearCase<double>>("linear_dora", recorded({.bias = graft::Bias::lora_only}));
  check<ImageCase>("conv2d_dora", recorded({.bias = graft::Bias::lora_only}));
  check<PlainEmbeddingCase<double>>("embedding_dora", recorded(), recorded_ids);
  // PEFT's start is of float
  check<awkward::LinearCase<double>>("linear_olora_dora", recorded({.init_lora_weights = "olora"}), {}, 2e-6);
}
