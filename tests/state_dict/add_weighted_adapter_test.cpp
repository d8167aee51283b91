#include <graft/state_dict/add_weighted_adapter.hpp>

#include "support/awkward_layers.hpp"
#include "support/derived_values.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::CombinationType;
using graft::CombineOptions;
using graft::Index;
using graft::LoraConfig;
using Strings = std::vector<std::string>;

// graft/factorise.hpp is part of this program by convert_to_lora_test.cpp

namespace {

template <class T>
struct Three {
  graft::Adaptable<graft::Linear<T>> first{7, 13}, second{13, 5}, third{5, 3};
  auto operator()(const auto& x) const { return third(second(first(x))); }
  GRAFT_MODULE(first, second, third)
};

const Strings names{"a", "b", "c"};
const std::vector<double> weights{0.7, -1.3, 0.4};
const std::vector<double> alphas{5, 2, 4};

template <class Layer>
auto with_adapters(const std::string& kind, auto&&... arguments) {
  derived::One<Layer> net{std::in_place, arguments...};
  for (std::size_t i = 0; i < 3; ++i) {
    (void)graft::inject_adapter_in_model(
        LoraConfig{.r = 3, .lora_alpha = alphas[i], .target_modules = {"lin"}}, net, names[i]);
    const bool is_embedding = kind == "embedding";
    for (const char* letter : {"A", "B"})
      derived::write(
          net.lin.parameter(names[i], std::string(is_embedding ? "lora_embedding_" : "lora_") + letter),
          derived::values(kind + "." + names[i] + "." + letter));
  }
  return net;
}

/// The outputs of one adapter and of others side by side.
auto outputs(auto& net, const auto& x, graft::Names active) {
  graft::set_adapter(net, active);
  return net(x);
}

}  // namespace

TEST_CASE("unset, the type is cat: exact, with the strengths that the adapters have") {
  auto net = with_adapters<graft::Linear<double>>("linear", 13, 7);
  graft::set_scale(net, "b", 0.5);
  const auto x = awkward::rows<double>(4, 13);
  const auto report = graft::add_weighted_adapter(net, names, weights, "z");
  CHECK(report.matched.size() == 1);
  CHECK(graft::active_adapters(net) == Strings{"c"});  // as before
  CHECK_FALSE(net.lin.parameter("z", "lora_A").requires_grad());
  graft::Batch batch, mixed;
  batch.add(4, graft::select(net, {{"z", 1}}));
  mixed.add(4, graft::select(net, {{"a", 0.7}, {"b", -1.3}, {"c", 0.4}}));
  const auto y = results::values_of(net(batch.input(x)));
  CHECK(results::close(y, results::values_of(net(mixed.input(x)))));
  CHECK_FALSE(results::close(y, results::values_of(net(x))));
}

TEST_CASE("the new config: rank and alpha are one number, patterns gone, targets united, rslora too") {
  Three<double> net;
  graft::initialise(net, 3);
  trained::inject(LoraConfig{.r = 2,
                             .lora_alpha = 3,
                             .target_modules = {"first"},
                             .use_rslora = true,
                             .rank_pattern = {{"first", 4}}},
                  net, "a", 1);
  trained::inject(LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = {"second"}}, net, "b", 2);
  const auto x = awkward::rows<double>(3, 7);
  const auto expected = outputs(net, x, {"a", "b"});
  (void)graft::add_weighted_adapter(net, {"a", "b"}, {1, 1}, "z");
  CHECK(results::same_values(outputs(net, x, "z"), expected));
  const auto config = derived::config_of<LoraConfig>(net, "z");
  CHECK(config.r == 7);
  CHECK(config.lora_alpha == 7);
  CHECK_FALSE(config.use_rslora);
  CHECK(config.rank_pattern.empty());
  CHECK(config.target_modules.names() == Strings{"first", "second"});
  // the file of the new adapter is complete
  Three<double> fresh;
  (void)graft::inject_adapter_in_model(config, fresh, "z");
  CHECK(graft::set_peft_model_state_dict(fresh, graft::get_peft_model_state_dict(net, "z"), "z")
            .missing_keys.empty());
}

TEST_CASE("where uniting targets would name more modules, paths are listed") {
  Three<float> net;
  graft::initialise(net, 3);
  trained::inject(LoraConfig{.r = 2, .target_modules = {"first", "second"}, .exclude_modules = {"second"}},
                  net, "a", 1);
  (void)graft::add_weighted_adapter(net, "a", {2}, "z");
  CHECK(derived::config_of<LoraConfig>(net, "z").target_modules.names() == Strings{"first", "second"});
  CHECK(derived::config_of<LoraConfig>(net, "z").exclude_modules.names() == Strings{"second"});
  trained::inject(LoraConfig{.r = 2, .target_modules = {"second"}}, net, "b", 1);
  (void)graft::add_weighted_adapter(net, {"a", "b"}, {2, 1}, "both");
  const auto both = derived::config_of<LoraConfig>(net, "both");
  CHECK(both.target_modules.names() == Strings{"first", "second"});
  CHECK_FALSE(both.exclude_modules.is_set());
}

