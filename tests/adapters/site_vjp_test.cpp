#include <graft/adapters/site_vjp.hpp>

#include "support/laws.hpp"
#include "support/site_gradients.hpp"

using graft::Index;
using graft::Matrix;
using site_gradients::Probe;

namespace {

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
