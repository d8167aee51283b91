#include <graft/adapters/adalora_vjp.hpp>

#include "support/laws.hpp"
#include "support/peft_gradients.hpp"
#include "support/site_gradients.hpp"

using graft::Index;
using peft_gradients::check;
using site_gradients::check_method;
using site_gradients::ImageCase;
using site_gradients::Probe;

TEST_CASE("AdaLoRA has the gradients of its forward") {
  check_method<awkward::LinearCase<double>, laws::AdaLoraMethod>();
  check_method<awkward::TransposedCase<double>, laws::AdaLoraMethod>();
  check_method<awkward::Conv2dCase<double>, laws::AdaLoraMethod>();
}
TEST_CASE("AdaLoRA has the gradients that torch finds of PEFT's") {
  const graft::AdaLoraConfig config{.init_r = 3, .target_r = 1, .lora_alpha = 7, .target_modules = {"site"}};
  check<awkward::LinearCase<double>>("linear_adalora", config);
  check<ImageCase>("conv2d_adalora", config);
}
TEST_CASE("AdaLoRA of no rank left passes the layer's gradient on") {
  using Case = awkward::LinearCase<double>;
  Probe<Case> probe, plain;
  graft::AdaLoraConfig config = laws::AdaLoraMethod<Case>::config();
  config.rank_pattern.emplace_back("inner.site.lora_E", std::vector<bool>{false, false, false});
  (void)graft::inject_adapter_in_model(config, probe.net, "a");
  REQUIRE(probe.table()->find("a")->state()->rank() == 0);
  probe.backward();
  plain.backward();
  REQUIRE(plain.dx.norm() > 1);
  CHECK(results::same_bits(probe.dx, plain.dx));
  CHECK(probe.gradients.empty());
}
