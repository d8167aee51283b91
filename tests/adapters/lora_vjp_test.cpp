#include <graft/adapters/lora_vjp.hpp>

#include <graft/factorise.hpp>

#include "support/laws.hpp"
#include "support/peft_gradients.hpp"
#include "support/site_gradients.hpp"

using graft::Index;
using site_gradients::check_method;
using site_gradients::PlainEmbeddingCase;

namespace {
struct SlidConv1dCase {
  using Scalar = double;
  using Layer = graft::Conv1d<double>;
  static Layer make() { return Layer(3, 7, {.kernel = 3, .stride = 2, .padding = 1}); }
  static auto input(Index n) {
    Eigen::Tensor<double, 3, Eigen::RowMajor> x(n, 3, 13);
    support::fill_ramp(x);
    return x;
  }
};
struct StoredCase {
  using Scalar = double;
  using Layer = awkward::StoredTransposed<double>;
  static Layer make() { return Layer(13, 7); }
  static auto input(Index n) { return awkward::rows<double>(n, 13); }
};
/// torch's options of an embedding that its gradient sees.
struct OptionsCase : PlainEmbeddingCase<double> {
  static Layer make() { return Layer(13, 7, {.padding_idx = 3, .max_norm = 1.5, .scale_grad_by_freq = true}); }
};
const std::vector<int> recorded_ids{3, 8, 0, 8, 12};

graft::LoraConfig recorded(graft::LoraConfig config = {}) {
  config.r = 3;
  config.lora_alpha = 7;
  config.target_modules = {"site"};
  return config;
}
}  // namespace

TEST_CASE("LoRA has the gradients of its forward: linear layers of every layout") {
  check_method<awkward::LinearCase<double>, laws::LoraMethod>();
  check_method<awkward::TransposedCase<double>, laws::LoraMethod>();
  check_method<awkward::PlainLinearCase<double>, laws::LoraMethod>();
}
TEST_CASE("LoRA has the gradients of its forward: convolutions, embeddings") {
  check_method<awkward::Conv1dCase<double>, laws::LoraMethod>();
  check_method<awkward::GroupedConv2dCase<double>, laws::LoraMethod>();
  check_method<awkward::StridedCase<double>, laws::LoraMethod>();
  check_method<awkward::LookupCase<double>, laws::LoraMethod>();
  check_method<PlainEmbeddingCase<double>, laws::LoraMethod>();
}
TEST_CASE("LoRA has the gradients that torch finds of PEFT's") {
  using peft_gradients::check;
  check<awkward::LinearCase<double>>("linear_lora", recorded({.bias = graft::Bias::lora_only, .lora_bias = true}));
  check<awkward::LinearCase<double>>("linear_rslora", recorded({.use_rslora = true}));
  check<StoredCase>("transposed_lora", recorded({.fan_in_fan_out = true}));
  check<PlainEmbeddingCase<double>>("embedding_lora", recorded(), recorded_ids);
  check<OptionsCase>("embedding_lora_options", recorded(), recorded_ids);
  check<SlidConv1dCase>("conv1d_lora", recorded({.lora_bias = true}));
  graft::LoraConfig grouped = recorded();
  grouped.r = 4;
  check<awkward::GroupedConv2dCase<double>>("conv2d_lora", grouped);
}
TEST_CASE("initial factors pass a gradient on and have none; PEFT's start is of float") {
  peft_gradients::check<awkward::LinearCase<double>>("linear_olora", recorded({.init_lora_weights = "olora"}), {}, 2e-6);
}
