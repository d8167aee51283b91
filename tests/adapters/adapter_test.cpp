#include <graft/adapters/adapter.hpp>
#include <graft/adapters/generation.hpp>

#include "support/laws.hpp"

TEST_CASE("a part of an input is those rows, or those ids") {
  graft::Matrix<float> x = awkward::rows<float>(5, 3);
  const graft::SiteInput<float> rows{.rows = graft::in<float>(x.data(), 5, 3)};
  CHECK(rows.count() == 5);
  CHECK(rows.part(1, 2).rows.data() == x.data() + 3);
  CHECK(rows.part(1, 2).count() == 2);
  const std::vector<std::int64_t> numbers{4, 5, 6, 7};
  const graft::SiteInput<float> ids{.ids = graft::Ids(std::span<const std::int64_t>(numbers))};
  CHECK(ids.count() == 4);
  CHECK(ids.part(2, 2).count() == 2);
  CHECK(ids.part(2, 2).ids[0] == 6);
}

namespace {
graft::PeftType type_of(graft::PeftConfig config) {
  return graft::AdapterRecord(0, "a", std::move(config)).type();
}
}  // namespace

TEST_CASE("methods have their names in files") {
  CHECK(graft::peft_type_name(graft::PeftType::lora) == "LORA");
  CHECK(graft::peft_type_name(graft::PeftType::adalora) == "ADALORA");
  CHECK(graft::peft_type_name(graft::PeftType::ia3) == "IA3");
  CHECK(type_of(graft::LoraConfig{}) == graft::PeftType::lora);
  CHECK(type_of(graft::AdaLoraConfig{}) == graft::PeftType::adalora);
  CHECK(type_of(graft::Ia3Config{}) == graft::PeftType::ia3);
}

TEST_CASE("adapters of narrow layers are float") {
  awkward::Net<awkward::LinearCase<graft::bf16>> net;
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.target_modules = {"site"}}, net);
  CHECK(net.site.parameter("default", "lora_A").dtype() == graft::Dtype::f32);
}

TEST_CASE("the laws hold for LoRA and DoRA at a bf16 linear layer") {
  laws::all<awkward::LinearCase<graft::bf16>, laws::LoraMethod>();
  laws::all<awkward::LinearCase<graft::bf16>, laws::DoraMethod>();
}
TEST_CASE("the laws hold for LoRA and DoRA at an f16 embedding") {
  laws::all<awkward::EmbeddingCase<graft::f16>, laws::LoraMethod>();
  laws::all<awkward::EmbeddingCase<graft::f16>, laws::DoraMethod>();
}
TEST_CASE("the laws hold for LoRA and DoRA at a 1-d convolution") {
  laws::all<awkward::Conv1dCase<double>, laws::LoraMethod>();
  laws::all<awkward::Conv1dCase<double>, laws::DoraMethod>();
}
