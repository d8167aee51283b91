#include <graft/injection/plan_layout.hpp>

#include <doctest/doctest.h>

#include <graft/injection/inject.hpp>
#include <graft/state_dict/repr.hpp>

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

/// A weight of (in, out) that its traits show as it lies, and one of the wrong size.
template <int Wrong>
struct Misread {
  Eigen::MatrixXf kernel;
  Misread(graft::Index in, graft::Index out) : kernel(in, out) {}
};
template <int Wrong>
struct NetOfMisread {
  graft::Adaptable<graft::Linear<>> a{6, 6};
  graft::Adaptable<Misread<Wrong>> b;
  NetOfMisread(graft::Index in, graft::Index out) : b(in, out) {}
  GRAFT_MODULE(a, b)
};
}  // namespace
template <int Wrong>
struct graft::layer_traits<Misread<Wrong>> {
  using scalar = float;
  static constexpr LayerKind kind = LayerKind::linear;
  static constexpr bool transposed = true;
  static Index in_features(const Misread<Wrong>& layer) { return layer.kernel.rows() + Wrong; }
  static Index out_features(const Misread<Wrong>& layer) { return Wrong == 6 ? 6 : layer.kernel.cols(); }
  static auto& weight(auto& layer) { return layer.kernel; }
  static Matrix<float> forward(const Misread<Wrong>& layer, const auto& x) { return x * layer.kernel; }
};

TEST_CASE("a weight that does not have the sizes that the traits name is an error, and nothing has changed") {
  const auto refusal = [](auto&& net) {
    std::string text;
    const std::string before = graft::repr(net);
    try {
      (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"a", "b"}}, net);
    } catch (const graft::TargetError& error) {
      text = error.what();
    }
    CHECK(graft::repr(net) == before);
    return text;
  };
  CHECK(refusal(NetOfMisread<0>(6, 4)).find("'b' shows a weight of (6, 4), and its sizes ask for (4, 6)") != std::string::npos);
  CHECK(refusal(NetOfMisread<0>(6, 4)).find("fix: return its transpose()") != std::string::npos);
  CHECK(refusal(NetOfMisread<1>(6, 4)).find("fix: correct the traits") != std::string::npos);
  NetOfMisread<6> later(0, 0);  // its weight has no memory yet
  CHECK_NOTHROW((void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"a", "b"}}, later));
  NetOfMisread<0> one(6, 1);  // of one column: a vector either way
  CHECK_NOTHROW((void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"b"}}, one));
}

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
