#include <doctest/doctest.h>

#include <vector>

#include <graft/train.hpp>

#include "support/allocations.hpp"
#include "support/gradient_check.hpp"
#include "support/ramp.hpp"

using namespace graft;

namespace {
struct Block {
  Adaptable<Linear<double>> q_proj{12, 12, false}, k_proj{12, 6, false}, v_proj{12, 6}, o_proj{12, 12}, gate_proj{12, 7}, up_proj{12, 7},
      down_proj{7, 12};
  RMSNorm<double> first{12};
  LayerNorm<double> second{12};
  auto operator()(const auto& x) const {
    const auto n = first(x);
    const auto q = rotary(q_proj(n), {.head_dim = 6}), k = rotary(k_proj(n), {.head_dim = 6});
    const auto h = add(x, o_proj(attention(q, k, v_proj(n), {.heads = 2, .kv_heads = 1})));
    const auto m = second(h);
    return add(h, down_proj(mul(silu(gate_proj(m)), up_proj(m))));
  }
  GRAFT_MODULE(q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, first, second)
};
struct Decoder {
  Adaptable<Embedding<double>> embed_tokens{13, 12};
  std::vector<Block> layers;
  RMSNorm<double> norm{12};
  Decoder() {
    layers.resize(2);
    initialise(*this, 3);
  }
  auto operator()(const auto& ids) const {
    auto h = embed_tokens(ids);
    for (const auto& layer : layers) h = layer(h);
    return linear(norm(h), embed_tokens->weight);
  }
  GRAFT_MODULE(embed_tokens, layers, norm)
};

static_assert(Trainable<Block, Var<double>> && Trainable<Decoder, RecordedTokens>);
static_assert(!Trainable<KvCache<double>, Var<double>>);

const std::vector<int> ids{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 12, 0, 11};

double loss_of_logits(const Matrix<double>& logits, const std::vector<int>& targets) {
  return cross_entropy_values<double>(in(logits), targets, out<double>(nullptr, 0, 0));
}

void inject_three(Decoder& model) {
  const TargetModules some{"q_proj", "v_proj", "down_proj"}, others{"k_proj", "o_proj", "gate_proj", "embed_tokens"};
  (void)inject_adapter_in_model(LoraConfig{.r = 2, .lora_alpha = 3, .target_modules = some, .init_lora_weights = false}, model, "alice", {.seed = 1});
  (void)inject_adapter_in_model(LoraConfig{.r = 3, .lora_alpha = 2, .target_modules = others, .use_rslora = true, .init_lora_weights = false}, model,
                                "bob", {.seed = 2});
  (void)inject_adapter_in_model(Ia3Config{.target_modules = {"k_proj", "v_proj", "down_proj"}, .feedforward_modules = {"down_proj"},
                                          .init_ia3_weights = false},
                                model, "carol", {.seed = 3});
  set_requires_grad(model, {"alice", "bob", "carol"}, true);
}
}  // namespace

TEST_CASE("a batch of sequences with adapters of their own: values as in inference, gradients as differences") {
  Decoder model;
  inject_three(model);
  const auto alice = select(model, {{"alice"}}), bob = select(model, {{"bob"}}), carol = select(model, {{"carol"}});
  const auto blend = select(model, {{"alice", 0.7}, {"bob", 0.3}, {"carol", 0.5}});
  Batch batch;
  batch.add(5, alice).add(1, base_only()).add(4, bob).add(3, blend).add(2, base_only()).add(2, carol);
  Tape tape;
  const Tokens tokens = batch.input(ids);
  const Var<double> logits = model(tape.input(tokens));
  CHECK(Matrix<double>(logits.value()) == Matrix<double>(model(batch.input(ids)).value()));
  const auto targets = next_token_targets(tokens);
  tape.backward(cross_entropy(logits, targets));
  const auto check = support::check_gradients(trainable_parameters(model), tape.gradients(), [&] {
    return loss_of_logits(model(batch.input(ids)).value(), targets);
  });
  CHECK(check.elements > 700);
  CHECK(check.largest > 0.05);
  CHECK_MESSAGE(check.worst < 1e-8, check.where);
}

TEST_CASE("plain ids train the active adapter, and nothing below it is recorded") {
  Decoder model;
  inject_three(model);
  set_adapter(model, {"alice"});
  Tape tape;
  const Var<double> logits = model(tape.input(ids));
  CHECK(Matrix<double>(logits.value()) == model(ids));
  const auto targets = next_token_targets(ids);
  tape.backward(cross_entropy(logits, targets));
  const auto check = support::check_gradients(trainable_parameters(model), tape.gradients(), [&] {
    return loss_of_logits(model(ids), targets);
  });
  CHECK(check.largest > 0.05);
  CHECK_MESSAGE(check.worst < 1e-8, check.where);

  tape.clear();
  set_requires_grad(model, {"alice"}, false);
  CHECK_FALSE(model(tape.input(ids)).needs_grad());
  CHECK(tape.size() == 0);
}

