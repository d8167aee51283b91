// The public contract, name by name: what programs outside of this repository compile against.
#include <array>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <variant>

#include <doctest/doctest.h>
#include <graft/graft.hpp>

namespace api {

struct Block {
  graft::Adaptable<graft::Linear<>> q_proj{8, 8}, v_proj{8, 8};
  graft::RMSNorm<> norm{8};
  auto operator()(const auto& x) const { return graft::add(x, v_proj(graft::relu(q_proj(norm(x))))); }
  GRAFT_MODULE(q_proj, v_proj, norm)
};

struct Net {
  graft::Adaptable<graft::Embedding<>> embed_tokens{11, 8, graft::EmbeddingOptions{.padding_idx = 0}};
  std::vector<Block> layers{2};
  graft::LayerNorm<> final_norm{8, 1e-5, true};
  graft::Adaptable<graft::Linear<>> lm_head{8, 11, false};
  auto operator()(const auto& ids) const {
    auto h = embed_tokens(ids);
    for (const Block& layer : layers) h = layer(h);
    return lm_head(final_norm(h));
  }
  GRAFT_MODULE(embed_tokens, layers, final_norm, lm_head)
};

struct BaseClass {
  graft::Linear<> a{3, 3};
  GRAFT_MODULE(a)
};
struct Derived : BaseClass {
  graft::Linear<> b{3, 3};
  GRAFT_MODULE_FROM(BaseClass, b)
};
struct Aggregate {
  graft::Linear<> a{3, 3};
  graft::Linear<> forgotten{3, 3};
  GRAFT_MODULE(a)
};
struct Complete {
  graft::Linear<> a{3, 3}, b{3, 3};
  GRAFT_MODULE(a, b)
};

struct Vendor {
  graft::Linear<> fc1{3, 4};
};

// a user's own layers
struct Dense {
  Eigen::MatrixXf w;  // (out, in), column-major
  Eigen::VectorXf b;
  Dense(int in, int out) : w(Eigen::MatrixXf::Zero(out, in)), b(Eigen::VectorXf::Zero(out)) {}
  Eigen::MatrixXf operator()(const Eigen::MatrixXf& x) const { return (x * w.transpose()).rowwise() + b.transpose(); }
};
struct Stored {
  graft::Matrix<double> w;  // (in, out)
  Stored(int in, int out) : w(graft::Matrix<double>::Zero(in, out)) {}
  graft::Matrix<double> run(const graft::Matrix<double>& x) const { return x * w; }
};
}  // namespace api

template <>
struct graft::describe<api::Vendor> {
  template <class V>
  static constexpr void members(V& v) {
    v("fc1", &api::Vendor::fc1);
  }
};
template <>
struct graft::layer_traits<api::Dense> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = float;
  static Index in_features(const api::Dense& l) { return l.w.cols(); }
  static Index out_features(const api::Dense& l) { return l.w.rows(); }
  static auto& weight(auto& l) { return l.w; }
  static auto& bias(auto& l) { return l.b; }
};
template <>
struct graft::layer_traits<api::Stored> {
  static constexpr LayerKind kind = LayerKind::linear;
  static constexpr bool transposed = true;
  using scalar = double;
  static Index in_features(const api::Stored& l) { return l.w.rows(); }
  static Index out_features(const api::Stored& l) { return l.w.cols(); }
  static auto weight(auto& l) { return l.w.transpose(); }
  static auto forward(const api::Stored& l, const auto& x) { return l.run(x); }
};

namespace api {
struct Own {
  graft::Adaptable<Dense> dense{5, 7};
  graft::Adapted<Stored, graft::Lora> stored{7, 3};
  GRAFT_MODULE(dense, stored)
};
}  // namespace api

using api::Net;

TEST_CASE("api: describing a model") {
  Net net;
  std::vector<std::string> seen;
  graft::visit(net, [&](std::string_view path, auto&) { seen.emplace_back(path); });
  CHECK(seen.front().empty());
  const std::size_t count = graft::paths<Net>.size();
  std::string all;
  for (std::size_t i = 0; i < count; ++i) all += std::string(std::string_view(graft::paths<Net>[i])) + " ";
  CHECK(all.find("layers.*.q_proj ") != std::string::npos);
  static_assert(graft::has_module<Net>("final_norm") && graft::has_site<Net>("q_proj") && !graft::has_site<Net>("final_norm"));
  static_assert(graft::has_site<Net>("layers.*.q_proj"));
  static_assert(graft::lists_all_modules<api::Complete> && !graft::lists_all_modules<api::Aggregate>);
  static_assert(graft::has_module<api::Derived>("a") && graft::has_module<api::Derived>("b"));
  static_assert(graft::has_module<api::Vendor>("fc1"));
  const std::string tree = graft::repr(net);
  CHECK(tree.rfind("Net(", 0) == 0);
}

