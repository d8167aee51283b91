#include <graft/injection/plan_tokens.hpp>

#include <doctest/doctest.h>

#include <graft/graft.hpp>

#include "support/awkward_layers.hpp"
#include "support/results.hpp"

using graft::Index;
using graft::LoraConfig;
using graft::Matrix;
using results::bytes_of;

namespace {

struct Net {
  graft::Adaptable<graft::Embedding<>> embed_tokens{7, 3}, subembed_tokens{7, 3};
  graft::Adaptable<graft::Linear<>> p{3, 3}, lm_head{3, 7};
  graft::Linear<> plain_head{3, 7, false};
  graft::Adaptable<graft::Conv1d<>> conv{3, 3, graft::Conv1dOptions{.kernel = 1}};
  auto operator()(const auto& ids) const { return lm_head(p(embed_tokens(ids))); }
  GRAFT_MODULE(embed_tokens, subembed_tokens, p, lm_head, plain_head, conv)
};

Net made(bool tied = false) {
  Net net;
  awkward::fill<float>(net.embed_tokens->weight.untyped(), 1);
  awkward::fill<float>(net.p->weight.untyped(), 2);
  awkward::fill<float>(net.lm_head->weight.untyped(), 3);
  awkward::fill<float>(net.lm_head->bias.untyped(), 4);
  if (tied) net.lm_head->weight = net.embed_tokens->weight.share();
  return net;
}
LoraConfig config(graft::TokenIndices tokens) {
  return {.r = 2, .target_modules = {"p"}, .trainable_token_indices = std::move(tokens)};
}
template <class E>
std::string refused(const LoraConfig& config, Net net = made()) {
  const std::string before = bytes_of(graft::state_dict(net));
  try {
    (void)graft::inject_adapter_in_model(config, net);
  } catch (const E& error) {
    CHECK(bytes_of(graft::state_dict(net)) == before);
    CHECK_FALSE(error.fix.empty());
    return error.what();
  }
  return "accepted";
}
bool has(const std::string& text, const std::string& part) {
  if (text.find(part) == text.npos) MESSAGE(text);
  return text.find(part) != text.npos;
}

TEST_CASE("a list means embed_tokens, by whole components") {
  Net net = made();
  (void)graft::inject_adapter_in_model(config({5, 1}), net);
  const graft::StateDict keys = graft::get_peft_model_state_dict(net);
  CHECK(keys.keys() == std::vector<std::string>{"p.lora_A.weight", "p.lora_B.weight",
                                                "embed_tokens.token_adapter.trainable_tokens_delta"});
  CHECK(keys.at("embed_tokens.token_adapter.trainable_tokens_delta").shape == std::vector<Index>{2, 3});
  // the rows start as the base's
  const auto* rows = reinterpret_cast<const float*>(keys.at("embed_tokens.token_adapter.trainable_tokens_delta").data);
  for (Index c = 0; c < 3; ++c) {
    CHECK(rows[c] == net.embed_tokens->weight.view()(5, c));
    CHECK(rows[3 + c] == net.embed_tokens->weight.view()(1, c));
  }
}

TEST_CASE("they are real on the meta device too") {
  Net net = made();
  (void)graft::inject_adapter_in_model(config({5, 1}), net, "default", {.low_cpu_mem_usage = true});
  const graft::StateDict keys = graft::get_peft_model_state_dict(net);
  CHECK(keys.at("p.lora_A.weight").device() == graft::Device::meta);
  CHECK(keys.at("embed_tokens.token_adapter.trainable_tokens_delta").device() == graft::Device::cpu);
}

TEST_CASE("mistakes are found before anything changes") {
  CHECK(has(refused<graft::ConfigError>(config({1, 7})), "lists 7 for 'embed_tokens', which has 7 rows"));
  CHECK(has(refused<graft::ConfigError>(config({-1})), "lists -1"));
  CHECK(has(refused<graft::TargetError>(config({{"embed_token", {1}}})), "did you mean"));
  CHECK(has(refused<graft::TargetError>(config({{"plain_head", {1}}})), "without room"));
  CHECK(has(refused<graft::TargetError>(config({{"conv", {1}}})), "rows of an embedding"));
  CHECK(has(refused<graft::TargetError>(config({{"p", {1}}})), "a target too"));
  LoraConfig saved = config({1});
  saved.modules_to_save = {"embed_tokens"};
  CHECK(has(refused<graft::TargetError>(saved), "modules_to_save names too"));
  LoraConfig alone = config({1});
  alone.target_modules = {};
  CHECK(has(refused<graft::ConfigError>(alone), "target_modules"));
}

TEST_CASE("a head on the embedding's memory has the same rows") {
  Net net = made(true);
  (void)graft::inject_adapter_in_model(config({5, 1}), net);
  CHECK(graft::get_peft_model_state_dict(net).size() == 3);
  graft::StateDict all = graft::state_dict(net);
  CHECK(all.at("lm_head.token_adapter.trainable_tokens_delta.default").data ==
        all.at("embed_tokens.token_adapter.trainable_tokens_delta.default").data);

  // a copy of the model ties its own
  Net copy = net;
  graft::StateDict values = graft::get_peft_model_state_dict(net).clone();
  auto* rows = reinterpret_cast<float*>(const_cast<std::byte*>(values.at("embed_tokens.token_adapter.trainable_tokens_delta").data));
  for (Index i = 0; i < 6; ++i) rows[i] = float(i) - 2.5f;
  (void)graft::set_peft_model_state_dict(copy, values);
  const std::vector<int> ids{5, 1, 2};
  CHECK_FALSE(results::same_bits(copy(ids), net(ids)));
  all = graft::state_dict(copy);
  CHECK(all.at("lm_head.token_adapter.trainable_tokens_delta.default").data ==
        all.at("embed_tokens.token_adapter.trainable_tokens_delta.default").data);
  CHECK(all.at("lm_head.token_adapter.trainable_tokens_delta.default").data !=
        graft::state_dict(net).at("lm_head.token_adapter.trainable_tokens_delta.default").data);

  // other tokens at the other end, each its own
  Net apart = made(true);
  LoraConfig two = config({{"embed_tokens", {5, 1}}, {"lm_head", {2}}});
  (void)graft::inject_adapter_in_model(two, apart);
  CHECK(graft::get_peft_model_state_dict(apart).size() == 4);
  two.ensure_weight_tying = true;
  CHECK(has(refused<graft::ConfigError>(two, made(true)), "other tokens"));
}

TEST_CASE("a plain head on the embedding's memory is reported") {
  Net net = made();
  net.plain_head.weight = net.embed_tokens->weight.share();
  const auto report = graft::inject_adapter_in_model(config({5, 1}), net);
  REQUIRE(report.warnings.size() >= 1);
  CHECK(has(report.warnings.back(), "'plain_head' shares the weight"));
}

}  // namespace
