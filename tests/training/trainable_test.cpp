#include <graft/training/trainable.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>

#include <graft/graft.hpp>

using graft::Index;
using graft::LoraConfig;
using Strings = std::vector<std::string>;

namespace {
struct Net {
  graft::Adaptable<graft::Embedding<>> embed_tokens{11, 6};
  graft::LayerNorm<> norm{6};
  graft::Adaptable<graft::Linear<>> q{6, 6}, k{6, 6}, score{6, 3};
  graft::Linear<> plain{3, 3};
  GRAFT_MODULE(embed_tokens, norm, q, k, score, plain)
};
LoraConfig everything(graft::Bias bias, bool use_dora = false) {
  return {.r = 2, .bias = bias, .target_modules = {"q"}, .use_dora = use_dora, .modules_to_save = {"score"},
          .trainable_token_indices = {{"embed_tokens", {1, 2}}}};
}
template <class M>
Strings keys_of(M& model) {
  Strings keys;
  const graft::TrainableParameters parameters = graft::trainable_parameters(model);
  for (const graft::TrainableParameter& one : parameters) {
    keys.push_back(one.key);
    CHECK(parameters.find(one.key) == &one);
  }
  CHECK(parameters.find("none") == nullptr);
  CHECK(parameters.elements() == graft::get_nb_trainable_parameters(model).trainable);
  return keys;
}
}  // namespace

// Names, order and numbers are those of the parameters that require gradients in PEFT 0.21.2's model of the same layers.
TEST_CASE("names and order are those of PEFT's named_parameters") {
  {
    Net net;
    CHECK(graft::trainable_parameters(net).empty());
    (void)graft::inject_adapter_in_model(everything(graft::Bias::all), net, "b");
    CHECK(keys_of(net) == Strings{"embed_tokens.token_adapter.trainable_tokens_delta.b", "norm.bias", "q.base_layer.bias",
                                  "q.lora_A.b.weight", "q.lora_B.b.weight", "k.bias", "score.modules_to_save.b.weight",
                                  "score.modules_to_save.b.bias", "plain.bias"});
    CHECK(graft::trainable_parameters(net).elements() == 78);
  }
  {
    Net net;
    (void)graft::inject_adapter_in_model(everything(graft::Bias::all, true), net, "b");
    CHECK(keys_of(net) == Strings{"embed_tokens.token_adapter.trainable_tokens_delta.b", "norm.bias", "q.base_layer.bias",
                                  "q.lora_A.b.weight", "q.lora_B.b.weight", "q.lora_magnitude_vector.b.weight", "k.bias",
                                  "score.modules_to_save.b.weight", "score.modules_to_save.b.bias", "plain.bias"});
    CHECK(graft::trainable_parameters(net).elements() == 84);
  }
  {
    Net net;
    (void)graft::inject_adapter_in_model(everything(graft::Bias::lora_only), net, "b");
    CHECK(graft::trainable_parameters(net).elements() == 63);
  }
  {
    Net net;
    (void)graft::inject_adapter_in_model(graft::AdaLoraConfig{.init_r = 2, .target_modules = {"q", "k"}}, net);
    CHECK(keys_of(net) == Strings{"q.lora_A.default", "q.lora_B.default", "q.lora_E.default", "k.lora_A.default",
                                  "k.lora_B.default", "k.lora_E.default"});
  }
  {
    Net net;
    (void)graft::inject_adapter_in_model(graft::Ia3Config{.target_modules = {"q", "k"}, .feedforward_modules = {"k"}}, net);
    CHECK(keys_of(net) == Strings{"q.ia3_l.default", "k.ia3_l.default"});
  }
  {
    Net net;
    (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"q"}}, net);
    net.norm.weight.set_requires_grad(true);
    net.q->weight.set_requires_grad(true);
    CHECK(keys_of(net) == Strings{"norm.weight", "q.base_layer.weight", "q.lora_A.default.weight", "q.lora_B.default.weight"});
    CHECK(graft::trainable_parameters(net).elements() == 66);
  }
}

TEST_CASE("every one of them is the memory that the model computes with") {
  Net net;
  (void)graft::inject_adapter_in_model(everything(graft::Bias::all), net, "b");
  const graft::StateDict state = graft::state_dict(net);
  for (const graft::TrainableParameter& one : graft::trainable_parameters(net)) {
    CAPTURE(one.key);
    CHECK(one.parameter->data() == state.at(one.key).data);
    CHECK(one.shape().to_vector() == state.at(one.key).shape);
  }
  CHECK(graft::trainable_parameters(net).find("norm.bias")->parameter == &net.norm.bias.untyped());
}

TEST_CASE("what is not active is not trained, unless that is asked for") {
  Net net;
  (void)graft::inject_adapter_in_model(everything(graft::Bias::all), net, "b");
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 1, .target_modules = {"q"}}, net, "a");
  graft::set_adapter(net, "a");
  CHECK(keys_of(net) == Strings{"q.lora_A.a.weight", "q.lora_B.a.weight"});
  graft::set_requires_grad(net, {"a", "b"}, true);  // b's biases are aside: the layers hold the base's
  const auto has = [&](const Strings& keys, const char* key) { return std::count(keys.begin(), keys.end(), key) == 1; };
  CHECK(keys_of(net).size() == 11);
  CHECK(has(keys_of(net), "norm.bias.b"));
  net.norm.bias.set_requires_grad(true);  // the base's own, too
  net.q->bias.set_requires_grad(true);
  CHECK(keys_of(net).size() == 13);
  CHECK(has(keys_of(net), "norm.bias"));
  CHECK(has(keys_of(net), "q.base_layer.bias"));
  CHECK(graft::trainable_parameters(net).find("norm.bias")->parameter == &net.norm.bias.untyped());
  {
    const auto off = graft::disable_adapter(net);
    CHECK(keys_of(net).size() == 13);
  }
  graft::set_adapter(net, "b");
  CHECK(has(keys_of(net), "norm.bias"));
  CHECK_FALSE(has(keys_of(net), "norm.bias.b"));
  CHECK(has(keys_of(net), "q.bias"));  // the layer's own, which b's replaces
  CHECK(has(keys_of(net), "q.base_layer.bias"));
}

