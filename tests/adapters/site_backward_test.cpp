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

namespace {
struct FrequentCase : site_gradients::PlainEmbeddingCase<double> {
  static Layer make() {
    Layer layer(13, 7, {.scale_grad_by_freq = true});
    awkward::fill<double>(layer.weight.untyped(), 6);
    return layer;
  }
};
/// The gradients of a pass whose rows stand in such an order.
template <class Case>
std::vector<Matrix<double>> found(Probe<Case>& probe, const std::vector<graft::Index>& order) {
  const site_gradients::Input<double> x = probe.x;
  const Matrix<double> dy = probe.dy;
  const auto rows = probe.rows;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (x.rows.size()) probe.x.rows.row(graft::Index(i)) = x.rows.row(order[i]);
    else probe.x.ids[i] = x.ids[std::size_t(order[i])];
    probe.dy.row(graft::Index(i)) = dy.row(order[i]);
    probe.rows[i] = rows[std::size_t(order[i])];
  }
  probe.backward();
  std::vector<Matrix<double>> all;
  for (const char* name : {"a", "b"})
    for (const auto& values : probe.parameters(name)) {
      REQUIRE(values.gradient);
      all.push_back(Eigen::Map<const Matrix<double>>(values.gradient, 1, values.size));
    }
  Matrix<double> dx = probe.dx;
  for (std::size_t i = 0; i < order.size() && dx.size(); ++i) dx.row(order[i]) = probe.dx.row(graft::Index(i));
  if (dx.size()) all.push_back(dx);
  probe.x = x;
  probe.dy = dy;
  probe.rows = rows;
  return all;
}
template <class Case>
void is_the_same_apart(auto config) {
  CAPTURE(std::string(graft::type_name<typename Case::Layer>()));
  Probe<Case> probe;
  trained::inject(config, probe.net, "a", 1);
  trained::inject(without_biases(config), probe.net, "b", 2, false);
  graft::set_requires_grad(probe.net, {"a", "b"}, true);
  probe.x = site_gradients::input_of<double>(Case::input(7));
  if (!probe.x.ids.empty()) probe.x.ids = {3, 8, 3, 3, 8, 12, 3};
  probe.dy = awkward::rows<double>(7, probe.width(), 5);
  const auto a = graft::select(probe.net, {{"a"}}), b = graft::select(probe.net, {{"b", 0.5}});
  probe.rows = {{1, a}, {1, b}, {1, a}, {1, a}, {1, graft::base_only()}, {1, b}, {1, a}};
  const auto apart = found(probe, {0, 1, 2, 3, 4, 5, 6}), together = found(probe, {0, 2, 3, 6, 1, 5, 4});
  for (std::size_t i = 0; i < apart.size(); ++i) {
    CAPTURE(i);
    CHECK(results::same_values(apart[i], together[i]));
  }
}
}  // namespace

TEST_CASE("rows of a selection that lie apart have the gradients of those side by side") {
  is_the_same_apart<awkward::LinearCase<double>>(laws::LoraMethod<awkward::LinearCase<double>>::config());
  is_the_same_apart<awkward::LinearCase<double>>(laws::DoraMethod<awkward::LinearCase<double>>::config());
  is_the_same_apart<awkward::LinearCase<double>>(laws::AdaLoraMethod<awkward::LinearCase<double>>::config());
  is_the_same_apart<awkward::TransposedCase<double>>(laws::LoraMethod<awkward::TransposedCase<double>>::config());
  is_the_same_apart<awkward::Conv2dCase<double>>(laws::LoraMethod<awkward::Conv2dCase<double>>::config());
  // torch calls an adapter's table once with all of its rows, and counts them there
  is_the_same_apart<FrequentCase>(laws::LoraMethod<FrequentCase>::config());
  is_the_same_apart<FrequentCase>(laws::DoraMethod<FrequentCase>::config());
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
