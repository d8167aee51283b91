#include <graft/state_dict/start_marks.hpp>

#include <doctest/doctest.h>

#include <graft/state_dict/load_base.hpp>

#include "support/awkward_layers.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::LoraConfig;
using graft::StateDict;
using Strings = std::vector<std::string>;

// graft/factorise.hpp is part of this program by convert_to_lora_test.cpp

namespace {

struct Net {
  graft::Adaptable<graft::Linear<>> p{7, 13}, q{13, 5}, tied{7, 13};
  auto operator()(const auto& x) const { return q(graft::add(p(x), tied(x))); }
  GRAFT_MODULE(p, q, tied)
};
/// Adapters "a" at both of `p` and `q`, and plain "b".
Net started(const std::string& scheme) {
  Net net;
  graft::initialise(net, 5);
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 3, .lora_alpha = 5, .target_modules = {"p", "q"}, .init_lora_weights = scheme}, net, "a");
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"p"}}, net, "b");
  trained::fill(net, "a");
  graft::set_adapter(net, "a");
  return net;
}
StateDict other_base(const Net& net, std::initializer_list<const char*> keys) {
  StateDict base = graft::get_base_model_state_dict(net).clone();
  for (const char* key : keys) {
    Net other;
    graft::initialise(other, 6);
    base.insert(key, graft::get_base_model_state_dict(other).clone().at(key));
  }
  return base;
}
Strings warnings(Net& net, const StateDict& base, const graft::LoadOptions& options = {}) {
  return graft::set_base_model_state_dict(net, base, options).warnings;
}

}  // namespace

TEST_CASE("the base's own values may be loaded again: nothing changes, and nothing is said") {
  const graft::Matrix<float> x = graft::Matrix<float>::Random(4, 7);
  for (const char* scheme : {"pissa", "olora"}) {
    Net net = started(scheme);
    const auto y = net(x);
    CHECK(warnings(net, graft::get_base_model_state_dict(net).clone()).empty());
    CHECK(results::same_bits(net(x), y));
    CHECK(warnings(net, other_base(net, {"p.bias", "tied.weight", "tied.bias"})).empty());
  }
}

TEST_CASE("other weights under an adapter that started from them are a warning, and the start stays") {
  const graft::Matrix<float> x = graft::Matrix<float>::Random(4, 7);
  for (const std::string scheme : {"pissa", "olora"}) {
    Net net = started(scheme);
    const graft::Matrix<float> h = net.p(x), adapted = net.q(h), off = net.q.base_layer()(h);
    const StateDict base = other_base(net, {"q.weight"});
    const Strings one = warnings(net, base);
    REQUIRE(one.size() == 1);
    CHECK(one[0] == "adapter 'a' started (" + scheme + ") from other weights of 'q', and still subtracts what it took of those: load the base " +
                        "before it, or load the adapter again");
    // switched off, the new base bit for bit; on, what the adapter adds is what it was
    Net plain;
    (void)graft::set_base_model_state_dict(plain, base);
    const graft::Matrix<float> adapted_now = net.q(h), off_now = plain.q(h);
    CHECK((adapted - off).cwiseAbs().maxCoeff() > 0.1);
    CHECK(((adapted_now - off_now) - (adapted - off)).cwiseAbs().maxCoeff() < 1e-5);
    graft::set_adapter(net, {});
    CHECK(results::same_bits(net(x), plain(x)));
    CHECK(warnings(net, base).empty());
  }
  Net net = started("pissa");
  const Strings both = warnings(net, other_base(net, {"p.weight", "q.weight"}));
  REQUIRE(both.size() == 1);
  CHECK(both[0].find("of 'p' and 1 more, and") != std::string::npos);
}

TEST_CASE("a weight that is written through the other end of a tie has changed too") {
  Net net;
  graft::initialise(net, 5);
  net.tied->weight = net.p->weight.share();
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 3, .target_modules = {"tied"}, .init_lora_weights = "pissa"}, net);
  StateDict base = other_base(net, {"p.weight"});
  REQUIRE(base.erase("tied.weight"));
  CHECK(warnings(net, base, {.strict = false}).size() == 1);
}

TEST_CASE("plain adapters are at home over any base") {
  Net net;
  graft::initialise(net, 5);
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 3, .target_modules = {"p"}, .init_lora_weights = false}, net);
  CHECK(warnings(net, other_base(net, {"p.weight"})).empty());
}
