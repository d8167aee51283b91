#include <graft/adapters/merge.hpp>

#include "support/merging.hpp"

TEST_CASE("merging LoRA changes no forward: linear layers of every kind") {
  merging::all<awkward::LinearCase<double>, laws::LoraMethod>();
  merging::all<awkward::PlainLinearCase<float>, laws::LoraMethod>();
  merging::forward_does_not_depend_on_merging<awkward::LinearCase<float>, laws::LoraMethod>();
}
TEST_CASE("merging LoRA changes no forward: embeddings and convolutions") {
  merging::all<awkward::LookupCase<double>, laws::LoraMethod>();
  merging::all<awkward::Conv2dCase<double>, laws::LoraMethod>();
  merging::all<awkward::StridedCase<float>, laws::LoraMethod>();
}
TEST_CASE("merging AdaLoRA changes no forward") {
  merging::all<awkward::TransposedCase<double>, laws::AdaLoraMethod>();
  merging::all<awkward::Conv2dCase<float>, laws::AdaLoraMethod>();
}
TEST_CASE("merging IA3 changes no forward") {
  merging::all<awkward::LinearCase<float>, laws::Ia3Method>();
  merging::all<awkward::TransposedCase<float>, laws::Ia3FeedforwardMethod>();
  merging::all<awkward::GroupedConv2dCase<double>, laws::Ia3FeedforwardMethod>();
  merging::all<awkward::GroupedConv2dCase<double>, laws::Ia3Method>();
}
namespace {
template <class Case>
struct DoraMethod {
  static graft::LoraConfig config() {
    return {.r = Case::r, .lora_alpha = 7, .target_modules = {"site"}, .use_dora = true};
  }
};
}  // namespace
TEST_CASE("merging DoRA changes no forward when it is whole, and is refused under another that it would scale") {
  using Case = awkward::LinearCase<double>;
  merging::error_does_not_grow<Case, DoraMethod>();
  merging::unloaded_is_the_same<Case, DoraMethod>();
  merging::unloaded_is_the_same<awkward::Conv2dCase<double>, DoraMethod>();
  merging::unloaded_is_the_same<awkward::LookupCase<double>, DoraMethod>();
  auto net = merging::two_active<Case, DoraMethod>();
  const std::string before = merging::everything(net);
  CHECK_THROWS_WITH_AS((void)graft::merge_adapter(net, "a"), doctest::Contains("computed from the base weight"), graft::MergeError);
  CHECK_THROWS_AS((void)graft::merge_adapter(net, "b"), graft::MergeError);
  CHECK(merging::everything(net) == before);
}
TEST_CASE("what a layer's weight has no room for is refused") {
  merging::is_refused<awkward::GroupedConv2dCase<double>, laws::LoraMethod>("its lora_A sees all input channels");
  merging::is_refused<awkward::EmbeddingCase<float>, laws::LoraMethod>("max_norm");
}

namespace {
struct Narrow {
  graft::Adaptable<graft::Linear<graft::bf16>> p{13, 7};
  auto operator()(const auto& x) const { return p(x); }
  GRAFT_MODULE(p)
};
}  // namespace

TEST_CASE("a narrow weight is the rounded sum of what it was and the delta in float, and comes back to the bit") {
  Narrow net;
  awkward::fill<graft::bf16>(net.p->weight.untyped(), 1);
  trained::inject(graft::LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = {"p"}}, net, "a");
  const std::string before = merging::everything(net);
  CHECK_THROWS_WITH_AS((void)graft::merge_adapter(net), doctest::Contains("backup"), graft::MergeError);
  CHECK(merging::everything(net) == before);
  const graft::Matrix<float> delta =
      7.0F / 3 * net.p.parameter("a", "lora_B").view<float>() * net.p.parameter("a", "lora_A").view<float>();
  const auto old = net.p->weight;
  (void)graft::merge_adapter(net, {}, {.unmerge = graft::Unmerge::backup});
  int changed = 0;
  for (graft::Index o = 0; o < 7; ++o)
    for (graft::Index i = 0; i < 13; ++i) {
      const double exact = double(float(old.view()(o, i))) + double(delta(o, i));
      const double got = double(float(std::as_const(net.p->weight).view()(o, i)));
      CHECK(std::abs(got - exact) <= std::abs(exact) * 0x1p-8 + 1e-6);  // half a unit of bf16's last place
      changed += got != double(float(old.view()(o, i)));
    }
  CHECK(changed > 80);
  (void)graft::unmerge_adapter(net);
  CHECK(merging::everything(net) == before);
  (void)graft::merge_and_unload(net);  // needs nothing kept
  CHECK_FALSE(results::same_bits(graft::Matrix<float>(net.p->weight.view().unaryExpr([](graft::bf16 v) { return float(v); })),
                                 graft::Matrix<float>(old.view().unaryExpr([](graft::bf16 v) { return float(v); }))));
}