TEST_CASE("a batch of the base alone records nothing, and base rows give no gradient to adapters") {
  Decoder model;
  inject_three(model);
  Batch batch;
  batch.add(9, base_only()).add(8, base_only());
  Tape tape;
  CHECK_FALSE(model(tape.input(batch.input(ids))).needs_grad());
  CHECK(tape.size() == 0);
  batch.clear();
  batch.add(9, select(model, {{"alice"}})).add(8, base_only());
  tape.clear();
  const Var<double> logits = model(tape.input(batch.input(ids)));
  Matrix<double> dy = Matrix<double>::Zero(17, 13);
  dy.bottomRows(8).setOnes();
  tape.backward(logits, dy);
  for (const TrainableParameter& one : trainable_parameters(model)) {
    const Matrix<double>* gradient = tape.gradients().find_at<double>(*one.parameter);
    CHECK_MESSAGE((!gradient || gradient->isZero(0)), one.key);
  }
}

TEST_CASE("parameters of the base train when they are told to, tied ones with both their uses") {
  Decoder model;
  model.embed_tokens->weight.set_requires_grad(true);
  model.layers[0].first.weight.set_requires_grad(true);
  model.layers[1].second.weight.set_requires_grad(true);
  model.layers[1].second.bias.set_requires_grad(true);
  model.layers[0].o_proj->weight.set_requires_grad(true);
  model.layers[0].o_proj->bias.set_requires_grad(true);
  const auto parameters = trainable_parameters(model);
  REQUIRE(parameters.size() == 6);
  Tape tape;
  const auto targets = next_token_targets(ids);
  tape.backward(cross_entropy(model(tape.input(ids)), targets));
  const auto check = support::check_gradients(parameters, tape.gradients(), [&] {
    return loss_of_logits(model(ids), targets);
  });
  CHECK(check.largest > 0.05);
  CHECK_MESSAGE(check.worst < 1e-8, check.where);
}

namespace {
struct WithSite {
  Adaptable<Linear<>> site{12, 7};
  GRAFT_MODULE(site)
};
}  // namespace
TEST_CASE("a warm pass through sites allocates nothing, also where the way back reads what they kept") {
  WithSite net;
  net.site->weight.view() = support::ramp<float>(7, 12);
  (void)inject_adapter_in_model(LoraConfig{.r = 3, .lora_dropout = 0.2, .target_modules = {"site"}, .use_dora = true, .init_lora_weights = false}, net,
                                "dora");
  (void)inject_adapter_in_model(Ia3Config{.target_modules = {"site"}, .init_ia3_weights = false}, net, "after");
  set_requires_grad(net, {"dora", "after"}, true);
  const Matrix<float> x = support::ramp<float>(40, 12), dy = support::ramp<float>(40, 7);
  const AdapterSelection both = select(net, {{"dora"}, {"after"}}), after = select(net, {{"after"}});
  Batch batch;
  for (const bool drops : {true, false}) {
    Tape tape({.dropout = drops});
    const auto pass = [&] {
      batch.clear();
      batch.add(6, after).add(14, both).add(20, after);
      tape.backward(net.site(tape.input(batch.input(x))), dy);
      tape.gradients().clear();
      tape.clear();
    };
    pass();
    pass();
    const std::size_t reserved = tape.reserved();
    CHECK(support::allocations_of(pass) == 0);
    CHECK(tape.reserved() == reserved);
    CHECK(batch.workspace().in_use() == 0);
  }
}

TEST_CASE("dropout has masks of its own in every pass, and the same again for the same pass") {
  Decoder model;
  (void)inject_adapter_in_model(LoraConfig{.r = 2, .lora_alpha = 3, .lora_dropout = 0.4, .target_modules = {"q_proj", "up_proj"},
                                           .init_lora_weights = false},
                                model);
  const auto values = [&](Tape& tape) { return Matrix<double>(model(tape.input(ids)).value()); };
  Tape tape({.seed = 5});
  const Matrix<double> first = values(tape);
  CHECK(values(tape) == first);
  CHECK((first - model(ids)).norm() > 0.01);
  tape.clear();
  CHECK((values(tape) - first).norm() > 0.01);
  Tape again({.seed = 5}), other({.seed = 6}), off({.seed = 5, .dropout = false});
  CHECK(values(again) == first);
  CHECK((values(other) - first).norm() > 0.01);
  CHECK(values(off) == model(ids));

  const auto targets = next_token_targets(ids);
  again.backward(cross_entropy(model(again.input(ids)), targets));
  const auto check = support::check_gradients(trainable_parameters(model), again.gradients(), [&] {
    Tape once({.seed = 5});
    return cross_entropy(model(once.input(ids)), targets).value();
  });
  CHECK(check.largest > 0.01);
  CHECK_MESSAGE(check.worst < 1e-8, check.where);
}

