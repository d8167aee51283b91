#include <graft/adapters/site_backward.hpp>

#include "support/laws.hpp"
#include "support/site_gradients.hpp"

using graft::Matrix;
using site_gradients::Probe;
using site_gradients::without_biases;

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

TEST_CASE("an adapter that is named twice has the gradients of both times, and its bias those of one") {
  using Case = awkward::LinearCase<double>;
  Probe<Case> probe;
  graft::LoraConfig biased = laws::LoraMethod<Case>::config();
  biased.bias = graft::Bias::lora_only;
  trained::inject(biased, probe.net, "lora", 1);
  trained::inject(laws::Ia3Method<Case>::config(), probe.net, "after", 3);
  probe.rows = {{5, graft::select(probe.net, {{"lora", 0.5}, {"after"}, {"lora", 2}, {"after", -1}})}};
  probe.check_all({"lora", "after"});
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