namespace {
struct Golden {
  graft::Adaptable<graft::Linear<double>> p{2, 2};
  GRAFT_MODULE(p)
};
struct GoldenTable {
  graft::Adaptable<graft::Embedding<double>> p{3, 2};
  GRAFT_MODULE(p)
};
struct GoldenConv {
  graft::Adaptable<graft::Conv1d<double>> p{1, 1, graft::Conv1dOptions{.kernel = 2, .bias = false}};
  GRAFT_MODULE(p)
};
void set(const graft::ParameterView& parameter, std::vector<double> values) {
  const auto view = parameter.view<double>();
  REQUIRE(std::size_t(view.size()) == values.size());
  std::copy(values.begin(), values.end(), const_cast<double*>(view.data()));
}
template <class P>
void expect(const P& parameter, const std::vector<double>& values, double tolerance = 1e-14) {
  REQUIRE(std::size_t(parameter.size()) == values.size());
  for (std::size_t i = 0; i < values.size(); ++i) CHECK(std::abs(parameter.data()[i] - values[i]) <= tolerance);
}
Golden golden() {
  Golden net;
  net.p->weight.view() << 1, 2, 3, 4;
  net.p->bias.view() << 0.5, -0.5;
  return net;
}
}  // namespace

TEST_CASE("golden vectors of PEFT, merged") {
  {
    Golden net = golden();
    (void)graft::inject_adapter_in_model(graft::LoraConfig{.r = 1, .lora_alpha = 3, .target_modules = {"p"}}, net);
    set(net.p.parameter("default", "lora_A"), {1, -1});
    set(net.p.parameter("default", "lora_B"), {2, 1});
    (void)graft::merge_adapter(net);
    expect(std::as_const(net.p->weight), {7, -4, 6, 1});
    (void)graft::unmerge_adapter(net);
    expect(std::as_const(net.p->weight), {1, 2, 3, 4});
  }
  {
    GoldenTable net;
    net.p->weight.view() << 0, 1, 2, 3, 4, 5;
    (void)graft::inject_adapter_in_model(graft::LoraConfig{.r = 1, .lora_alpha = 2, .target_modules = {"p"}}, net);
    set(net.p.parameter("default", "lora_embedding_A"), {1, 0, -1});
    set(net.p.parameter("default", "lora_embedding_B"), {1, 2});
    (void)graft::merge_adapter(net);
    expect(std::as_const(net.p->weight), {2, 5, 2, 3, 2, 1});
  }
  {
    GoldenConv net;
    net.p->weight.view() << 1, 2;
    (void)graft::inject_adapter_in_model(graft::LoraConfig{.r = 2, .lora_alpha = 2, .target_modules = {"p"}}, net);
    set(net.p.parameter("default", "lora_A"), {1, 0, 0, -1});
    set(net.p.parameter("default", "lora_B"), {1, 2});
    (void)graft::merge_adapter(net);
    expect(std::as_const(net.p->weight), {2, 0});
  }
  {
    Golden net = golden();
    (void)graft::inject_adapter_in_model(graft::AdaLoraConfig{.init_r = 2, .lora_alpha = 3, .target_modules = {"p"}}, net);
    set(net.p.parameter("default", "lora_A"), {1, -1, 0, 2});
    set(net.p.parameter("default", "lora_E"), {0.5, -1});
    set(net.p.parameter("default", "lora_B"), {2, 0, 1, 1});
    (void)graft::merge_adapter(net);
    expect(std::as_const(net.p->weight), {1 + 1.49999250, 2 - 1.49999250, 3 + 0.74999625, 4 - 3.74998125}, 1e-8);
  }
  {
    Golden net = golden();  // zeros in l come back too
    (void)graft::inject_adapter_in_model(graft::Ia3Config{.target_modules = {"p"}}, net);
    set(net.p.parameter("default", "ia3_l"), {0, -3});
    const auto report = graft::merge_adapter(net);
    CHECK(report.warnings.size() == 1);  // it keeps the weight
    expect(std::as_const(net.p->weight), {0, 0, -9, -12});
    expect(std::as_const(net.p->bias), {0, 1.5});
    (void)graft::unmerge_adapter(net);
    expect(std::as_const(net.p->weight), {1, 2, 3, 4}, 0);
    expect(std::as_const(net.p->bias), {0.5, -0.5}, 0);
  }
}
