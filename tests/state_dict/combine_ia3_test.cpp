#include <graft/state_dict/add_weighted_adapter.hpp>

#include "support/awkward_layers.hpp"
#include "support/derived_values.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::Ia3Config;
using Strings = std::vector<std::string>;

namespace {
struct Net {
  graft::Adaptable<graft::Linear<>> up{3, 2}, down{2, 3};
  auto operator()(const auto& x) const { return down(up(x)); }
  GRAFT_MODULE(up, down)
};
void set(const graft::ParameterView& parameter, std::initializer_list<float> values) {
  REQUIRE(parameter.view<float>().size() == graft::Index(values.size()));
  std::copy(values.begin(), values.end(), parameter.view<float>().data());
}
std::vector<float> vector(const Net& net, const graft::Adaptable<graft::Linear<>> Net::*site,
                          const char* name) {
  const auto view = (net.*site).parameter(name, "ia3_l").template view<float>();
  return {view.data(), view.data() + view.size()};
}
Net adapted() {
  Net net;
  graft::initialise(net, 1);
  (void)graft::inject_adapter_in_model(
      Ia3Config{.target_modules = {"up", "down"}, .feedforward_modules = {"down"}}, net, "a");
  (void)graft::inject_adapter_in_model(Ia3Config{.target_modules = {"up"}}, net, "b");
  set(net.up.parameter("a", "ia3_l"), {2, 3});
  set(net.down.parameter("a", "ia3_l"), {5, -1});
  set(net.up.parameter("b", "ia3_l"), {-4, 0.5F});
  return net;
}
}  // namespace

TEST_CASE("(IA)³: the weighted sum of vectors, where an adapter that is absent counts as 1") {
  Net net = adapted();
  (void)graft::add_weighted_adapter(net, {"a", "b"}, {0.5, 0.25}, "z");
  CHECK(vector(net, &Net::up, "z") == std::vector<float>{0, 1.625F});
  CHECK(vector(net, &Net::down, "z") == std::vector<float>{2.75F, -0.25F});
  const auto config = derived::config_of<Ia3Config>(net, "z");
  CHECK(config.target_modules.names() == Strings{"up", "down"});
  CHECK(config.feedforward_modules.names() == Strings{"down"});
  CHECK_FALSE(net.up.parameter("z", "ia3_l").requires_grad());
  CHECK(graft::active_adapters(net) == Strings{"b"});
}

TEST_CASE("(IA)³ as PEFT does it: an adapter that is absent counts as 0") {
  Net net = adapted();
  (void)graft::add_weighted_adapter(net, {"a", "b"}, {0.5, 0.25}, "z", {}, {.absent_is_zero = true});
  CHECK(vector(net, &Net::down, "z") == std::vector<float>{2.5F, -0.5F});
}

TEST_CASE("(IA)³ vectors count with their strength") {
  Net net = adapted();
  graft::set_scale(net, "a", 2);  // 1 + 2 · (l - 1)
  (void)graft::add_weighted_adapter(net, "a", {1}, "z");
  CHECK(vector(net, &Net::up, "z") == std::vector<float>{3, 5});
}

TEST_CASE("a site that is a feed-forward module of one adapter only is an error") {
  Net net = adapted();
  (void)graft::inject_adapter_in_model(Ia3Config{.target_modules = {"down"}}, net, "c");
  const std::string before = results::everything(net);
  CHECK_THROWS_AS((void)graft::add_weighted_adapter(net, {"a", "c"}, {1, 1}, "z"), graft::AdapterError);
  CHECK(results::everything(net) == before);
}
