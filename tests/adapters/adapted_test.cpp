#include <graft/adapters/adapted.hpp>

#include <type_traits>

#include "support/laws.hpp"

using graft::Index;
using graft::Matrix;

namespace {

using Linear = graft::Linear<>;

struct OnlyLora {
  graft::Adapted<Linear, graft::Lora> p{13, 7};
  auto operator()(const auto& x) const { return p(x); }
  GRAFT_MODULE(p)
};
struct NoRoom {
  graft::Adapted<Linear> p{13, 7};
  auto operator()(const auto& x) const { return p(x); }
  GRAFT_MODULE(p)
};

}  // namespace

TEST_CASE("an empty list is exactly the layer; a site costs one pointer") {
  static_assert(sizeof(graft::Adapted<Linear>) == sizeof(Linear));
  static_assert(sizeof(graft::Adaptable<Linear>) == sizeof(Linear) + sizeof(void*));
  static_assert(!graft::enable_site<graft::Adapted<Linear>>);
  static_assert(graft::enable_site<graft::Adaptable<Linear>>);
  NoRoom net;
  awkward::fill<float>(net.p->weight.untyped(), 1);
  const Matrix<float> x = awkward::rows<float>(3, 13);
  CHECK(results::same_bits(net(x), net.p.base_layer()(x)));
  CHECK_THROWS_AS(graft::inject_adapter_in_model(graft::LoraConfig{.target_modules = {"p"}}, net),
                  graft::TargetError);
}

TEST_CASE("there is no conversion to the layer, and the closed list decides") {
  using Site = graft::Adaptable<Linear>;
  static_assert(!std::is_convertible_v<Site, Linear>);
  static_assert(!std::is_convertible_v<Site&, Linear&>);
  static_assert(!std::is_base_of_v<Linear, Site>);
  static_assert(Site::permits<graft::Lora> && Site::permits<graft::AdaLora> && Site::permits<graft::Ia3>);
  static_assert(graft::Adapted<Linear, graft::Lora>::permits<graft::Lora>);
  static_assert(!graft::Adapted<Linear, graft::Lora>::permits<graft::Ia3>);
  static_assert(!graft::Adaptable<graft::Embedding<>>::permits<graft::Ia3>);
  static_assert(std::is_same_v<decltype(std::declval<const Site&>().operator->()), const Linear*>);
  OnlyLora net;
  CHECK_THROWS_WITH_AS(graft::inject_adapter_in_model(graft::Ia3Config{.target_modules = {"p"}}, net),
                       doctest::Contains("no room for IA3"), graft::TargetError);
}

TEST_CASE("the layer's own arguments make a site, options with their type") {
  const graft::Adaptable<graft::Conv2d<>> conv{2, 3, graft::Conv2dOptions{.kernel = {3, 1}, .bias = false}};
  CHECK(conv->weight.shape() == std::vector<Index>{3, 2, 3, 1});
  const graft::Adaptable<Linear> from_layer{Linear(4, 5, false)};
  CHECK(from_layer->weight.shape() == std::vector<Index>{5, 4});
  CHECK(from_layer->bias.size() == 0);
}

TEST_CASE("parameters are found by PEFT's names, and what is not there is an error that says what is") {
  OnlyLora net;
  CHECK_THROWS_AS((void)net.p.parameter("default", "lora_A"), graft::AdapterError);
  (void)graft::inject_adapter_in_model(
      graft::LoraConfig{.r = 3, .target_modules = {"p"}, .inference_mode = true}, net, "one");
  const graft::ParameterView a = net.p.parameter("one", "lora_A");
  CHECK(a.shape() == std::vector<Index>{3, 13});
  CHECK(a.dtype() == graft::Dtype::f32);
  CHECK(a.device() == graft::Device::cpu);
  CHECK_FALSE(a.requires_grad());
  CHECK_THROWS_AS((void)a.view<double>(), graft::ShapeError);
  CHECK_THROWS_AS((void)net.p.parameter("two", "lora_A"), graft::AdapterError);
  CHECK_THROWS_AS((void)net.p.parameter("one", "lora_C"), graft::AdapterError);
  CHECK_THROWS_AS((void)net.p.parameter("one", "lora_B.bias"), graft::AdapterError);
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.target_modules = {"p"}}, net, "meta",
                                       {.low_cpu_mem_usage = true});
  CHECK(net.p.parameter("meta", "lora_B").device() == graft::Device::meta);
  CHECK_THROWS_AS((void)net.p.parameter("meta", "lora_B").view<float>(), graft::MetaError);
}

TEST_CASE("moving a model takes its adapters along; a copy of itself changes nothing") {
  OnlyLora net;
  trained::inject(graft::LoraConfig{.r = 3, .target_modules = {"p"}}, net, "a");
  const Matrix<float> x = awkward::rows<float>(3, 13), y = net(x);
  OnlyLora& same = net;
  net = same;
  CHECK(results::same_bits(net(x), y));
  const OnlyLora moved = std::move(net);
  CHECK(results::same_bits(moved(x), y));
  CHECK(graft::adapter_names(moved) == std::vector<std::string>{"a"});
}

TEST_CASE("the laws hold for LoRA and DoRA at a user's embedding") {
  laws::all<awkward::LookupCase<double>, laws::LoraMethod>();
  laws::all<awkward::LookupCase<double>, laws::DoraMethod>();
}
TEST_CASE("the laws hold for LoRA and DoRA at a user's convolution") {
  laws::all<awkward::StridedCase<float>, laws::LoraMethod>();
  laws::all<awkward::StridedCase<float>, laws::DoraMethod>();
}

namespace recording {
/// A value of training, which says where it went.
struct Value {
  std::string went_to{};
};
template <class... As, class L>
Value record_site(graft::AdapterList<As...>, const graft::detail::SiteDoor<L>& door, const Value& x) {
  const std::string experts = door.experts.is_none() ? "" : " of expert " + std::to_string(door.experts.one());
  return {x.went_to + (door.table ? door.table->path : "a layer") + " with " + std::to_string(sizeof...(As)) + experts + ";"};
}
}  // namespace recording
template <>
inline constexpr bool graft::is_recorded<recording::Value> = true;

TEST_CASE("values of training go to record_site, with the site's list, its table and its experts") {
  OnlyLora net;
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.target_modules = {"p"}}, net, "a");
  const recording::Value x;
  CHECK(net.p(x).went_to == "p with 1;");
  CHECK(graft::Adapted<Linear>(2, 3)(x).went_to == "a layer with 0;");
  const graft::Adaptable<graft::Parameter<>> stack{graft::Shape{2, 3, 4}};
  CHECK(stack(stack(x), 1).went_to == "a layer with 3;a layer with 3 of expert 1;");
  const graft::PackedProjection<> packed(2, 6, false);
  CHECK(graft::detail::SiteProjection<graft::PackedProjection<>, graft::Lora>{packed, nullptr}(x, 0, 2).went_to == "a layer with 1;");
}