TEST_CASE("api: layers and their parameters") {
  graft::Linear<> linear(3, 5);
  CHECK(linear.weight.shape() == std::vector<graft::Index>{5, 3});
  CHECK(linear.weight.view().rows() == 5);
  CHECK(linear.bias.view().rows() == 1);
  CHECK(linear.weight.device() == graft::Device::cpu);
  graft::Linear<float, graft::lazy> later(3, 5);
  CHECK(later.weight.device() == graft::Device::meta);
  graft::Linear<graft::bf16, graft::mapped> borrowed(3, 5);
  graft::Linear<graft::f16> half(3, 5);
  graft::Linear<double> wide(3, 5, false);
  auto tied = linear.weight.share();
  tied.view()(0, 0) = 4;
  CHECK(linear.weight.view()(0, 0) == 4);
  graft::Conv1d<> conv1{2, 3, graft::Conv1dOptions{.kernel = 3}};
  graft::Conv2d<> conv2{2, 3, graft::Conv2dOptions{.kernel = {3, 2}, .stride = 2, .padding = {1, 0}, .bias = false}};
  graft::Conv2d<> conv4{2, 3, {.kernel = std::array<int, 2>{3, 2}, .padding = graft::same}};
  graft::Conv3d<> conv3{2, 4, {.kernel = 2, .groups = 2, .padding_mode = graft::PaddingMode::replicate}};
  CHECK(conv2.weight.shape() == std::vector<graft::Index>{3, 2, 3, 2});
  Net a, b;
  graft::initialise(a, 7);
  graft::initialise(b, 7);
  CHECK(a.lm_head->weight.view() == b.lm_head->weight.view());
  CHECK(a.lm_head->weight.view().norm() > 0);
}

TEST_CASE("api: configs are aggregates in PEFT's names") {
  const graft::LoraConfig lora{.r = 4, .lora_alpha = 16, .lora_dropout = 0.1, .bias = graft::Bias::none, .target_modules = {"q_proj"},
                               .exclude_modules = {"layers.0.q_proj"}, .use_rslora = true, .use_dora = false, .lora_bias = false,
                               .init_lora_weights = "gaussian", .layers_to_transform = {1}, .layers_pattern = {"layers"},
                               .rank_pattern = {{"q_proj", 4}}, .alpha_pattern = {{"q_proj", 0.5}}, .modules_to_save = {"lm_head"},
                               .trainable_token_indices = {}, .target_parameters = {}, .fan_in_fan_out = false,
                               .ensure_weight_tying = false, .inference_mode = false, .extra = {{"task_type", "\"CAUSAL_LM\""}}};
  lora.validate();
  const graft::AdaLoraConfig ada{.init_r = 6, .target_r = 3, .target_modules = graft::all_linear, .total_step = 9,
                                 .rank_pattern = {{"a.b", {true, false}}}, .init_lora_weights = false};
  const graft::Ia3Config ia3{.target_modules = {"q_proj", "v_proj"}, .feedforward_modules = {"v_proj"}, .exclude_modules = {}};
  const graft::PeftConfig any = ia3;
  CHECK(std::holds_alternative<graft::Ia3Config>(any));
  const std::string name = "q_proj";
  const std::string_view view = "v_proj";
  const graft::TargetModules mixed{name, view, "o_proj"};
  CHECK(mixed.names().size() == 3);
  const graft::TargetModules from_vector(std::vector<std::string>{"a", "b"});
  graft::PatternMap<int> pattern;
  pattern.emplace_back("k", 2);
  CHECK(pattern[0].second == 2);
  const graft::TokenIndices list{1, 2, 3}, by_module{{"embed_tokens", {1, 2}}};
  CHECK(list.modules()[0].first == "embed_tokens");
  CHECK(by_module.modules()[0].second.size() == 2);
}

