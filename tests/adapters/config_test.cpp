#include <graft/adapters/config.hpp>

#include <doctest/doctest.h>

TEST_CASE("the defaults are PEFT's") {
  const graft::LoraConfig lora;
  CHECK(lora.r == 8);
  CHECK(lora.lora_alpha == 8);
  CHECK(lora.lora_dropout == 0);
  CHECK(lora.bias == graft::Bias::none);
  CHECK_FALSE(lora.target_modules.is_set());
  CHECK(lora.init_lora_weights == graft::InitLoraWeights(true));
  CHECK_FALSE(lora.use_rslora);
  CHECK_FALSE(lora.inference_mode);
  const graft::AdaLoraConfig ada;
  CHECK(ada.init_r == 12);
  CHECK(ada.target_r == 8);
  CHECK(ada.lora_alpha == 8);
  CHECK(ada.tinit == 0);
  CHECK(ada.tfinal == 0);
  CHECK(ada.deltaT == 1);
  CHECK(ada.beta1 == 0.85);
  CHECK(ada.beta2 == 0.85);
  CHECK(ada.orth_reg_weight == 0.5);
  CHECK(ada.init_lora_weights);
  const graft::Ia3Config ia3;
  CHECK(ia3.init_ia3_weights);
  CHECK_FALSE(ia3.feedforward_modules.is_set());
}

TEST_CASE("fields are written in the contract's order, and any config is a PeftConfig") {
  const graft::LoraConfig lora{.r = 64,
                               .lora_alpha = 16,
                               .lora_dropout = 0.1,
                               .bias = graft::Bias::lora_only,
                               .target_modules = {"linear"},
                               .exclude_modules = {"head"},
                               .use_rslora = true,
                               .use_dora = false,
                               .lora_bias = true,
                               .init_lora_weights = "gaussian",
                               .layers_to_transform = {1},
                               .layers_pattern = {"h"},
                               .rank_pattern = {{"q", 4}},
                               .alpha_pattern = {{"q", 2.5}},
                               .modules_to_save = {"head"},
                               .trainable_token_indices = {1, 2},
                               .target_parameters = {"w"},
                               .fan_in_fan_out = false,
                               .ensure_weight_tying = false,
                               .inference_mode = true};
  const graft::PeftConfig any = lora;
  CHECK(std::get<graft::LoraConfig>(any).rank_pattern[0].second == 4);
  const graft::AdaLoraConfig ada{.init_r = 3,
                                 .target_r = 1,
                                 .lora_alpha = 2,
                                 .lora_dropout = 0,
                                 .bias = graft::Bias::all,
                                 .target_modules = {"q"},
                                 .exclude_modules = {},
                                 .tinit = 1,
                                 .tfinal = 2,
                                 .deltaT = 3,
                                 .beta1 = 0.5,
                                 .beta2 = 0.6,
                                 .orth_reg_weight = 0.1,
                                 .total_step = 9,
                                 .rank_pattern = {{"q.lora_E", {true, false, true}}}};
  CHECK(ada.rank_pattern[0].second.size() == 3);
  const graft::Ia3Config ia3{.target_modules = {"q", "o"}, .feedforward_modules = {"o"}};
  CHECK(graft::PeftConfig(ia3).index() == 2);
}
