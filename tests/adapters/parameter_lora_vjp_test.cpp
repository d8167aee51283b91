#include <graft/adapters/parameter_lora_vjp.hpp>

#include "support/laws.hpp"
#include "support/peft_gradients.hpp"
#include "support/site_gradients.hpp"

using peft_gradients::check;
using site_gradients::PlainEmbeddingCase;
using site_gradients::Probe;
using site_gradients::StackCase;

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
TEST_CASE("LoRA of a stack has the gradients that torch finds of PEFT's") {
  check<StackCase<double>>("stack_lora", graft::LoraConfig{.r = 2, .lora_alpha = 7, .target_parameters = {"inner.site"}});
}
