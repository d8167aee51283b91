#include <graft/adapters/ia3_vjp.hpp>

#include "support/laws.hpp"
#include "support/peft_gradients.hpp"
#include "support/site_gradients.hpp"

using graft::Index;
using graft::Matrix;
using peft_gradients::check;
using site_gradients::check_method;
using site_gradients::Probe;

TEST_CASE("(IA)3 has the gradients of its forward") {
  check_method<awkward::LinearCase<double>, laws::Ia3Method>();
  check_method<awkward::LinearCase<double>, laws::Ia3FeedforwardMethod>();
  check_method<awkward::TransposedCase<double>, laws::Ia3Method>();
  check_method<awkward::GroupedConv2dCase<double>, laws::Ia3Method>();
  check_method<awkward::GroupedConv2dCase<double>, laws::Ia3FeedforwardMethod>();
}
namespace {
/// Two groups, no padding.
struct GroupsCase {
  using Scalar = double;
  using Layer = graft::Conv2d<double>;
  static Layer make() { return Layer(4, 6, {.kernel = {3, 2}, .groups = 2}); }
  static auto input(Index n) { return awkward::GroupedConv2dCase<double>::input(n); }
};
}  // namespace
TEST_CASE("(IA)3 has the gradients that torch finds of PEFT's") {
  const graft::Ia3Config after{.target_modules = {"site"}}, before{.target_modules = {"site"}, .feedforward_modules = {"site"}};
  check<awkward::LinearCase<double>>("linear_ia3", after);
  check<awkward::LinearCase<double>>("linear_ia3_feedforward", before);
  check<GroupsCase>("conv2d_ia3", after);
  check<GroupsCase>("conv2d_ia3_feedforward", before);
}
TEST_CASE("where nobody wants the gradient by the input, the vector that scales it has its own") {
  using Case = awkward::LinearCase<double>;
  Probe<Case> probe;
  trained::inject(laws::Ia3FeedforwardMethod<Case>::config(), probe.net, "a");
  probe.backward();
  const Matrix<double> whole = *probe.gradients.find<double>(probe.net.inner.site.parameter("a", "ia3_l"));
  REQUIRE(whole.norm() > 1);
  probe.backward(false);
  CHECK(results::same_bits(*probe.gradients.find<double>(probe.net.inner.site.parameter("a", "ia3_l")), whole));
}
