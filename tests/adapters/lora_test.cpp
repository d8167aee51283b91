#include <graft/adapters/lora.hpp>

#include "support/laws.hpp"

using graft::Index;
using graft::Matrix;

namespace {

template <class Layer>
struct One {
  graft::Adaptable<Layer> p;
  auto operator()(const auto& x) const { return p(x); }
  GRAFT_MODULE(p)
};

void set(const graft::ParameterView& parameter, std::initializer_list<float> values) {
  REQUIRE(parameter.view<float>().size() == Index(values.size()));
  std::copy(values.begin(), values.end(), parameter.view<float>().data());
}
void set(graft::Parameter<float>& parameter, std::initializer_list<float> values) {
  REQUIRE(parameter.size() == Index(values.size()));
  std::copy(values.begin(), values.end(), parameter.data());
}
bool is(const auto& y, std::vector<float> expected) {
  return results::close(results::values_of(y), expected);
}

One<graft::Linear<>> golden_linear(graft::LoraConfig config) {
  One<graft::Linear<>> net{{2, 2}};
  set(net.p->weight, {1, 2, 3, 4});
  set(net.p->bias, {0.5F, -0.5F});
  config.target_modules = {"p"};
  (void)graft::inject_adapter_in_model(config, net);
  if (config.r == 1) {
    set(net.p.parameter("default", "lora_A"), {1, -1});
    set(net.p.parameter("default", "lora_B"), {2, 1});
  }
  return net;
}
const Matrix<float> x12 = (Matrix<float>(1, 2) << 1, 2).finished();

}  // namespace

TEST_CASE("LoRA at a linear layer: PEFT's golden vector 1") {
  auto net = golden_linear({.r = 1, .lora_alpha = 3});
  CHECK(is(net(x12), {-0.5F, 7.5F}));
  graft::set_scale(net, "default", 2);
  CHECK(is(net(x12), {5.5F - 12, 10.5F - 6}));
  graft::set_adapter(net, {});
  CHECK(is(net(x12), {5.5F, 10.5F}));
}

TEST_CASE("LoRA's scaling is alpha over r, over its root with rslora; alpha may be 0 or negative") {
  CHECK(is(golden_linear({.r = 1, .lora_alpha = 0})(x12), {5.5F, 10.5F}));
  CHECK(is(golden_linear({.r = 1, .lora_alpha = -3})(x12), {11.5F, 13.5F}));
  for (const bool rslora : {false, true}) {
    auto net = golden_linear({.r = 4, .lora_alpha = 6, .use_rslora = rslora});
    set(net.p.parameter("default", "lora_A"), {1, 0, 0, 1, 1, 1, 0, 0});   // u = x·Aᵀ = (1, 2, 3, 0)
    set(net.p.parameter("default", "lora_B"), {1, 1, 1, 1, 0, 0, -1, 0});  // B·u = (6, -3)
    const float s = rslora ? 3 : 1.5F;
    CHECK(is(net(x12), {5.5F + s * 6, 10.5F - s * 3}));
  }
}

TEST_CASE("lora_bias adds scaling times a bias of B") {
  auto net = golden_linear({.r = 1, .lora_alpha = 3, .lora_bias = true});
  set(net.p.parameter("default", "lora_B.bias"), {1, -2});
  CHECK(is(net(x12), {-0.5F + 3, 7.5F - 6}));
  CHECK(net.p.parameter("default", "lora_B.bias").shape() == std::vector<Index>{2});
  CHECK(graft::get_peft_model_state_dict(net).keys() ==
        std::vector<std::string>{"p.lora_A.weight", "p.lora_B.weight", "p.lora_B.bias"});
}

