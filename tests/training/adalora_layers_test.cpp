#include <graft/training/adalora_layers.hpp>

#include <doctest/doctest.h>

#include <graft/graft.hpp>

using graft::AdaLoraConfig;

namespace {
struct Net {
  graft::Adaptable<graft::Linear<>> up{5, 7}, down{7, 3};
  graft::Adaptable<graft::Conv2d<>> conv{2, 3, graft::Conv2dOptions{.kernel = 3}};
  GRAFT_MODULE(up, down, conv)
};
}  // namespace

TEST_CASE("the matrices of an AdaLoRA adapter are found where they are trained") {
  Net net;
  (void)graft::inject_adapter_in_model(AdaLoraConfig{.init_r = 4, .target_modules = {"up", "conv"}}, net, "a");
  const graft::ModelSites sites = graft::sites_of(net);
  const auto all = graft::detail::adalora_layers(sites, "a", "test");
  REQUIRE(all.layers.size() == 2);
  CHECK(all.config().init_r == 4);
  CHECK(all.layers[0].path == "up");
  CHECK(all.layers[0].rank() == 4);
  CHECK(all.layers[0].b->data() == net.up.parameter("a", "lora_B").data());
  CHECK(all.layers[0].e->data() == net.up.parameter("a", "lora_E").data());
  CHECK(all.layers[1].a->shape().cols() == 18);  // in · kernel
  CHECK_THROWS_AS((void)graft::detail::adalora_layers(sites, "b", "test"), graft::AdapterError);
  graft::set_requires_grad(net, "a", false);
  CHECK_THROWS_WITH_AS((void)graft::detail::adalora_layers(sites, "a", "test"), doctest::Contains("test: adapter 'a' wants no gradients at 'up'"),
                       graft::TrainingError);
}
