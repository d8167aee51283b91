#include <graft/training/trainable.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>

#include <graft/train.hpp>

#include "support/ramp.hpp"

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
/// A head whose weight is a matrix of the user's: rows by rows, columns by columns, with gaps, or for reading only.
enum class Lies { by_rows, by_columns, with_gaps, shown };
template <Lies lies>
struct Held {
  static constexpr int order = lies == Lies::by_columns ? Eigen::ColMajor : Eigen::RowMajor;
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, order> values = support::ramp(3, lies == Lies::with_gaps ? 6 : 4);
  Eigen::VectorXf offsets = support::ramp(1, 3, 5).row(0);
  graft::Matrix<float> operator()(const graft::Matrix<float>& x) const {
    return (x * values.leftCols(4).transpose()).rowwise() + offsets.transpose();
  }
};
}  // namespace

template <Lies lies>
struct graft::layer_traits<Held<lies>> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = float;
  static Index in_features(const Held<lies>&) { return 4; }
  static Index out_features(const Held<lies>& held) { return held.values.rows(); }
  static decltype(auto) weight(auto& held) {
    if constexpr (lies == Lies::with_gaps) return held.values.leftCols(4);
    else if constexpr (lies == Lies::shown) return std::as_const(held.values);
    else return (held.values);
  }
  static auto* bias(auto& held) { return &held.offsets; }
};

namespace {
template <class Head>
struct HeldNet {
  graft::Adaptable<graft::Linear<>> q{4, 4};
  graft::Adaptable<Head> head = [] {
    if constexpr (std::is_default_constructible_v<Head>) return graft::Adaptable<Head>();
    else return graft::Adaptable<Head>(4, 3);
  }();
  HeldNet() {
    graft::initialise(*this, 3);
    (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"q"}, .init_lora_weights = false, .modules_to_save = {"head"}}, *this);
  }
  auto operator()(const auto& x) const { return head(q(x)); }
  GRAFT_MODULE(q, head)
};
/// What the adapter has learnt after some steps.
template <class Net>
graft::StateDict trained(Net& net) {
  graft::AdamW optimizer(graft::trainable_parameters(net), {.lr = 0.01});
  graft::Tape tape;
  const graft::Matrix<> x = support::ramp(7, 4, 1);
  for (int step = 0; step < 3; ++step) {
    tape.backward(graft::mse_loss(net(tape.input(x)), support::ramp(7, 3, 2)));
    CHECK(graft::clip_grad_norm(optimizer.parameters(), tape.gradients(), 1e9) == doctest::Approx(tape.gradients().norm()));
    optimizer.step(tape.gradients());
    tape.gradients().clear();
    tape.clear();
  }
  const graft::StateDict state = optimizer.state_dict().clone();
  CHECK(state.contains("exp_avg.head.modules_to_save.default.weight"));
  optimizer.load_state_dict(state);
  return graft::get_peft_model_state_dict(net).clone();
}
template <Lies lies>
void learns_as_linear() {
  HeldNet<Held<lies>> net;
  HeldNet<graft::Linear<>> linear;
  (void)graft::set_base_model_state_dict(linear, graft::get_base_model_state_dict(net));
  graft::StateDict start = graft::get_peft_model_state_dict(net).clone();
  (void)graft::set_peft_model_state_dict(linear, start);
  const auto base = net.head->values;
  const Strings keys = keys_of(net);
  CHECK(keys == keys_of(linear));
  const graft::StateDict own = trained(net), want = trained(linear);
  CHECK(own.keys() == want.keys());
  for (const auto& [key, view] : own) {
    CAPTURE(key);
    const auto values = [&](const graft::StateDict& of) {
      return Eigen::Map<const Eigen::ArrayXf>(reinterpret_cast<const float*>(of.at(key).data), view.size());
    };
    CHECK((values(own) - values(want)).abs().maxCoeff() < 1e-6f);  // products in another order of summation
    CHECK((values(own) - values(start)).abs().maxCoeff() > 0.01f);
  }
  CHECK(net.head->values == base);  // the copy alone
}
}  // namespace

TEST_CASE("a copy of a layer that holds plain matrices learns what one of Parameters does") {
  learns_as_linear<Lies::by_rows>();
  learns_as_linear<Lies::by_columns>();
}
TEST_CASE("a copy that is no matrix in one piece, or only shown, is said to be none that can be stepped") {
  HeldNet<Held<Lies::with_gaps>> net;
  CHECK_THROWS_WITH_AS((void)graft::trainable_parameters(net), doctest::Contains("'head.weight' of adapter 'default'"), graft::TrainingError);
  HeldNet<Held<Lies::shown>> shown;
  CHECK_THROWS_WITH_AS((void)graft::trainable_parameters(shown), doctest::Contains("'head.weight' of adapter 'default'"), graft::TrainingError);
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