TEST_CASE("LoRA at an embedding: PEFT's golden vector 2") {
  One<graft::Embedding<>> net{{3, 2}};
  set(net.p->weight, {0, 1, 2, 3, 4, 5});
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.r = 1, .lora_alpha = 2, .target_modules = {"p"}},
                                       net);
  set(net.p.parameter("default", "lora_embedding_A"), {1, 0, -1});
  set(net.p.parameter("default", "lora_embedding_B"), {1, 2});
  CHECK(is(net(std::vector<int>{0, 1, 2}), {2, 5, 2, 3, 2, 1}));
  CHECK_THROWS_AS((void)net(std::vector<int>{0, 3}), graft::ShapeError);
  CHECK_THROWS_AS((void)net(std::vector<int>{-1}), graft::ShapeError);
}

TEST_CASE("LoRA at a convolution: PEFT's golden vector 3") {
  One<graft::Conv1d<>> net{{1, 1, graft::Conv1dOptions{.kernel = 2, .bias = false}}};
  set(net.p->weight, {1, 2});
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.r = 2, .lora_alpha = 2, .target_modules = {"p"}},
                                       net);
  set(net.p.parameter("default", "lora_A"), {1, 0, 0, -1});
  set(net.p.parameter("default", "lora_B"), {1, 2});
  Eigen::Tensor<float, 3, Eigen::RowMajor> x(1, 1, 3);
  x.setValues({{{1, 2, 3}}});
  CHECK(is(net(x), {2, 4}));
  CHECK(net.p.parameter("default", "lora_A").shape() == std::vector<Index>{2, 1, 2});
  CHECK(net.p.parameter("default", "lora_B").shape() == std::vector<Index>{1, 2, 1});
}

TEST_CASE("LoRA starts as the identity, unless told otherwise, with torch's bounds") {
  struct Start {
    graft::InitLoraWeights init;
    bool is_identity;
    double bound_a, bound_b;
  };
  for (const Start& start : {Start{true, true, 0.25, 0}, Start{false, false, 0.25, 0.5},
                             Start{"gaussian", true, 2, 0}, Start{"Gaussian", true, 2, 0}}) {
    One<graft::Linear<>> net{{16, 8}};
    (void)graft::inject_adapter_in_model(
        graft::LoraConfig{.r = 4, .target_modules = {"p"}, .init_lora_weights = start.init}, net);
    const auto a = net.p.parameter("default", "lora_A").view<float>(),
               b = net.p.parameter("default", "lora_B").view<float>();
    CHECK(a.cwiseAbs().maxCoeff() <= start.bound_a);
    CHECK(a.cwiseAbs().maxCoeff() > start.bound_a / 8);
    CHECK((b.array() == 0).all() == start.is_identity);
    CHECK(b.cwiseAbs().maxCoeff() <= start.bound_b);
    CHECK((a.array() < 0).any());
    CHECK((a.array() > 0).any());
  }
  One<graft::Embedding<>> net{{16, 8}};
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.r = 4, .target_modules = {"p"}}, net);
  CHECK((net.p.parameter("default", "lora_embedding_A").view<float>().array() == 0).all());
  CHECK(net.p.parameter("default", "lora_embedding_B").view<float>().cwiseAbs().maxCoeff() > 1);
}

TEST_CASE("a rank above the layer's sizes is allowed") {
  One<graft::Linear<>> net{{3, 2}};
  trained::inject(graft::LoraConfig{.r = 11, .target_modules = {"p"}}, net, "default");
  const auto a = net.p.parameter("default", "lora_A").view<float>(),
             b = net.p.parameter("default", "lora_B").view<float>();
  const Matrix<float> x = awkward::rows<float>(4, 3),
                      expected = x * a.transpose() * b.transpose() * (8.0F / 11);
  CHECK(results::same_values(net(x), expected));
}

TEST_CASE("the laws hold for LoRA and DoRA at a linear layer") {
  laws::all<awkward::LinearCase<float>, laws::LoraMethod>();
  laws::all<awkward::LinearCase<float>, laws::DoraMethod>();
}
TEST_CASE("the laws hold for LoRA and DoRA at an embedding") {
  laws::all<awkward::EmbeddingCase<double>, laws::LoraMethod>();
  laws::all<awkward::EmbeddingCase<double>, laws::DoraMethod>();
}
