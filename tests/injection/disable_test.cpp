#include <graft/injection/disable.hpp>

#include <optional>

#include "support/merging.hpp"
#include "support/trained.hpp"

using results::same_bits;

TEST_CASE("scopes nest, and merged adapters are out in all of them") {
  using Case = awkward::LinearCase<double>;
  const auto x = Case::input(4);
  const auto base = awkward::Net<Case>{}(x);
  for (const bool is_merged : {false, true}) {
    auto net = merging::two_active<Case, laws::AdaLoraMethod>();
    const std::string plain = merging::everything(net);
    if (is_merged) (void)graft::merge_adapter(net, "b", {.unmerge = graft::Unmerge::backup});
    const std::string before = merging::everything(net);
    const auto y = net(x);
    {
      const auto outer = graft::disable_adapter(net);
      CHECK(same_bits(net(x), base));
      {
        const auto inner = graft::disable_adapter(net);
        CHECK(same_bits(net(x), base));
      }
      CHECK(same_bits(net(x), base));
      if (is_merged) {
        CHECK_THROWS_AS((void)graft::merge_adapter(net, "a"), graft::MergeError);
        CHECK_THROWS_AS((void)graft::unmerge_adapter(net), graft::MergeError);
        CHECK(same_bits(net(x), base));
      }
    }
    CHECK(merging::everything(net) == before);
    CHECK(same_bits(net(x), y));
    (void)graft::unmerge_adapter(net);
    CHECK(merging::everything(net) == plain);
  }
}

TEST_CASE("a copy that was made inside of a scope is the base, and as it was before once it is switched on") {
  using Case = awkward::LinearCase<double>;
  const auto x = Case::input(4);
  const auto base = awkward::Net<Case>{}(x);
  for (const bool is_merged : {false, true}) {
    auto net = merging::two_active<Case, laws::AdaLoraMethod>();
    const std::string plain = merging::everything(net);
    if (is_merged) (void)graft::merge_adapter(net, "b", {.unmerge = graft::Unmerge::backup});
    const std::string before = merging::everything(net);
    const auto y = net(x);
    std::optional<graft::AdapterGuard> scope(graft::disable_adapter(net));
    auto copy = net;
    CHECK(same_bits(copy(x), base));
    scope.reset();
    CHECK(same_bits(copy(x), base));
    if (is_merged) CHECK_THROWS_WITH_AS((void)graft::unmerge_adapter(copy), doctest::Contains("enable_adapter_layers"), graft::MergeError);
    {
      const auto again = graft::disable_adapter(copy);
      CHECK(same_bits(copy(x), base));
    }
    CHECK(same_bits(copy(x), base));

    for (int times = 0; times < 2; ++times) {
      graft::enable_adapter_layers(copy);
      CHECK(same_bits(copy(x), y));
      CHECK(merging::everything(copy) == before);
    }
    {
      const auto off = graft::disable_adapter(copy);
      CHECK(same_bits(copy(x), base));
      CHECK(same_bits(net(x), y));
    }
    CHECK(same_bits(copy(x), y));
    (void)graft::unmerge_adapter(copy);
    CHECK(merging::everything(copy) == plain);
    CHECK(merging::everything(net) == before);
  }
}

namespace {
/// What is off in each its own way: a weight that is a view of somebody's memory, rows of tokens, a bias outside of sites.
struct Mixed {
  graft::Adaptable<graft::Embedding<>> embed{7, 3};
  graft::Adaptable<graft::Linear<float, graft::mapped>> p{3, 4};
  graft::LayerNorm<> norm{4};
  auto operator()(const auto& ids) const { return norm(p(embed(ids))); }
  GRAFT_MODULE(embed, p, norm)
};
}  // namespace

