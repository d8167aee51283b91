#include <graft/state_dict/subtract_mutated_init.hpp>

#include "support/awkward_layers.hpp"
#include "support/derived_values.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::LoraConfig;

// graft/factorise.hpp is part of this program by convert_to_lora_test.cpp

TEST_CASE("PiSSA and OLoRA become plain LoRA of twice the rank: the matrices and config that PEFT writes") {
  for (const std::string scheme : {"pissa", "olora"})
    for (const bool rslora : {false, true}) {
      const std::string tag = "linear." + scheme + (rslora ? ".rslora." : ".");
      CAPTURE(tag);
      derived::One<graft::Linear<>> net{std::in_place, 13, 7};
      net.lin->weight.view() = derived::values(tag + "weight").cast<float>();
      net.lin->bias.view() = derived::values(tag + "bias").cast<float>();
      (void)graft::inject_adapter_in_model(LoraConfig{.r = 3,
                                                      .lora_alpha = 5,
                                                      .target_modules = {"lin"},
                                                      .use_rslora = rslora,
                                                      .init_lora_weights = scheme},
                                           net, "a");
      for (const char* letter : {"A", "B"})
        derived::write(net.lin.parameter("a", std::string("lora_") + letter), derived::values(tag + letter));
      const graft::Matrix<float> x = derived::values(tag + "x").cast<float>();
      const auto expected = net(x);
      (void)graft::subtract_mutated_init(net, "a", "plain");
      CHECK(graft::active_adapters(net) == std::vector<std::string>{"a"});
      CHECK(derived::error(derived::product(net.lin, "plain"), derived::values(tag + "plain")) < 1e-5);
      const auto config = derived::config_of<LoraConfig>(net, "plain");
      CHECK(config.r == 6);
      CHECK(config.lora_alpha == doctest::Approx(rslora ? 5 * std::sqrt(2.0) : 10).epsilon(1e-15));
      CHECK(config.init_lora_weights == graft::InitLoraWeights(true));
      graft::set_adapter(net, "plain");
      CHECK(results::same_values(net(x), expected));
      CHECK(derived::error(graft::Matrix<float>(net(x)).cast<double>(), derived::values(tag + "y")) < 1e-5);
    }
}

TEST_CASE("patterns are doubled, an embedding beside is padded, and other adapters are refused") {
  struct {
    const char* name;
    double factor;
  } const cases[] = {{"plain", 2}, {"rslora", std::sqrt(2.0)}};
  for (const auto& [name, factor] : cases) {
    awkward::Net<awkward::LookupCase<float>> net;
    const LoraConfig config{.r = 2,
                            .lora_alpha = 3,
                            .target_modules = {"site"},
                            .use_rslora = factor != 2,
                            .init_lora_weights = "pissa",
                            .rank_pattern = {{"site", 3}},
                            .alpha_pattern = {{"site", 7}}};
    trained::inject(config, net, "a", 4);
    const auto x = awkward::LookupCase<float>::input(5);
    const auto expected = net(x);
    (void)graft::subtract_mutated_init(net, "a", name);
    const auto doubled = derived::config_of<LoraConfig>(net, name);
    CHECK(doubled.rank_pattern == graft::PatternMap<int>{{"site", 6}});
    CHECK(doubled.alpha_pattern == graft::PatternMap<double>{{"site", 7 * factor}});
    graft::set_adapter(net, name);
    CHECK(results::same_values(net(x), expected));
    const std::string before = results::everything(net);
    CHECK_THROWS_AS((void)graft::subtract_mutated_init(net, name, "z"), graft::AdapterError);
    CHECK(results::everything(net) == before);
  }
}
