#include <graft/state_dict/collect.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstring>

#include "support/results.hpp"
#include "support/trained.hpp"
#include "support/tree_model.hpp"

using graft::LoraConfig;
using Strings = std::vector<std::string>;

namespace {

struct Net {
  graft::Adaptable<graft::Linear<>> fc1{3, 4}, head{4, 2};
  graft::LayerNorm<> norm{2};
  auto operator()(const auto& x) const { return norm(head(fc1(x))); }
  GRAFT_MODULE(fc1, head, norm)
};

}  // namespace

TEST_CASE("a model without adapters has its own keys") {
  CHECK(graft::state_dict(Net{}).keys() ==
        Strings{"fc1.weight", "fc1.bias", "head.weight", "head.bias", "norm.weight", "norm.bias"});
}

TEST_CASE(
    "in memory the keys are torch's: base_layer, the adapter's name, original_module, modules_to_save") {
  Net net;
  (void)graft::inject_adapter_in_model(
      LoraConfig{.r = 2, .target_modules = {"fc1"}, .lora_bias = true, .modules_to_save = {"head"}}, net,
      "a");
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 1, .target_modules = {"fc1"}}, net, "b");
  CHECK(graft::state_dict(net).keys() ==
        Strings{"fc1.base_layer.weight", "fc1.base_layer.bias", "fc1.lora_A.a.weight", "fc1.lora_A.b.weight",
                "fc1.lora_B.a.weight", "fc1.lora_B.a.bias", "fc1.lora_B.b.weight",
                "head.original_module.weight", "head.original_module.bias", "head.modules_to_save.a.weight",
                "head.modules_to_save.a.bias", "norm.weight", "norm.bias"});
  CHECK(graft::get_peft_model_state_dict(net, "a").keys() ==
        Strings{"fc1.lora_A.weight", "fc1.lora_B.weight", "fc1.lora_B.bias", "head.weight", "head.bias"});
  CHECK(graft::get_peft_model_state_dict(net, "b").keys() ==
        Strings{"fc1.lora_A.weight", "fc1.lora_B.weight"});
  CHECK(graft::get_base_model_state_dict(net).keys() == graft::state_dict(Net{}).keys());
  CHECK_THROWS_AS((void)graft::get_peft_model_state_dict(net, "c"), graft::AdapterError);
  CHECK_THROWS_AS((void)graft::get_peft_model_state_dict(Net{}), graft::AdapterError);
}

TEST_CASE("views show the live values, a clone owns its own") {
  Net net;
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"fc1"}}, net);
  const graft::StateDict live = graft::get_peft_model_state_dict(net), own = live.clone();
  const float before = reinterpret_cast<const float*>(own.at("fc1.lora_A.weight").data)[0];
  net.fc1.parameter("default", "lora_A").view<float>()(0, 0) = 42;
  CHECK(reinterpret_cast<const float*>(live.at("fc1.lora_A.weight").data)[0] == 42);
  CHECK(reinterpret_cast<const float*>(own.at("fc1.lora_A.weight").data)[0] == before);
}

TEST_CASE("meta parameters come out as meta") {
  Net net;
  (void)graft::inject_adapter_in_model(
      LoraConfig{.r = 2, .target_modules = {"fc1"}, .modules_to_save = {"head"}}, net, "default",
      {.low_cpu_mem_usage = true});
  const graft::StateDict all = graft::get_peft_model_state_dict(net);
  CHECK(all.at("fc1.lora_A.weight").device() == graft::Device::meta);
  CHECK(all.at("fc1.lora_A.weight").shape == std::vector<graft::Index>{2, 3});
  CHECK(all.at("head.weight").device() == graft::Device::cpu);
}

TEST_CASE("a transposed layer is stored as it is, its adapter as PEFT stores it") {
  awkward::Net<awkward::TransposedCase<float>> net;
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"site"}}, net);
  const graft::StateDict all = graft::state_dict(net);
  CHECK(all.at("site.base_layer.weight").shape == std::vector<graft::Index>{7, 13});
  CHECK(all.at("site.lora_A.default.weight").shape == std::vector<graft::Index>{2, 7});
  CHECK(all.at("site.lora_B.default.weight").shape == std::vector<graft::Index>{13, 2});
  CHECK(std::memcmp(all.at("site.base_layer.weight").data, net.site->kernel.data(), 7 * 13 * sizeof(float)) ==
        0);
}

TEST_CASE("a trained bias of the active adapter stands where PEFT keeps it: in its layer") {
  Net net;
  trained::inject(LoraConfig{.r = 2, .bias = graft::Bias::all, .target_modules = {"fc1"}}, net, "a", 20);
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 1, .target_modules = {"fc1"}}, net, "b");
  const graft::StateDict base = graft::get_base_model_state_dict(net).clone(), file = graft::get_peft_model_state_dict(net, "a").clone();
  const auto is = [](graft::TensorView a, graft::TensorView b) { return std::memcmp(a.data, b.data, std::size_t(a.bytes())) == 0; };
  const std::array<std::array<const char*, 3>, 3> biases{{{"fc1.base_layer.bias", "fc1.base_layer.bias", "fc1.bias"},
                                                          {"head.bias", "head.bias", "head.bias"},
                                                          {"norm.bias", "norm.bias", "norm.bias"}}};
  const auto all_are = [&](bool trained) {
    const graft::StateDict all = graft::state_dict(net);
    for (const auto& [in_memory, in_file, in_base] : biases) {
      CHECK_FALSE(is(file.at(in_file), base.at(in_base)));
      CHECK(is(all.at(in_memory), trained ? file.at(in_file) : base.at(in_base)));
    }
  };
  graft::set_adapter(net, "a");
  all_are(true);
  {
    const auto off = graft::disable_adapter(net);
    all_are(false);
  }
  graft::set_adapter(net, "b");
  all_are(false);
  graft::set_adapter(net, {"a", "b"});
  all_are(true);
  graft::merge_adapter(net);
  all_are(true);
}

TEST_CASE("without what only the code of a layer reaches the keys are the same, and nothing is copied") {
  awkward::Net<awkward::TransposedCase<float>> net;
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"site"}}, net);
  const graft::ModelSites sites = graft::sites_of(net);
  const graft::StateDict whole = graft::detail::whole_state_dict(sites);
  const graft::StateDict shown = graft::detail::whole_state_dict(sites, graft::detail::Shown::parameters);
  CHECK(whole.keys() == shown.keys());
  CHECK(whole.at("site.base_layer.weight").owner);
  CHECK_FALSE(shown.at("site.base_layer.weight").owner);
  CHECK(shown.at("site.base_layer.weight").data == sites.sites[0]->tensors()[0].storage);
  CHECK(shown.at("site.base_layer.weight").shape == whole.at("site.base_layer.weight").shape);
  CHECK(shown.at("site.lora_A.default.weight").data == whole.at("site.lora_A.default.weight").data);
}