namespace {
struct ConvNet {
  Adaptable<Conv2d<double>> first{2, 6, Conv2dOptions{.kernel = 3, .padding = 1}};
  Conv2d<double> second{6, 4, Conv2dOptions{.kernel = 2, .groups = 2}};
  Adaptable<Linear<double>> head{16, 3};
  ConvNet() { initialise(*this, 4); }
  auto operator()(const auto& x) const {
    const auto h = max_pool2d(relu(first(x)), {.kernel = 2, .stride = 1});
    return head(flatten(avg_pool2d(second(h), {.kernel = 2})));
  }
  GRAFT_MODULE(first, second, head)
};
struct Experts {
  Adaptable<Parameter<double>> up{Shape{3, 5, 4}};
  Adaptable<TransposedParameter<double>> down{Shape{3, 5, 2}};
  auto operator()(const auto& x, const std::vector<int>& of_rows) const { return down(tanh(up(x, of_rows)), of_rows); }
  GRAFT_MODULE(up, down)
};
struct Mixture {
  Experts experts;
  Mixture() { initialise(*this, 5); }
  auto operator()(const auto& x, const std::vector<int>& of_rows) const { return experts(x, of_rows); }
  GRAFT_MODULE(experts)
};
struct Attentive {
  Adaptable<MultiheadAttention<double>> self_attn{6, 2}, cross_attn{6, 3};
  Attentive() { initialise(*this, 6); }
  auto operator()(const auto& x) const {
    const auto h = self_attn(x, AttendOptions{.causal = true});
    return cross_attn(h, x, x);
  }
  GRAFT_MODULE(self_attn, cross_attn)
};

double squared(const Matrix<double>& y) { return 0.5 * y.squaredNorm(); }
}  // namespace

TEST_CASE("a convolutional net trains through pooling, from a tensor") {
  ConvNet net;
  (void)inject_adapter_in_model(LoraConfig{.r = 2, .lora_alpha = 3, .target_modules = {"first", "head"}, .init_lora_weights = false},
                                net);
  net.second.weight.set_requires_grad(true);
  net.second.bias.set_requires_grad(true);
  Eigen::Tensor<double, 4, Eigen::RowMajor> image(3, 2, 6, 6);
  for (Index i = 0; i < image.size(); ++i) image.data()[i] = double(i * 37 % 101) / 50 - 1;
  Tape tape;
  const Var<double> y = net(tape.input(image));
  CHECK(y.cols() == 3);
  tape.backward(y, y.value());
  const auto check = support::check_gradients(trainable_parameters(net), tape.gradients(), [&] {
    Tape once;
    return squared(net(once.input(image)).value());
  });
  CHECK(check.largest > 0.05);
  CHECK_MESSAGE(check.worst < 1e-7, check.where);  // a maximum may change hands within a difference
}

TEST_CASE("rows of experts train each their own matrices, and their numbers may be gone before the way back") {
  Mixture net;
  (void)inject_adapter_in_model(LoraConfig{.r = 2, .lora_alpha = 3, .target_modules = std::vector<std::string>{},
                                           .init_lora_weights = false, .target_parameters = {"experts.up", "experts.down"}},
                                net);
  const Matrix<double> x = Matrix<double>::NullaryExpr(7, 4, [](Index i, Index j) { return double((i * 5 + j * 3) % 7) / 3 - 1; });
  const std::vector<int> experts{2, 0, 0, 1, 2, 2, 0};
  Tape tape;
  std::vector<int> of_rows = experts;
  const Var<double> y = net(tape.input(x), of_rows);
  of_rows.assign(7, 1);
  tape.backward(y, y.value());
  const auto check = support::check_gradients(trainable_parameters(net), tape.gradients(), [&] { return squared(net(x, experts)); });
  CHECK(check.largest > 0.05);
  CHECK_MESSAGE(check.worst < 1e-8, check.where);
}

TEST_CASE("attentions with packed projections train both their projections") {
  Attentive net;
  (void)inject_adapter_in_model(LoraConfig{.r = 2, .lora_alpha = 3, .target_modules = {"self_attn", "cross_attn"}, .init_lora_weights = false}, net);
  const Matrix<double> x = Matrix<double>::NullaryExpr(7, 6, [](Index i, Index j) { return double((i * 5 + j * 3) % 7) / 3 - 1; });
  Batch batch;
  batch.add(4).add(3);
  Tape tape;
  const Var<double> in_rows = tape.input(batch.input(x), true);
  const Var<double> y = net(in_rows);
  CHECK(Matrix<double>(y.value()) == Matrix<double>(net(batch.input(x)).value()));
  tape.backward(y, y.value());
  const auto check = support::check_gradients(trainable_parameters(net), tape.gradients(), [&] { return squared(net(batch.input(x)).value()); });
  CHECK(check.largest > 0.01);
  CHECK_MESSAGE(check.worst < 1e-8, check.where);
  CHECK(in_rows.grad().norm() > 0.01);
}

