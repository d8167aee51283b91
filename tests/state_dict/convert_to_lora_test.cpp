#include <graft/state_dict/convert_to_lora.hpp>

#include <graft/factorise.hpp>

#include "support/awkward_layers.hpp"
#include "support/derived_values.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::LoraConfig;
using Strings = std::vector<std::string>;

namespace {

struct Attentive {
  graft::Adaptable<graft::MultiheadAttention<double>> attn{15, 5};
  Attentive() {
    awkward::fill<double>(attn->in_proj_weight.untyped(), 1);
    awkward::fill<double>(attn->out_proj->weight.untyped(), 2);
  }
  auto operator()(const auto& x) const { return attn(x); }
  GRAFT_MODULE(attn)
};

/// Converts the adapters that are active to full rank: the outputs stay.
template <class Case>
void is_exact(const std::string& what, auto&& inject, Strings names, graft::RankOrShare rank) {
  CAPTURE(what);
  awkward::Net<Case> net;
  const auto x = Case::input(5);
  const auto base = net(x);
  inject(net);
  graft::set_adapter(net, names);
  const auto expected = net(x);
  REQUIRE_FALSE(results::same_values(expected, base));
  (void)graft::convert_to_lora(net, names, "z", rank);
  CHECK(graft::active_adapters(net) == names);
  graft::set_adapter(net, "z");
  CHECK(results::same_values(net(x), expected));
}

derived::One<graft::Linear<double>> recorded() {
  derived::One<graft::Linear<double>> net{std::in_place, 13, 7};
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 5, .lora_alpha = 3, .target_modules = {"lin"}}, net);
  for (const char* letter : {"A", "B"})
    derived::write(net.lin.parameter("default", std::string("lora_") + letter),
                   derived::values(std::string("convert.") + letter));
  return net;
}

}  // namespace

TEST_CASE("to a rank, and to a share of the energy: PEFT's values, rank and config") {
  auto net = recorded();
  (void)graft::convert_to_lora(net, "default", "two", 2);
  (void)graft::convert_to_lora(net, "default", "most", 0.9);
  CHECK(derived::matrix(net.lin, "two", "A").rows() == 2);
  CHECK(derived::matrix(net.lin, "most", "A").rows() == 3);
  // PEFT computes in float
  CHECK(derived::error(derived::product(net.lin, "two"), derived::values("convert.2")) < 1e-6);
  CHECK(derived::error(derived::product(net.lin, "most"), derived::values("convert.0.9")) < 1e-6);
  const auto two = derived::config_of<LoraConfig>(net, "two"),
             most = derived::config_of<LoraConfig>(net, "most");
  CHECK(two.r == 2);
  CHECK(two.lora_alpha == 2);
  CHECK(two.rank_pattern.empty());
  CHECK(most.r == 1);
  CHECK(most.rank_pattern == graft::PatternMap<int>{{"lin", 3}});
  CHECK(most.alpha_pattern == graft::PatternMap<double>{{"lin", 3}});
  CHECK_FALSE(net.lin.parameter("two", "lora_A").requires_grad());
}

TEST_CASE("every method becomes LoRA, exactly at full rank: the bias that (IA)³ scales too") {
  const auto lora = [](auto& net) {
    trained::inject(LoraConfig{.r = 4, .lora_alpha = 7, .target_modules = {"site"}}, net, "a", 1);
  };
  const auto ada = [](auto& net) {
    trained::inject(graft::AdaLoraConfig{.init_r = 3, .lora_alpha = 5, .target_modules = {"site"}}, net, "b",
                    2);
  };
  const auto ia3 = [](auto& net) {
    trained::inject(graft::Ia3Config{.target_modules = {"site"}}, net, "c", 3);
  };
  const auto feedforward = [](auto& net) {
    trained::inject(graft::Ia3Config{.target_modules = {"site"}, .feedforward_modules = {"site"}}, net, "d",
                    4);
  };
  const auto all = [&](auto& net) { lora(net), ada(net), ia3(net), feedforward(net); };
  is_exact<awkward::LinearCase<double>>("AdaLoRA, by share", ada, {"b"}, 1.0);
  is_exact<awkward::LinearCase<double>>("(IA)3", ia3, {"c"}, 7);
  is_exact<awkward::LinearCase<double>>("(IA)3 feed-forward", feedforward, {"d"}, 7);
  is_exact<awkward::LinearCase<double>>("all", all, {"a", "b", "c", "d"}, 7);
  is_exact<awkward::TransposedCase<double>>("transposed", all, {"d", "c", "b", "a"}, 7);
  is_exact<awkward::Conv2dCase<double>>("a convolution", ia3, {"c"}, 7);
  is_exact<awkward::Conv2dCase<double>>("a convolution's input", feedforward, {"d"}, 7);
  is_exact<awkward::GroupedConv2dCase<double>>("groups", lora, {"a"}, 4);
  is_exact<awkward::LookupCase<double>>("an embedding", lora, {"a"}, 5);
}

TEST_CASE("a rank that does not fit, a share that is none, and adapters without a LoRA are typed errors") {
  auto net = recorded();
  trained::inject(LoraConfig{.r = 2, .bias = graft::Bias::lora_only, .target_modules = {"lin"}}, net, "bias",
                  3);
  const std::string before = results::everything(net);
  const auto refused = [&]<class E>(E*, const char* name, std::string to, graft::RankOrShare rank) {
    CHECK_THROWS_AS((void)graft::convert_to_lora(net, name, to, rank), E);
    CHECK(results::everything(net) == before);
  };
  graft::ConfigError* config = nullptr;
  graft::AdapterError* adapter = nullptr;
  refused(config, "default", "z", 0);
  refused(config, "default", "z", -1);
  refused(config, "default", "z", 8);
  refused(config, "default", "z", 1.5);
  refused(config, "default", "z", -0.5);
  refused(adapter, "nobody", "z", 2);
  refused(adapter, "default", "bias", 2);
  refused(adapter, "bias", "z", 2);
}

TEST_CASE("an attention and its output projection are converted to one rank") {
  for (const graft::RankOrShare rank : {graft::RankOrShare(5), graft::RankOrShare(1.0)}) {
    Attentive net;
    const graft::Matrix<double> x = awkward::rows<double>(6, 15);
    trained::inject(LoraConfig{.r = 2, .lora_alpha = 7, .target_modules = {"attn"}}, net, "a", 20);
    trained::inject(LoraConfig{.r = 3, .lora_alpha = 2, .target_modules = {"attn"}}, net, "b", 21);
    for (const char* letter : {"A", "B"})  // rank 1 there, 5 at the packed projection
      for (graft::Index i = 1; i < 3; ++i) {
        auto of_b = net.attn->out_proj.parameter("b", std::string("lora_") + letter).view<double>();
        if (*letter == 'A') of_b.row(i).setZero();
      }
    graft::set_adapter(net, {"a", "b"});
    const auto expected = net(x);
    REQUIRE_FALSE(results::same_values(expected, Attentive{}(x)));
    (void)graft::convert_to_lora(net, {"a", "b"}, "z", rank);
    graft::set_adapter(net, "z");
    CHECK(results::same_values(net(x), expected));
    CHECK(net.attn.parameter("z", "lora_A").shape()[0] == 5);
    CHECK(net.attn->out_proj.parameter("z", "lora_A").shape()[0] == 5);
  }
}
