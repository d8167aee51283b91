#include <graft/state_dict/slots.hpp>

#include <doctest/doctest.h>

#include "support/results.hpp"
#include "support/trained.hpp"
#include "support/tree_model.hpp"

using graft::LoraConfig;

namespace {

const graft::detail::AdapterSlot& slot(const std::vector<graft::detail::AdapterSlot>& slots,
                                       std::string_view key) {
  for (const auto& one : slots)
    if (one.key == key) return one;
  throw std::out_of_range(std::string(key));
}

}  // namespace

TEST_CASE("a slot knows its key in a file and in memory, and reads and writes its tensor") {
  tree::Net net;
  const LoraConfig config{
      .r = 2, .bias = graft::Bias::all, .target_modules = {"subhead"}, .modules_to_save = {"head"}};
  (void)graft::inject_adapter_in_model(config, net, "x");
  const graft::ModelSites sites = graft::sites_of(net);
  const auto slots = graft::detail::adapter_slots(sites, *graft::detail::need_record(sites, "x"));
  CHECK(slot(slots, "subhead.lora_A.weight").memory_key == "subhead.lora_A.x.weight");
  CHECK(slot(slots, "subhead.base_layer.bias").memory_key == "subhead.base_layer.bias");
  CHECK(slot(slots, "head.weight").memory_key == "head.modules_to_save.x.weight");
  CHECK(slot(slots, "head.bias").key_beside == "head.modules_to_save.bias");
  CHECK(slot(slots, "model.norm.bias").memory_key == "model.norm.bias");
  CHECK(slot(slots, "model.layers.1.mlp.up.bias").shape == graft::Shape{4});
  CHECK_THROWS_AS((void)slot(slots, "model.norm.weight"), std::out_of_range);

  const float values[3] = {1, 2, 3};
  const graft::TensorView source{graft::Dtype::f32, {3}, reinterpret_cast<const std::byte*>(values), nullptr};
  for (const char* key : {"subhead.base_layer.bias", "model.norm.bias", "head.bias"}) {
    slot(slots, key).write(source, true);
    const graft::TensorView now = slot(slots, key).read();
    CHECK(std::memcmp(now.data, values, sizeof(values)) == 0);
    CHECK(now.data != source.data);
  }
  CHECK(net.model.norm.bias.view()(0, 2) == 3);  // stands in the layer while the adapter is active
  CHECK(net.head->bias.view()(0, 2) == 0);       // the original is not the copy
  CHECK(net.subhead->bias.view()(0, 2) == 0);
  graft::set_adapter(net, {});
  CHECK(net.model.norm.bias.view()(0, 2) == 0);
  const graft::ModelSites again = graft::sites_of(net);
  const auto away = graft::detail::adapter_slots(again, *graft::detail::need_record(again, "x"));
  CHECK(std::memcmp(slot(away, "model.norm.bias").read().data, values, sizeof(values)) == 0);
}