namespace {
/// Queries, keys and values by one matrix.
struct PackedBlock : PackedLinear<Linear<double>, "q_proj", "k_proj", "v_proj"> {
  using Projection = PackedLinear<Linear<double>, "q_proj", "k_proj", "v_proj">;
  PackedBlock() : Projection(Linear<double>(5, 13), {6, 3, 4}) { initialise(*this, 3); }
  auto operator()(const auto& x) const {
    const auto y = Projection::operator()(x);
    return concat(mul(part<"q_proj">(y), part<"q_proj">(y)), tanh(concat(part<"v_proj">(y), part<"k_proj">(y))));
  }
  GRAFT_MODULE_FROM(Projection)
};
struct PackedPair {
  Adaptable<Linear<double>> first{7, 5};
  PackedBlock block;
  auto operator()(const auto& x) const { return block(tanh(first(x))); }
  GRAFT_MODULE(first, block)
};
}  // namespace

TEST_CASE("layers that share a matrix: each slice's adapters have gradients, and the layers before them") {
  PackedPair model;
  initialise(model, 5);
  (void)inject_adapter_in_model(LoraConfig{.r = 2, .lora_alpha = 3, .target_modules = {"first", "q_proj", "v_proj"}, .init_lora_weights = false},
                                model, "alice", {.seed = 1});
  (void)inject_adapter_in_model(Ia3Config{.target_modules = {"k_proj", "v_proj"}, .feedforward_modules = {"v_proj"}, .init_ia3_weights = false},
                                model, "bob", {.seed = 2});
  const std::vector<std::string> both{"alice", "bob"};
  set_adapter(model, both);
  set_requires_grad(model, both, true);
  const Matrix<double> x = support::ramp<double>(3, 7), dy = support::ramp<double>(3, 13).array().sin();
  Tape tape;
  const Var<double> y = model(tape.input(x));
  CHECK(Matrix<double>(y.value()).isApprox(model(x), 1e-14));
  tape.backward(y, dy);
  const auto check = support::check_gradients(trainable_parameters(model), tape.gradients(), [&] { return model(x).cwiseProduct(dy).sum(); });
  CHECK(check.elements == 2 * (7 + 5 + 5) + 2 * (5 + 6 + 4) + (3 + 5));  // of A, of B, of vectors
  CHECK(check.largest > 0.05);
  CHECK_MESSAGE(check.worst < 1e-8, check.where);
}

namespace {
struct Normed {
  Adaptable<Linear<double>> first{3, 7};
  LayerNorm<double> norm{7};
  Linear<double> last{7, 2};
  Normed() { initialise(*this, 4); }
  auto operator()(const auto& x) const { return last(tanh(norm(first(x)))); }
  GRAFT_MODULE(first, norm, last)
};
}  // namespace

TEST_CASE("biases of layers without room for adapters train while their adapter is active, and only then") {
  Normed model;
  (void)inject_adapter_in_model(LoraConfig{.r = 2, .bias = Bias::all, .target_modules = {"first"}, .init_lora_weights = false}, model, "alice");
  const Matrix<double> x = support::ramp<double>(5, 3), dy = support::ramp<double>(5, 2).array().sin();
  const auto gradients_of_biases = [&] {
    Tape tape;
    tape.backward(model(tape.input(x)), dy);
    const auto check = support::check_gradients(trainable_parameters(model), tape.gradients(), [&] { return model(x).cwiseProduct(dy).sum(); });
    CHECK_MESSAGE(check.worst < 1e-8, check.where);
    const Matrix<double>*norm = tape.gradients().find(model.norm.bias), *last = tape.gradients().find(model.last.bias);
    return std::pair(norm && norm->norm() > 0.1, last && last->norm() > 0.1);
  };
  CHECK(gradients_of_biases() == std::pair(true, true));
  (void)inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"first"}, .init_lora_weights = false}, model, "bob");
  set_adapter(model, {"bob"});
  CHECK(gradients_of_biases() == std::pair(false, false));
  CHECK_FALSE(model.norm.bias.requires_grad());
  set_requires_grad(model, {"alice"}, true);
  set_adapter(model, {"alice"});
  CHECK(gradients_of_biases() == std::pair(true, true));
  set_requires_grad(model, {"alice"}, false);
  CHECK_FALSE(model.norm.bias.requires_grad());

  delete_adapter(model, "bob");
  model.norm.bias.set_requires_grad(false);
  delete_adapter(model, "alice");
  CHECK_FALSE(model.last.bias.requires_grad());
}
