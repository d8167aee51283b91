#include <graft/injection/plan_layout.hpp>

#include <doctest/doctest.h>

#include <graft/injection/inject.hpp>

#include "support/awkward_layers.hpp"

using graft::LoraConfig;
using Strings = std::vector<std::string>;

namespace {
/// nn.Linear(5, 7), transformers' Conv1D(3, 7), nn.Linear(3, 4).
struct Net {
  graft::Adaptable<graft::Linear<>> a{5, 7};
  graft::Adaptable<awkward::StoredTransposed<float>> b{7, 3};
  graft::Adaptable<graft::Linear<>> c{3, 4};
  GRAFT_MODULE(a, b, c)
};

/// What the flag of the adapter's config becomes, and how many warnings speak of it.
struct Answer {
  bool flag;
  int warnings;
  bool operator==(const Answer&) const = default;
};
template <class Config>
Answer inject(Net& net, const Strings& targets, bool flag, const std::string& name = "default") {
  Config config;
  config.target_modules = targets;
  config.fan_in_fan_out = flag;
  const auto report = graft::inject_adapter_in_model(config, net, name);
  Answer answer{false, 0};
  for (const std::string& warning : report.warnings) answer.warnings += warning.starts_with("fan_in_fan_out becomes ");
  graft::detail::visit_config(graft::detail::find_record(graft::sites_of(net), name)->config(),
                              [&](const auto& own) { answer.flag = own.fan_in_fan_out; });
  return answer;
}
template <class Config>
Answer inject_alone(const Strings& targets, bool flag) {
  Net net;
  return inject<Config>(net, targets, flag);
}
}  // namespace

// Every answer is real PEFT 0.21.2's.
TEST_CASE_TEMPLATE("the flag follows the layers", Config, LoraConfig, graft::AdaLoraConfig, graft::Ia3Config) {
  CHECK(inject_alone<Config>({"a"}, true) == Answer{false, 1});
  CHECK(inject_alone<Config>({"b"}, false) == Answer{true, 1});
  CHECK(inject_alone<Config>({"a", "b"}, false) == Answer{true, 1});
  CHECK(inject_alone<Config>({"a", "b", "c"}, true) == Answer{false, 3});
  CHECK(inject_alone<Config>({"b"}, true) == Answer{true, 0});
}

TEST_CASE("a layer that is wrapped already leaves the flag of a second adapter alone") {
  Net net;
  CHECK(inject<LoraConfig>(net, {"b"}, false) == Answer{true, 1});
  CHECK(inject<LoraConfig>(net, {"b"}, false, "second") == Answer{false, 0});
  CHECK(inject<LoraConfig>(net, {"b", "c"}, true, "third") == Answer{false, 1});
  CHECK(inject<graft::Ia3Config>(net, {"b"}, false, "another method") == Answer{true, 1});
}