TEST_CASE("api: injection, state dicts and verbs") {
  Net model;
  graft::initialise(model, 1);
  const std::vector<int> ids{1, 4, 9};
  const graft::Matrix<float> base = model(ids);
  const graft::LoraConfig config{.r = 3, .lora_alpha = 7, .target_modules = {"q_proj", "nothing"}, .init_lora_weights = false};
  const graft::InjectReport report = graft::inject_adapter_in_model(config, model);
  REQUIRE(report.matched.size() == 2);
  CHECK(report.matched[0].path == "layers.0.q_proj");
  CHECK(report.matched[0].kind == graft::LayerKind::linear);
  CHECK(report.matched[0].r == 3);
  CHECK(report.unmatched_targets == std::vector<std::string>{"nothing"});
  CHECK(report.without_room.empty());
  graft::inject_adapter_in_model<"v_proj">(graft::PeftConfig(graft::Ia3Config{.init_ia3_weights = false}), model, "second", {.activate = false});
  CHECK(graft::active_adapters(model) == std::vector<std::string>{"default"});
  CHECK(graft::adapter_names(model) == std::vector<std::string>{"default", "second"});
  const graft::Matrix<float> adapted = model(ids);
  REQUIRE((adapted - base).norm() > 1e-3f);

  graft::StateDict state = graft::get_peft_model_state_dict(model);
  CHECK(state.size() == 4);
  CHECK(state.contains("layers.1.q_proj.lora_B.weight"));
  CHECK(state.at("layers.1.q_proj.lora_A.weight").shape == std::vector<graft::Index>{3, 8});
  CHECK(state.begin()->second.dtype == graft::Dtype::f32);
  graft::StateDict own = state.clone();
  CHECK(own.at("layers.0.q_proj.lora_A.weight").owner != nullptr);

  Net fresh;
  graft::set_base_model_state_dict(fresh, graft::get_base_model_state_dict(model));
  graft::inject_adapter_in_model(config, fresh, "default", {.low_cpu_mem_usage = true});
  CHECK(fresh.layers[0].q_proj.parameter("default", "lora_A").device() == graft::Device::meta);
  CHECK_THROWS_AS(fresh(ids), graft::MetaError);
  const graft::LoadReport loaded = graft::set_peft_model_state_dict(fresh, own, "default", {.low_cpu_mem_usage = true});
  CHECK(loaded.unexpected_keys.empty());
  CHECK(loaded.missing_keys.empty());
  const graft::ParameterView parameter = fresh.layers[0].q_proj.parameter("default", "lora_A");
  CHECK(parameter.device() == graft::Device::cpu);
  CHECK(parameter.dtype() == graft::Dtype::f32);
  CHECK(parameter.requires_grad());
  CHECK(parameter.shape() == std::vector<graft::Index>{3, 8});
  CHECK(parameter.view<float>().rows() == 3);
  CHECK(fresh(ids) == adapted);

  {
    const graft::AdapterGuard guard = graft::disable_adapter(model);
    CHECK(model(ids) == base);
  }
  CHECK(model(ids) == adapted);
  graft::set_adapter(model, {});
  CHECK(model(ids) == base);
  graft::set_adapter(model, "second");
  graft::set_adapter(model, {"default", "second"});
  graft::set_requires_grad(model, "default", false);
  graft::set_requires_grad(model, {}, true);
  graft::set_scale(model, "default", 0);
  graft::set_scale(model, "default", 1);
  graft::delete_adapter(model, "second");
  CHECK(model(ids) == adapted);
  CHECK_THROWS_AS(graft::set_adapter(model, "second"), graft::AdapterError);
  CHECK(graft::state_dict(model).contains("layers.0.q_proj.lora_A.default.weight"));
  CHECK(graft::state_dict(model).contains("layers.0.q_proj.base_layer.weight"));
}

