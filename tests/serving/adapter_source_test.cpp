#include <graft/serving/adapter_source.hpp>

#include <doctest/doctest.h>

#include <cstring>

TEST_CASE("adapter source: a buffer is copied unless it has an owner, and is for inference") {
  const float value[2] = {3, 4};
  graft::StateDict tensors;
  tensors.insert("q.ia3_l", {graft::Dtype::f32, {2, 1}, reinterpret_cast<const std::byte*>(value), nullptr});
  const auto bytes = std::make_shared<std::vector<std::byte>>(graft::safetensors::serialize(tensors));
  const std::string config = R"({"peft_type": "IA3", "target_modules": ["q"], "feedforward_modules": [], "inference_mode": false})";

  const auto copied = graft::detail::AdapterSource::of(graft::AdapterBuffer{*bytes, config});
  const auto kept = graft::detail::AdapterSource::of(graft::AdapterBuffer{*bytes, config, bytes});
  const auto lies_in = [&](const std::byte* at) { return at >= bytes->data() && at < bytes->data() + bytes->size(); };
  CHECK(lies_in(kept.weights.at("q.ia3_l").data));
  CHECK_FALSE(lies_in(copied.weights.at("q.ia3_l").data));
  CHECK(copied.kept_bytes == bytes->size());
  CHECK(std::get<graft::Ia3Config>(kept.config).inference_mode);
  CHECK(std::memcmp(copied.weights.at("q.ia3_l").data, value, sizeof value) == 0);
  CHECK_THROWS_AS((void)graft::detail::AdapterSource::of(graft::AdapterBuffer{*bytes, "{}"}), graft::ConfigError);
  CHECK_THROWS_AS((void)graft::detail::AdapterSource::of(graft::AdapterBuffer{{}, config}), graft::FileError);
}