TEST_CASE("AdaLoRA and LoRA become one: E stands in A, pruned ranks fit, and every kind is exact") {
  using Case = awkward::LinearCase<double>;
  awkward::Net<Case> net;
  trained::inject(graft::AdaLoraConfig{.init_r = 3,
                                       .lora_alpha = 7,
                                       .target_modules = {"site"},
                                       .rank_pattern = {{"site", {true, false, true}}}},
                  net, "a", 20);
  trained::inject(LoraConfig{.r = 4, .lora_alpha = 3, .target_modules = {"site"}}, net, "b", 21);
  const auto x = Case::input(5);
  const auto expected = outputs(net, x, {"a", "b"});
  (void)graft::add_weighted_adapter(net, {"a", "b"}, {1, 1}, "cat");
  (void)graft::add_weighted_adapter(net, {"a", "b"}, {1, 1}, "svd", CombinationType::svd, {.svd_rank = 6});
  (void)graft::add_weighted_adapter(net, {"a", "b"}, {1, 1}, "by delta", CombinationType::magnitude_prune_svd,
                                    {.density = 1, .svd_rank = 6});
  for (const char* name : {"cat", "svd", "by delta"})
    CHECK(results::same_values(outputs(net, x, name), expected));
  REQUIRE_FALSE(results::same_values(outputs(net, x, "b"), expected));
  const auto alone = outputs(net, x, "a");
  (void)graft::add_weighted_adapter(net, "a", {1}, "one", CombinationType::svd);
  CHECK(results::same_values(outputs(net, x, "one"), alone));
}

TEST_CASE("a copy of a module goes with the adapter that has it; two copies are an error") {
  Three<float> net;
  graft::initialise(net, 3);
  trained::inject(
      LoraConfig{.r = 2, .lora_alpha = 3, .target_modules = {"second"}, .modules_to_save = {"third"}}, net,
      "a", 1);
  trained::inject(LoraConfig{.r = 2, .lora_alpha = 5, .target_modules = {"second"}}, net, "b", 2);
  const auto x = awkward::rows<float>(3, 7);
  const auto expected = outputs(net, x, {"a", "b"});
  REQUIRE_FALSE(results::same_values(outputs(net, x, "b"), expected));
  (void)graft::add_weighted_adapter(net, {"a", "b"}, {1, 1}, "z");
  CHECK(results::same_values(outputs(net, x, "z"), expected));
  CHECK_THROWS_AS((void)graft::add_weighted_adapter(net, {"a", "z"}, {1, 1}, "y"), graft::AdapterError);
}

TEST_CASE("what does not go together is a typed error, and nothing changes") {
  auto net = with_adapters<graft::Linear<double>>("linear", 13, 7);
  trained::inject(LoraConfig{.r = 4, .target_modules = {"lin"}}, net, "four", 3);
  trained::inject(graft::Ia3Config{.target_modules = {"lin"}}, net, "ia3", 4);
  trained::inject(LoraConfig{.r = 3, .bias = graft::Bias::lora_only, .target_modules = {"lin"}}, net, "bias",
                  5);
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 3, .target_modules = {"lin"}}, net, "meta",
                                       {.low_cpu_mem_usage = true, .activate = false});
  const std::string before = results::everything(net);
  const auto refused = [&]<class E>(E*, Strings list, std::vector<double> of, std::string name,
                                    std::optional<CombinationType> type = {},
                                    const CombineOptions& options = {}) {
    CHECK_THROWS_AS((void)graft::add_weighted_adapter(net, list, of, name, type, options), E);
    CHECK(results::everything(net) == before);
  };
  graft::AdapterError* adapter = nullptr;
  graft::ConfigError* config = nullptr;
  refused(adapter, {"a", "nobody"}, {1, 1}, "z");
  refused(adapter, {}, {}, "z");
  refused(adapter, {"a", "a"}, {1, 1}, "z");
  refused(adapter, {"a", "b"}, {1}, "z");
  refused(adapter, {"a", "b"}, {1, std::nan("")}, "z");
  refused(adapter, {"a", "b"}, {1, 1}, "c");
  refused(adapter, {"a", "b"}, {1, 1}, "dotted.name");
  refused(adapter, {"a", "four"}, {1, 1}, "z", CombinationType::linear);
  refused(adapter, {"a", "four"}, {1, 1}, "z", CombinationType::ties, {.density = 0.5});
  refused(adapter, {"a", "ia3"}, {1, 1}, "z");
  refused(adapter, {"ia3"}, {1}, "z", CombinationType::cat);
  refused(adapter, {"a", "bias"}, {1, 1}, "z");
  refused(config, {"a", "b"}, {1, 1}, "z", CombinationType::ties);
  refused(config, {"a", "b"}, {1, 1}, "z", CombinationType::svd, {.svd_rank = 0});
  refused(static_cast<graft::MetaError*>(nullptr), {"a", "meta"}, {1, 1}, "z");
}
