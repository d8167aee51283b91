#include <graft/state_dict/combine.hpp>

#include <graft/state_dict/add_weighted_adapter.hpp>

#include "support/awkward_layers.hpp"
#include "support/derived_values.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::CombinationType;
using graft::LoraConfig;
using Strings = std::vector<std::string>;

// graft/factorise.hpp is part of this program by convert_to_lora_test.cpp

namespace {

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

struct Case {
  const char* name;
  CombinationType type;
  graft::MajoritySign sign = graft::MajoritySign::total;
  double tolerance = 1e-6;  // PEFT rounds weights and their roots to float: 6e-8 of values up to 10
};

template <class Layer>
void equals_peft(const std::string& kind, auto&&... arguments) {
  using enum CombinationType;
  CAPTURE(kind);
  auto net = with_adapters<Layer>(kind, arguments...);
  for (const Case& one :
       {Case{"cat", cat, {}, 1e-14}, Case{"linear", linear}, Case{"magnitude_prune", magnitude_prune},
        Case{"ties", ties}, Case{"ties_frequency", ties, graft::MajoritySign::frequency}}) {
    CAPTURE(one.name);
    (void)graft::add_weighted_adapter(net, names, weights, one.name, one.type,
                                      {.density = 0.55, .majority_sign = one.sign});
    for (const char* letter : {"A", "B"})
      CHECK(derived::error(derived::matrix(net.lin, one.name, letter),
                           derived::values(kind + "." + one.name + "." + letter)) < one.tolerance);
  }
  for (const Case& one :
       {Case{"svd", svd}, Case{"magnitude_prune_svd", magnitude_prune_svd}, Case{"ties_svd", ties_svd}}) {
    CAPTURE(one.name);
    (void)graft::add_weighted_adapter(net, names, weights, one.name, one.type,
                                      {.density = 0.55, .svd_rank = 6});
    const auto a = derived::matrix(net.lin, one.name, "A");
    CHECK(a.rows() == 6);
    CHECK(derived::error(derived::product(net.lin, one.name),
                         derived::values(kind + "." + one.name + ".delta")) < one.tolerance);
    CHECK(derived::error(a * a.transpose(), derived::Values::Identity(6, 6)) < 1e-12);
  }
}

template <class Case>
auto trained_net(auto config_a, auto config_b) {
  awkward::Net<Case> net;
  trained::inject(config_a, net, "a", 20);
  trained::inject(config_b, net, "b", 21);
  return net;
}

/// The outputs of one adapter and of others side by side.
auto outputs(auto& net, const auto& x, graft::Names active) {
  graft::set_adapter(net, active);
  return net(x);
}

}  // namespace

TEST_CASE("every type at every kind of layer equals PEFT") {
  equals_peft<graft::Linear<double>>("linear", 13, 7);
  equals_peft<awkward::StoredTransposed<double>>("transposed", 13, 7);
  equals_peft<graft::Embedding<double>>("embedding", 19, 11);
  equals_peft<graft::Conv1d<double>>("conv1d", 5, 7, graft::Conv1dOptions{.kernel = 3});
  equals_peft<graft::Conv2d<double>>("conv2d", 5, 7, graft::Conv2dOptions{.kernel = {3, 2}});
  equals_peft<graft::Conv3d<double>>("conv3d", 3, 7, graft::Conv3dOptions{.kernel = 2});
}

TEST_CASE("groups of a convolution keep their ranks, lora_bias adds up") {
  using Case = awkward::GroupedConv2dCase<double>;
  const LoraConfig config{.r = Case::r, .lora_alpha = 7, .target_modules = {"site"}, .lora_bias = true};
  LoraConfig plain = config;
  plain.lora_bias = false;
  plain.r = 2 * Case::r;
  auto net = trained_net<Case>(config, plain);
  const auto x = Case::input(3);
  const auto expected = outputs(net, x, {"a", "b"});
  REQUIRE_FALSE(results::same_values(outputs(net, x, "a"), expected));
  (void)graft::add_weighted_adapter(net, {"a", "b"}, {1, 1}, "cat");
  (void)graft::add_weighted_adapter(net, {"a", "b"}, {1, 1}, "svd", CombinationType::svd,
                                    {.svd_rank = 3 * Case::r});
  (void)graft::add_weighted_adapter(net, {"a", "b"}, {1, 1}, "delta", CombinationType::ties_svd,
                                    {.density = 1, .svd_rank = 3 * Case::r});
  for (const char* name : {"cat", "svd"}) CHECK(results::same_values(outputs(net, x, name), expected));
  CHECK_FALSE(results::same_values(outputs(net, x, "delta"), expected));
  const std::string before = results::everything(net);
  CHECK_THROWS_AS((void)graft::add_weighted_adapter(net, {"a", "b"}, {1, 1}, "odd", CombinationType::svd,
                                                    {.svd_rank = 3}),
                  graft::ConfigError);
  CHECK(results::everything(net) == before);
}

TEST_CASE("dare drops the same entries again for the same seed, and none for density 1") {
  auto net = with_adapters<graft::Linear<double>>("linear", 13, 7);
  (void)graft::add_weighted_adapter(net, names, weights, "linear", CombinationType::linear);
  (void)graft::add_weighted_adapter(net, names, weights, "all", CombinationType::dare_linear, {.density = 1});
  CHECK(derived::matrix(net.lin, "all", "A") == derived::matrix(net.lin, "linear", "A"));
  for (const auto type : {CombinationType::dare_linear, CombinationType::dare_ties,
                          CombinationType::dare_linear_svd, CombinationType::dare_ties_svd}) {
    for (const auto& [name, seed] : {std::pair{"x", 1u}, {"y", 1u}, {"z", 2u}})
      (void)graft::add_weighted_adapter(net, names, weights, name, type, {.density = 0.5, .seed = seed});
    CHECK(derived::product(net.lin, "x") == derived::product(net.lin, "y"));
    CHECK(derived::product(net.lin, "x") != derived::product(net.lin, "z"));
    for (const char* name : {"x", "y", "z"}) graft::delete_adapter(net, name);
  }
}