TEST_CASE("merged views and tokens, and biases outside of sites, are off and on in a copy too") {
  const std::vector<int> ids{0, 5, 6};
  Mixed net;
  graft::initialise(net, 3);
  graft::StateDict file = graft::get_base_model_state_dict(net).clone();
  (void)graft::set_base_model_state_dict(net, file, {.low_cpu_mem_usage = true});
  REQUIRE(net.p->weight.untyped().is_borrowed());
  const auto base = net(ids);
  const graft::LoraConfig config{.r = 2, .bias = graft::Bias::all, .target_modules = {"p"}, .trainable_token_indices = {{"embed", {5}}}};
  (void)graft::inject_adapter_in_model(config, net);
  trained::fill(net, "default");
  (void)graft::merge_adapter(net, {}, {.unmerge = graft::Unmerge::backup});
  const std::string before = merging::everything(net);
  const auto y = net(ids);
  std::optional<graft::AdapterGuard> scope(graft::disable_adapter(net));
  Mixed copy = net;
  scope.reset();
  CHECK(same_bits(copy(ids), base));
  CHECK(merging::everything(copy) != before);
  graft::enable_adapter_layers(copy);
  CHECK(graft::detail::shares_records(graft::sites_of(copy)));  // all know that the bias stands in its layer
  CHECK(same_bits(copy(ids), y));
  CHECK(merging::everything(copy) == before);
  CHECK(merging::everything(net) == before);
  (void)graft::unmerge_adapter(copy);
  (void)graft::unmerge_adapter(net);
  CHECK(merging::everything(copy) == merging::everything(net));
  graft::unload(copy);
  CHECK(same_bits(copy(ids), base));
}

namespace {
struct Tie {
  graft::Adaptable<graft::Linear<>> p{5, 5}, q{5, 5};
  Tie() {
    graft::initialise(*this, 2);
    q->weight = p->weight.share();
  }
  Tie(const Tie&) = default;
  auto operator()(const auto& x) const { return q(p(x)); }
  GRAFT_MODULE(p, q)
};
}  // namespace

TEST_CASE("a tie that was merged is switched on in the model itself, or in a copy that was made while it was on") {
  const graft::Matrix<float> x = graft::Matrix<float>::Random(2, 5);
  for (const graft::Tied tied : {graft::Tied::change_both, graft::Tied::untie})
    for (const bool at_both : {false, true}) {
      Tie net;
      const auto base = net(x);
      graft::LoraConfig config{.r = 2, .target_modules = {"p"}, .init_lora_weights = false};
      if (at_both) config.target_modules = {"p", "q"};
      (void)graft::inject_adapter_in_model(config, net);
      (void)graft::merge_adapter(net, {}, {.unmerge = graft::Unmerge::backup, .tied = tied});
      const auto y = net(x);
      Tie on = net;
      std::optional<graft::AdapterGuard> scope(graft::disable_adapter(net));
      Tie off = net;
      graft::enable_adapter_layers(net);
      CHECK(same_bits(net(x), y));
      scope.reset();
      CHECK(same_bits(net(x), y));
      CHECK(same_bits(on(x), y));
      CHECK(same_bits(off(x), base));
      if (tied == graft::Tied::untie) {
        graft::enable_adapter_layers(off);
        CHECK(same_bits(off(x), y));
      } else {
        CHECK_THROWS_WITH_AS(graft::enable_adapter_layers(off), doctest::Contains("Tied::untie"), graft::MergeError);
        CHECK(same_bits(off(x), base));
      }
    }
}

TEST_CASE("a copy whose base has no memory yet is switched on as well") {
  std::vector<graft::Adaptable<graft::Linear<float, graft::lazy>>> net;
  net.emplace_back(3, 2);
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.target_modules = graft::all_linear}, net);
  std::optional<graft::AdapterGuard> scope(graft::disable_adapter(net));
  auto copy = net;
  scope.reset();
  CHECK_FALSE(graft::get_model_status(copy).enabled == graft::get_model_status(net).enabled);
  CHECK_NOTHROW(graft::enable_adapter_layers(copy));
  CHECK(graft::get_model_status(copy).enabled == graft::get_model_status(net).enabled);
}

TEST_CASE("switched on inside of a scope, a model stays on after it") {
  using Case = awkward::LinearCase<double>;
  const auto x = Case::input(4);
  auto net = merging::two_active<Case, laws::AdaLoraMethod>();
  (void)graft::merge_adapter(net, "b", {.unmerge = graft::Unmerge::backup});
  const auto y = net(x);
  {
    const auto scope = graft::disable_adapter(net);
    graft::enable_adapter_layers(net);
    CHECK(same_bits(net(x), y));
  }
  CHECK(same_bits(net(x), y));
}

TEST_CASE("without a kept weight a merged model cannot be disabled, and stays as it is") {
  auto net = merging::two_active<awkward::PlainLinearCase<float>, laws::AdaLoraMethod>();
  (void)graft::merge_adapter(net, "b");
  const std::string before = merging::everything(net);
  CHECK_THROWS_WITH_AS((void)graft::disable_adapter(net), doctest::Contains("Unmerge::backup"), graft::MergeError);
  CHECK(merging::everything(net) == before);
}
