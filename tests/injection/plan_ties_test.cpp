#include <graft/injection/plan_ties.hpp>

#include <doctest/doctest.h>

#include <graft/graft.hpp>

#include "support/awkward_layers.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::Index;
using graft::LoraConfig;
using graft::Matrix;
using Strings = std::vector<std::string>;

namespace {

struct Body {
  graft::Adaptable<graft::Embedding<>> embed_tokens{7, 3};
  auto operator()(const auto& ids) const { return embed_tokens(ids); }
  GRAFT_MODULE(embed_tokens)
};
struct Net {
  Body model;
  graft::Adaptable<graft::Linear<>> p{3, 3}, lm_head{3, 7, false};
  Net() {
    awkward::fill<float>(model.embed_tokens->weight.untyped(), 1);
    awkward::fill<float>(p->weight.untyped(), 2);
    lm_head->weight = model.embed_tokens->weight.share();
  }
  auto operator()(const auto& ids) const { return lm_head(p(model(ids))); }
  GRAFT_MODULE(model, p, lm_head)
};
const std::vector<int> ids{5, 1, 2};

Strings injected(LoraConfig config, Net& net) {
  config.r = 2;
  config.lora_alpha = 3;
  return graft::inject_adapter_in_model(config, net).warnings;
}
Matrix<float> of(const graft::TensorView& view) {
  return Eigen::Map<const Matrix<float>>(reinterpret_cast<const float*>(view.data), view.shape[0], view.shape[1]);
}

TEST_CASE("an adapter at one end of a tie, or at both, is reported") {
  for (const Strings& targets : {Strings{"embed_tokens"}, {"lm_head"}, {"embed_tokens", "lm_head"}}) {
    Net net;
    const Strings warnings = injected({.target_modules = targets}, net);
    REQUIRE(warnings.size() == 1);
    CHECK(warnings[0].starts_with("'model.embed_tokens' and 'lm_head' share their weight"));
    CHECK(graft::get_peft_model_state_dict(net).size() == 2 * targets.size());
  }
}

TEST_CASE("ensure_weight_tying makes one adapter for both ends") {
  for (const Strings& targets : {Strings{"embed_tokens"}, {"lm_head"}, {"embed_tokens", "lm_head"}}) {
    Net net;
    CHECK(injected({.target_modules = targets, .init_lora_weights = false, .ensure_weight_tying = true}, net).empty());
    const graft::StateDict values = graft::get_peft_model_state_dict(net);
    CHECK(values.keys() == Strings{"model.embed_tokens.lora_embedding_A", "model.embed_tokens.lora_embedding_B",
                                   "lm_head.lora_A.weight", "lm_head.lora_B.weight"});
    const Matrix<float> a = of(values.at("model.embed_tokens.lora_embedding_A")), b = of(values.at("model.embed_tokens.lora_embedding_B"));
    CHECK(a.norm() > 0.1f);
    CHECK(of(values.at("lm_head.lora_A.weight")) == b.transpose());
    CHECK(of(values.at("lm_head.lora_B.weight")) == a.transpose());
    // what both add is one matrix: the tied weight plus it, at both ends
    Net merged = net;
    const Matrix<float> y = net(ids);
    merged.lm_head->weight = merged.model.embed_tokens->weight.share();
    Matrix<float> weight = merged.model.embed_tokens->weight.view() + 1.5f * (b * a).transpose();
    graft::unload(merged);
    merged.model.embed_tokens->weight.view() = weight;
    CHECK(results::same_values(merged(ids), y));
  }
}

TEST_CASE("ends that were saved apart are settled as PEFT does, with a warning") {
  Net net;
  (void)injected({.target_modules = {"lm_head"}, .ensure_weight_tying = true}, net);
  const auto report = graft::set_peft_model_state_dict(net, trained::values_for(net, "default", 3));
  REQUIRE(report.warnings.size() == 1);
  const graft::StateDict values = graft::get_peft_model_state_dict(net);
  CHECK(of(values.at("lm_head.lora_A.weight")) == of(values.at("model.embed_tokens.lora_embedding_B")).transpose());
  CHECK(of(values.at("lm_head.lora_B.weight")) == of(values.at("model.embed_tokens.lora_embedding_A")).transpose());
  CHECK(of(values.at("lm_head.lora_A.weight")) == of(trained::values_for(net, "default", 3).at("lm_head.lora_A.weight")));
  CHECK(graft::set_peft_model_state_dict(net, values.clone()).warnings.empty());
}

TEST_CASE("copies of both ends share their weight") {
  Net net;
  CHECK(injected({.target_modules = {"p"}, .modules_to_save = {"lm_head"}, .ensure_weight_tying = true}, net).empty());
  const graft::StateDict values = graft::get_peft_model_state_dict(net);
  CHECK(values.at("lm_head.weight").data == values.at("model.embed_tokens.weight").data);
  CHECK(values.at("lm_head.weight").data != reinterpret_cast<const std::byte*>(std::as_const(net).lm_head->weight.data()));
}

TEST_CASE("what cannot be tied is said") {
  Net none;
  none.lm_head->weight = graft::Parameter<float>(graft::Shape{7, 3});
  CHECK(injected({.target_modules = {"lm_head"}, .ensure_weight_tying = true}, none).size() == 1);
  Net aside;
  CHECK(injected({.target_modules = {"p"}, .ensure_weight_tying = true}, aside).size() == 1);
  Net ranks;
  const LoraConfig uneven{.target_modules = {"lm_head"}, .rank_pattern = {{"lm_head", 5}}, .ensure_weight_tying = true};
  CHECK_THROWS_AS((void)injected(uneven, ranks), graft::ConfigError);
  const LoraConfig dora{.target_modules = {"lm_head"}, .use_dora = true, .ensure_weight_tying = true};
  CHECK_THROWS_AS((void)injected(dora, ranks), graft::ConfigError);
  CHECK(graft::adapter_names(ranks).empty());
}

}  // namespace