TEST_CASE("api: rows, tokens, selections and caches") {
  Net model;
  graft::initialise(model, 1);
  graft::inject_adapter_in_model(graft::LoraConfig{.r = 3, .target_modules = {"q_proj"}, .init_lora_weights = false}, model, "alice");
  const std::vector<std::int64_t> ids{1, 2, 3, 4};
  graft::Batch batch;
  batch.clear();
  batch.add(2, graft::select(model, {{"alice"}})).add(1, graft::base_only()).add(1, graft::select(model, {{.name = "alice", .weight = 0.5}}));
  CHECK(batch.rows() == 4);
  CHECK(batch.view().sequences.size() == 3);
  const graft::Tokens tokens = batch.input(ids);
  const graft::Rows<float> result = model(tokens);
  const graft::Matrix<float> matrix = result.value();
  CHECK(matrix.rows() == 4);
  const graft::Rows<float> again = result.with(matrix);
  CHECK(graft::Matrix<float>(again.value()) == matrix);
  CHECK_THROWS_AS((void)graft::select(model, {{"nobody"}}), graft::AdapterError);

  const auto& site = model.layers[0].q_proj;
  const graft::Matrix<float> x = graft::Matrix<float>::Random(4, 8);
  const graft::Matrix<float> y = site(x, batch);
  graft::Matrix<float> into(4, 8);
  site(x, batch, into);
  CHECK(into == y);
  graft::Matrix<float> made = site.base_layer()(x);
  site.update(batch, x, made);
  CHECK((made - y).cwiseAbs().maxCoeff() < 1e-6f);

  graft::KvCache<> cache{2, 8, 16};
  graft::Batch decode;
  decode.add(3, {}, &cache);
  const graft::Matrix<float> q = graft::Matrix<float>::Random(3, 8);
  const auto rows = decode.input(q);
  const auto attended = graft::attention(graft::rotary(rows, {.head_dim = 4}), rows, rows, {.heads = 2, .kv_heads = 2, .layer = 0});
  CHECK(cache.length() == 3);
  CHECK(graft::last(attended).rows() == 1);
  CHECK(graft::mean_pool(attended).rows() == 1);
}

TEST_CASE("api: free functions on matrices and tensors") {
  const graft::Matrix<float> x = graft::Matrix<float>::Random(3, 8), w = graft::Matrix<float>::Random(5, 8);
  const Eigen::VectorXf b = Eigen::VectorXf::Random(5);
  graft::Matrix<float> y = graft::linear(x, w);
  CHECK((y - x * w.transpose()).norm() < 1e-5f);
  y = graft::linear(x, w, b);
  graft::Linear<> layer(8, 5);
  y = graft::linear(x, layer.weight);
  y = graft::linear(x, layer.weight, layer.bias);
  y = graft::concat(x, graft::slice(x, 2, 3));
  CHECK(y.cols() == 11);
  y = graft::scale(graft::mul(graft::add(x, x), x), 0.5);
  y = graft::gelu(x);
  y = graft::gelu(x, graft::Gelu::tanh);
  y = graft::tanh(graft::sigmoid(graft::silu(graft::relu(x))));
  y = graft::softmax(x);
  CHECK(std::abs(y.row(0).sum() - 1) < 1e-5f);
  Eigen::Tensor<float, 4, Eigen::RowMajor> image(2, 3, 4, 4);
  image.setRandom();
  const Eigen::Tensor<float, 4, Eigen::RowMajor> pooled = graft::max_pool2d(image, {.kernel = 2});
  const Eigen::Tensor<float, 4, Eigen::RowMajor> mean = graft::avg_pool2d(image, {.kernel = 2, .stride = 1});
  CHECK(pooled.dimension(2) == 2);
  CHECK(graft::flatten(image).dimension(1) == 48);
}

TEST_CASE("api: layers of the user's own") {
  api::Own own;
  own.dense->w.setRandom();
  own.stored->w.setRandom();
  const graft::Matrix<float> x = graft::Matrix<float>::Random(2, 5);
  const graft::Matrix<float> base = own.dense(x);
  graft::inject_adapter_in_model(graft::LoraConfig{.r = 2, .target_modules = graft::all_linear, .init_lora_weights = false}, own);
  CHECK((graft::Matrix<float>(own.dense(x)) - base).norm() > 1e-3f);
  const graft::Matrix<double> z = own.stored(graft::Matrix<double>::Random(2, 7));
  CHECK(z.cols() == 3);
  const graft::StateDict base_state = graft::get_base_model_state_dict(own);
  CHECK(base_state.at("stored.weight").shape == std::vector<graft::Index>{7, 3});
  CHECK(base_state.at("dense.weight").shape == std::vector<graft::Index>{7, 5});
  static_assert(!decltype(own.stored)::permits<graft::Ia3>);
  CHECK_THROWS_AS(graft::inject_adapter_in_model(graft::Ia3Config{.target_modules = {"stored"}}, own, "x"), graft::TargetError);
}

TEST_CASE("api: errors carry what, why and fix") {
  Net model;
  try {
    graft::inject_adapter_in_model(graft::LoraConfig{.target_modules = {"q_porj"}}, model);
    FAIL("a misspelt target was accepted");
  } catch (const graft::Error& error) {
    CHECK(error.code == graft::ErrorCode::target);
    CHECK(!error.problem.empty());
    CHECK(!error.why.empty());
    CHECK(error.fix.find("q_proj") != std::string::npos);
  }
}