namespace {
struct TiedNet {
  graft::Embedding<> embed{5, 3};
  graft::Adaptable<graft::Linear<>> head{3, 5, false}, other{3, 3};
  TiedNet() { head->weight = embed.weight.share(); }
  GRAFT_MODULE(embed, head, other)
};
}  // namespace

TEST_CASE("tied parameters are one, whichever of them was asked for") {
  for (const bool asks_head : {false, true}) {
    TiedNet net;
    (asks_head ? net.head->weight : net.embed.weight).set_requires_grad(true);
    CHECK(keys_of(net) == Strings{"embed.weight"});
    CHECK(graft::trainable_parameters(net)[0].tied.size() == 1);
    (asks_head ? net.embed.weight : net.head->weight).set_requires_grad(true);
    CHECK(keys_of(net) == Strings{"embed.weight"});
    (void)graft::inject_adapter_in_model(LoraConfig{.r = 1, .target_modules = {"head"}}, net);
    CHECK(keys_of(net) == Strings{"embed.weight", "head.lora_A.default.weight", "head.lora_B.default.weight"});
  }
}

TEST_CASE("what has no memory, or is merged, cannot be trained") {
  Net net;
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"q"}}, net, "default", {.low_cpu_mem_usage = true});
  CHECK_THROWS_AS((void)graft::trainable_parameters(net), graft::MetaError);
  graft::set_requires_grad(net, "default", false);
  CHECK(graft::trainable_parameters(net).empty());

  Net merged;
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"q"}}, merged);
  (void)graft::merge_adapter(merged);
  CHECK_THROWS_WITH_AS((void)graft::trainable_parameters(merged), doctest::Contains("'q.lora_A' of adapter 'default'"), graft::TrainingError);
  graft::set_requires_grad(merged, "default", false);
  CHECK(graft::trainable_parameters(merged).empty());
  merged.q->weight.set_requires_grad(true);
  CHECK_THROWS_AS((void)graft::trainable_parameters(merged), graft::TrainingError);
  merged.q->weight.set_requires_grad(false);
  merged.k->weight.set_requires_grad(true);
  CHECK(keys_of(merged) == Strings{"k.weight"});
  (void)graft::unmerge_adapter(merged);
  graft::set_requires_grad(merged, "default", true);
  CHECK(keys_of(merged).size() == 3);
}

namespace {
struct Held {
  graft::Matrix<float> weight = graft::Matrix<float>::Ones(3, 4);
  graft::Matrix<float> operator()(const graft::Matrix<float>& x) const { return x * weight.transpose(); }
};
}  // namespace

template <>
struct graft::layer_traits<Held> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = float;
  static Index in_features(const Held& held) { return held.weight.cols(); }
  static Index out_features(const Held& held) { return held.weight.rows(); }
  static auto& weight(auto& held) { return held.weight; }
};

namespace {
struct HeldNet {
  graft::Adaptable<graft::Linear<>> q{4, 4};
  graft::Adaptable<Held> head;
  GRAFT_MODULE(q, head)
};
}  // namespace

TEST_CASE("a copy that is a matrix of the layer's own is said to be none that can be stepped") {
  HeldNet net;
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"q"}, .modules_to_save = {"head"}}, net);
  CHECK_THROWS_WITH_AS((void)graft::trainable_parameters(net), doctest::Contains("'head.weight' of adapter 'default'"), graft::TrainingError);
}

TEST_CASE("layers without rank have nothing to train") {
  Net net;
  (void)graft::inject_adapter_in_model(graft::AdaLoraConfig{.init_r = 2, .target_modules = {"q", "k"}, .rank_pattern = {{"q", {false, false}}}}, net);
  const Strings all{"k.lora_A.default", "k.lora_B.default", "k.lora_E.default"};
  CHECK(keys_of(net) == all);

  // kept where they stand in a file: what has no bytes begins where another tensor does
  const graft::StateDict own = graft::get_peft_model_state_dict(net);
  graft::StateDict file;
  const auto bytes = std::make_shared<std::vector<float>>(24);
  for (const std::string layer : {"q", "k"})
    for (const std::string name : {".lora_A", ".lora_B", ".lora_E"}) {
      const graft::TensorView& view = own.at(layer + name);
      const graft::Index at = layer == "q" || name == ".lora_A" ? 0 : name == ".lora_B" ? 12 : 22;
      CHECK((view.size() == 0) == (layer == "q"));
      file.insert(layer + name, {graft::Dtype::f32, view.shape, reinterpret_cast<const std::byte*>(bytes->data() + at), bytes});
    }
  (void)graft::set_peft_model_state_dict(net, file, "default", {.low_cpu_mem_usage = true});
  CHECK(keys_of(net) == all);
}
