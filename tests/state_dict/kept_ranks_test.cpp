#include <graft/state_dict/kept_ranks.hpp>

#include <doctest/doctest.h>

#include <graft/graft.hpp>

#include "support/ramp.hpp"

using graft::AdaLoraConfig;
using graft::Index;
using Sizes = std::vector<Index>;

namespace {
struct Net {
  graft::Adaptable<graft::Linear<>> up{5, 7}, down{7, 3};
  GRAFT_MODULE(up, down)
};
void prune(const Net& net, graft::RankPattern pattern) {
  std::get<AdaLoraConfig>(graft::detail::need_record(graft::sites_of(net), "default")->generation.own()->config).rank_pattern = std::move(pattern);
}
float at(const graft::TensorView& view, Index i) { return graft::element_as<float>(view.dtype, view.data, std::size_t(i)); }
}  // namespace

TEST_CASE("an adapter's state dict has the ranks that were kept") {
  Net net;
  (void)graft::inject_adapter_in_model(AdaLoraConfig{.init_r = 3, .target_modules = {"up", "down"}}, net);
  const auto a = net.up.parameter("default", "lora_A").view<float>(), b = net.up.parameter("default", "lora_B").view<float>();
  CHECK(graft::get_peft_model_state_dict(net).at("up.lora_A").data == net.up.parameter("default", "lora_A").data());  // a view

  prune(net, {{"up", {true, false, true}}, {"down", {false, false, false}}});
  const graft::StateDict pruned = graft::get_peft_model_state_dict(net);
  CHECK(pruned.at("up.lora_A").shape == Sizes{2, 5});
  CHECK(pruned.at("up.lora_B").shape == Sizes{7, 2});
  CHECK(pruned.at("up.lora_E").shape == Sizes{2, 1});
  for (Index j = 0; j < 5; ++j) CHECK(at(pruned.at("up.lora_A"), 5 + j) == a(2, j));
  for (Index o = 0; o < 7; ++o) {
    CHECK(at(pruned.at("up.lora_B"), 2 * o) == b(o, 0));
    CHECK(at(pruned.at("up.lora_B"), 2 * o + 1) == b(o, 2));
  }
  CHECK(pruned.at("down.lora_A").shape == Sizes{0, 7});
  CHECK(pruned.at("down.lora_B").shape == Sizes{3, 0});
  CHECK(graft::state_dict(net).at("up.lora_A.default").shape == Sizes{3, 5});

  prune(net, {{"up.lora_E", {true, true, true}}});  // a file's key; nothing was given up
  CHECK(graft::get_peft_model_state_dict(net).at("up.lora_A").data == net.up.parameter("default", "lora_A").data());
}

TEST_CASE("what was loaded pruned is as it is") {
  Net net;
  (void)graft::inject_adapter_in_model(AdaLoraConfig{.init_r = 3, .target_modules = {"up"}, .rank_pattern = {{"up", {true, false, true}}}}, net);
  const graft::StateDict same = graft::get_peft_model_state_dict(net);
  CHECK(same.at("up.lora_A").shape == Sizes{2, 5});
  CHECK(same.at("up.lora_A").data == net.up.parameter("default", "lora_A").data());
}
