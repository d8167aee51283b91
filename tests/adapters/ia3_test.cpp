#include <graft/adapters/ia3.hpp>

#include "support/laws.hpp"

using graft::Index;
using graft::Matrix;

namespace {

struct Net {
  graft::Adaptable<graft::Linear<>> up{3, 2}, down{2, 3};
  auto operator()(const auto& x) const { return down(up(x)); }
  GRAFT_MODULE(up, down)
};
void set(const graft::ParameterView& parameter, std::initializer_list<float> values) {
  REQUIRE(parameter.view<float>().size() == Index(values.size()));
  std::copy(values.begin(), values.end(), parameter.view<float>().data());
}
Net filled() {
  Net net;
  awkward::fill<float>(net.up->weight.untyped(), 1);
  awkward::fill<float>(net.up->bias.untyped(), 2);
  awkward::fill<float>(net.down->weight.untyped(), 3);
  awkward::fill<float>(net.down->bias.untyped(), 4);
  return net;
}
const graft::Ia3Config both{.target_modules = {"up", "down"}, .feedforward_modules = {"down"}};

}  // namespace

TEST_CASE("IA3 scales outputs, bias included; at a feed-forward layer inputs") {
  Net net = filled();
  const Matrix<float> x = awkward::rows<float>(4, 3), up = net.up(x), h = awkward::rows<float>(4, 2, 9);
  (void)graft::inject_adapter_in_model(both, net);
  CHECK(net.up.parameter("default", "ia3_l").shape() == std::vector<Index>{2, 1});
  CHECK(net.down.parameter("default", "ia3_l").shape() == std::vector<Index>{1, 2});
  CHECK(results::same_bits(net.up(x), up));  // ones
  set(net.up.parameter("default", "ia3_l"), {2, -0.5F});
  set(net.down.parameter("default", "ia3_l"), {3, 0});
  CHECK(results::same_values(net.up(x), Matrix<float>(up * Eigen::Vector2f(2, -0.5F).asDiagonal())));
  Matrix<float> scaled = h * Eigen::Vector2f(3, 0).asDiagonal();
  const Matrix<float> expected =
      (scaled * net.down->weight.view().transpose()).rowwise() + net.down->bias.view().row(0);
  CHECK(results::same_values(net.down(h), expected));
}

TEST_CASE("the vectors of several active adapters multiply; a weight goes from 1 to the vector") {
  Net net = filled();
  const Matrix<float> x = awkward::rows<float>(4, 3), up = net.up(x);
  const graft::Ia3Config one{.target_modules = {"up"}};
  (void)graft::inject_adapter_in_model(one, net, "a");
  (void)graft::inject_adapter_in_model(one, net, "b");
  set(net.up.parameter("a", "ia3_l"), {2, 3});
  set(net.up.parameter("b", "ia3_l"), {-1, 0.5F});
  const auto scaled = [&](float first, float second) {
    return Matrix<float>(up * Eigen::Vector2f(first, second).asDiagonal());
  };
  graft::set_adapter(net, {"a", "b"});
  CHECK(results::same_values(net.up(x), scaled(-2, 1.5F)));
  graft::set_adapter(net, {"b", "a"});
  CHECK(results::same_values(net.up(x), scaled(-2, 1.5F)));
  graft::set_scale(net, "a", 0.5);
  CHECK(results::same_values(net.up(x), scaled(-1.5F, 1)));
  graft::Batch batch;
  batch.add(4, graft::select(net, {{"a", 4}}));  // 4 · 0.5: twice the way from 1 to l
  CHECK(results::same_values(net.up(batch.input(x)), scaled(3, 5)));
}

TEST_CASE("a second IA3 adapter has its own feed-forward layers") {
  Net net = filled();
  (void)graft::inject_adapter_in_model(
      graft::Ia3Config{.target_modules = {"up"}, .feedforward_modules = {"up"}}, net, "inputs");
  (void)graft::inject_adapter_in_model(graft::Ia3Config{.target_modules = {"up"}}, net, "outputs");
  CHECK(net.up.parameter("inputs", "ia3_l").shape() == std::vector<Index>{1, 3});
  CHECK(net.up.parameter("outputs", "ia3_l").shape() == std::vector<Index>{2, 1});
}

TEST_CASE("at a convolution l has a channel axis") {
  awkward::Net<awkward::Conv2dCase<float>> net;
  awkward::Net<awkward::Conv3dCase<float>> volume;
  (void)graft::inject_adapter_in_model(
      graft::Ia3Config{.target_modules = {"site"}, .feedforward_modules = {"site"}}, net);
  CHECK(net.site.parameter("default", "ia3_l").shape() == std::vector<Index>{1, 3, 1, 1});
  (void)graft::inject_adapter_in_model(graft::Ia3Config{.target_modules = {"site"}}, volume);
  CHECK(volume.site.parameter("default", "ia3_l").shape() == std::vector<Index>{1, 3, 1, 1, 1});
}

TEST_CASE("without init, l is normal") {
  awkward::Net<awkward::LinearCase<float>> net;
  (void)graft::inject_adapter_in_model(
      graft::Ia3Config{.target_modules = {"site"}, .init_ia3_weights = false}, net);
  const auto l = net.site.parameter("default", "ia3_l").view<float>();
  CHECK((l.array() != l(0, 0)).any());
  CHECK(l.cwiseAbs().maxCoeff() < 6);
}

TEST_CASE("the laws hold for IA3 at a linear layer") {
  laws::all<awkward::LinearCase<float>, laws::Ia3Method>();
}
TEST_CASE("the laws hold for IA3 before a linear layer") {
  laws::all<awkward::PlainLinearCase<double>, laws::Ia3FeedforwardMethod>();
}
TEST_CASE("the laws hold for IA3 at a grouped convolution") {
  laws::all<awkward::GroupedConv2dCase<float>, laws::Ia3Method>();
}
TEST_CASE("the laws hold for IA3 before a convolution") {
  laws::all<awkward::Conv3dCase<double>, laws::Ia3FeedforwardMethod>();
}
