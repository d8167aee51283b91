#include <graft/injection/attention_sites.hpp>

#include <doctest/doctest.h>

#include <graft/graft.hpp>
#include <graft/io/narrow_kernels.hpp>

#include "support/results.hpp"
#include "support/trained.hpp"

using graft::Adaptable;
using graft::Index;
using graft::LoraConfig;
using graft::Matrix;
using graft::MultiheadAttention;
using results::bytes_of;
using results::everything;
using results::same_bits;
using results::same_values;
using Strings = std::vector<std::string>;

namespace {

constexpr Index width = 15;

/// An attention to itself, then to what another layer remembers, which lasts longer or shorter.
template <class T>
struct Net {
  Adaptable<graft::Linear<T>> fc{7, width};
  Adaptable<MultiheadAttention<T>> attn{width, 5}, cross{width, 3};

  Net() {
    double seed = 1;
    for (auto* linear : {&fc.base_layer()}) fill(*linear, seed);
    for (auto* site : {&attn, &cross}) {
      awkward::fill<T>(site->base_layer().in_proj_weight.untyped(), ++seed);
      awkward::fill<T>(site->base_layer().in_proj_bias.untyped(), ++seed);
      fill((*site)->out_proj.base_layer(), seed);
    }
  }
  static void fill(graft::Linear<T>& linear, double& seed) {
    awkward::fill<T>(linear.weight.untyped(), ++seed);
    awkward::fill<T>(linear.bias.untyped(), ++seed);
  }
  auto operator()(const auto& x) const {
    const auto h = graft::tanh(fc(x));
    const auto y = attn(h, {.causal = true});
    return cross(y, h, h);
  }
  GRAFT_MODULE(fc, attn, cross)
};
static_assert(graft::has_site<Net<float>>("attn") && graft::has_site<Net<float>>("attn.out_proj"));
static_assert(graft::has_site<Net<float>>("out_proj") && !graft::has_module<Net<float>>("attn.in_proj_weight"));
static_assert(graft::paths<Net<float>>.size() == 6);

const LoraConfig both{.r = 4, .lora_alpha = 7, .target_modules = {"attn", "cross"}};

/// With adapters "a" and "b", of which "b" is active.
template <class T>
Net<T> adapted() {
  Net<T> net;
  trained::inject(both, net, "a", 20);
  LoraConfig other = both;
  other.r = 3;
  other.use_rslora = true;
  other.rank_pattern = {{"cross", 5}};
  trained::inject(other, net, "b", 21);
  return net;
}

template <class T>
Matrix<T> matrix(const auto& site, const char* adapter, const char* name) {
  return site.parameter(adapter, name).template view<T>();
}
/// A plain attention with what an adapter of that scaling adds to its weights: the sum at the output projection twice.
template <class T>
MultiheadAttention<T> with_update(const auto& site, const char* adapter, T scaling, T times = 2, T packed = 1) {
  MultiheadAttention<T> plain(width, site->num_heads);
  plain.in_proj_bias.view() = site->in_proj_bias.view();
  plain.out_proj.bias.view() = site->out_proj->bias.view();
  plain.in_proj_weight.view() = site->in_proj_weight.view();
  plain.out_proj.weight.view() = site->out_proj->weight.view();
  if (packed != 0)
    plain.in_proj_weight.view() += packed * scaling * matrix<T>(site, adapter, "lora_B") * matrix<T>(site, adapter, "lora_A");
  if (times != 0)
    plain.out_proj.weight.view() +=
        times * scaling * matrix<T>(site->out_proj, adapter, "lora_B") * matrix<T>(site->out_proj, adapter, "lora_A");
  return plain;
}

template <class E>
void is_refused(const auto& config, auto& net, const char* because) {
  const std::string before = everything(net);
  CHECK_THROWS_WITH_AS((void)graft::inject_adapter_in_model(config, net, "new"), doctest::Contains(because), E);
  CHECK(everything(net) == before);
}

/// The layers of the Python twin of an engine that has one matrix for all three.
template <class Storage>
struct Parts {
  Adaptable<graft::Linear<double, Storage>> q_proj{5, 6, false}, k_proj{5, 3, false}, v_proj{5, 3, false};
  GRAFT_MODULE(q_proj, k_proj, v_proj)
};

/// An attention whose layers know nothing of graft: one fused matrix, and a projection behind it.
struct Fused {
  graft::Matrix<double> in_proj_weight{3 * width, width};
  Eigen::RowVectorXd in_proj_bias{3 * width};
  GRAFT_MODULE(in_proj_weight, in_proj_bias)
};
struct Dense {
  graft::Matrix<double> kernel{width, width};
};
template <class Last = Dense>
struct OwnAttention : Fused {
  Last out_proj;

  template <class Project>
  auto attend(const Project& project, const auto& x) const {
    const auto qkv = project(x, 0, 3 * width);
    const auto part = [&](Index i) { return graft::slice(qkv, i * width, width); };
    return out_proj(graft::attention(part(0), part(1), part(2), {.heads = 5, .kv_heads = 5, .causal = false}));
  }
  auto operator()(const auto& x) const { return attend(graft::BaseProjection{static_cast<const Fused&>(*this)}, x); }
  GRAFT_MODULE_FROM(Fused, out_proj)
};

}  // namespace

template <>
struct graft::layer_traits<Fused> {
  using scalar = double;
  static constexpr LayerKind kind = LayerKind::linear;
  static constexpr bool packed = true;
  static Index in_features(const Fused&) { return width; }
  static Index out_features(const Fused&) { return 3 * width; }
  static auto& weight(auto& layer) { return layer.in_proj_weight; }
  static auto& bias(auto& layer) { return layer.in_proj_bias; }
};
template <>
struct graft::layer_traits<Dense> {
  using scalar = double;
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const Dense&) { return width; }
  static Index out_features(const Dense&) { return width; }
  static auto& weight(auto& layer) { return layer.kernel; }
  static auto forward(const Dense& layer, const auto& x) { return graft::Matrix<double>(x * layer.kernel.transpose()); }
};
template <class Last>
struct graft::layer_traits<OwnAttention<Last>> : graft::layer_traits<Fused> {
  using packed_projection = Fused;
  using out_projection = Last;
  template <class Other>
  using with_out_projection = OwnAttention<Other>;
};

namespace {
struct OwnNet {
  Adaptable<OwnAttention<>> attn;
  OwnNet() {
    awkward::fill(attn->in_proj_weight, 3);
    awkward::fill(attn->in_proj_bias, 4);
    awkward::fill(attn->out_proj->kernel, 5);
  }
  auto operator()(const auto& x) const { return attn(x); }
  GRAFT_MODULE(attn)
};
}  // namespace

TEST_CASE("an attention is adapted with its output projection, under PEFT's keys") {
  Net<float> net;
  const Strings base{"fc.weight",         "fc.bias",           "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight",
                     "attn.out_proj.bias", "cross.in_proj_weight", "cross.in_proj_bias",  "cross.out_proj.weight", "cross.out_proj.bias"};
  CHECK(graft::state_dict(net).keys() == base);
  const auto report = graft::inject_adapter_in_model(LoraConfig{.r = 4, .target_modules = {"attn"}}, net);
  REQUIRE(report.matched.size() == 2);
  CHECK(report.matched[0].path == "attn");
  CHECK(report.matched[0].out == 3 * width);
  CHECK(report.matched[1].path == "attn.out_proj");
  CHECK(report.warnings.empty());
  CHECK(graft::get_peft_model_state_dict(net).keys() == Strings{"attn.lora_A.weight", "attn.lora_B.weight",
                                                                "attn.base_layer.out_proj.lora_A.weight",
                                                                "attn.base_layer.out_proj.lora_B.weight"});
  CHECK(graft::get_peft_model_state_dict(net).at("attn.lora_B.weight").shape == std::vector<Index>{3 * width, 4});
  CHECK(graft::state_dict(net).contains("attn.base_layer.in_proj_weight"));
  CHECK(graft::state_dict(net).contains("attn.base_layer.out_proj.base_layer.bias"));
  CHECK(graft::state_dict(net).contains("attn.base_layer.out_proj.lora_A.default.weight"));
  CHECK(graft::get_base_model_state_dict(net).keys() == base);
  // a base state dict may come from an adapted model
  graft::StateDict wrapped;
  for (const auto& [key, view] : graft::state_dict(net))
    if (key.find("lora_") == key.npos) wrapped.insert(key, view);
  Net<float> fresh;
  CHECK(graft::set_base_model_state_dict(fresh, wrapped).loaded == base);
}

TEST_CASE("the update is that of the weights plus B·A, of the output projection plus 2·B·A") {
  const Matrix<double> x = awkward::rows<double>(6, width), k = awkward::rows<double>(4, width, 3), v = awkward::rows<double>(4, width, 4);
  const auto net = adapted<double>();
  const auto plain = with_update<double>(net.cross, "b", 7 / std::sqrt(5.0));
  CHECK(same_values(net.cross(x), plain(x)));
  CHECK(same_values(net.cross(x, {.causal = true}), plain(x, {.causal = true})));
  CHECK(same_values(net.cross(x, k, v), plain(x, k, v)));
  CHECK_FALSE(same_values(net.cross(x, k, v), Net<double>{}.cross(x, k, v)));
  CHECK_FALSE(same_values(net.cross(x, k, v), with_update<double>(net.cross, "b", 7 / std::sqrt(5.0), 1)(x, k, v)));
}

TEST_CASE_TEMPLATE("what is kept of B serves all of its rows, whichever forward came first", T, float, double) {
  const auto one = adapted<T>(), other = adapted<T>();  // nobody has a view of their B
  const Matrix<T> x = awkward::rows<T>(3, width), k = awkward::rows<T>(2, width, 3);
  const Matrix<T> across = one.cross(x, k, k), to_self = one.cross(x);
  CHECK(same_bits(other.cross(x), to_self));
  CHECK(same_bits(other.cross(x, k, k), across));
  CHECK(same_values(to_self, with_update<T>(one.cross, "b", T(7 / std::sqrt(5.0)))(x)));
}

TEST_CASE("an adapter that stays narrow serves slices as the whole") {
  Net<float> narrow = adapted<float>(), wide = adapted<float>();
  const auto each = [](Net<float>& net, auto change) {
    const graft::ModelSites sites = graft::sites_of(net);
    for (const auto& site : sites.sites)
      if (site->table())
        for (graft::SiteEntry& entry : site->table()->entries)
          for (const graft::AdapterParameter& parameter : entry.state()->parameters()) change(*parameter.data);
  };
  const auto rounded = [](const graft::ParameterData& values) {
    graft::ParameterData made(graft::Dtype::bf16, values.shape());
    made.allocate();
    graft::detail::convert(values.dtype(), values.data(), graft::Dtype::bf16, made.data(), values.shape().size());
    return made;
  };
  each(narrow, [&](graft::ParameterData& data) { data = rounded(data); });
  each(wide, [&](graft::ParameterData& data) {
    const graft::ParameterData values = rounded(data);
    graft::detail::convert(graft::Dtype::bf16, values.data(), data.dtype(), data.data(), values.shape().size());
  });
  const auto x = awkward::rows<float>(4, width), k = awkward::rows<float>(3, width, 2);
  CHECK(same_values(narrow.cross(x, k, k), wide.cross(x, k, k)));
  CHECK(same_values(narrow.cross(x), wide.cross(x)));
  REQUIRE_FALSE(same_bits(wide.cross(x, k, k), adapted<float>().cross(x, k, k)));
}

TEST_CASE_TEMPLATE("without an adapter it is the layer, to the bit", T, float, double) {
  const auto x = awkward::rows<T>(5, 7);
  const auto base = Net<T>{}(x);
  Net<T> net = adapted<T>();
  const auto with = net(x);
  REQUIRE_FALSE(same_values(with, base));
  const auto h = awkward::rows<T>(4, width);
  CHECK(same_bits(Net<T>{}.attn(h), with_update<T>(net.attn, "a", 0, 0, 0)(h)));
  {
    const auto off = graft::disable_adapter(net);
    CHECK(same_bits(net(x), base));
  }
  CHECK(same_bits(net(x), with));
  const Net<T> copy = net;
  graft::set_scale(net, "b", 0.5);
  CHECK_FALSE(same_values(net(x), with));
  CHECK(same_bits(copy(x), with));
  CHECK(graft::get_peft_model_state_dict(copy, "b").keys() == graft::get_peft_model_state_dict(net, "b").keys());
  graft::set_adapter(net, {});
  CHECK(same_bits(net(x), base));
  graft::delete_adapter(net, "a");
  graft::delete_adapter(net, "b");
  CHECK(same_bits(net(x), base));
}

TEST_CASE_TEMPLATE("rows of a batch have their own adapters, as one by one", T, float, double) {
  const auto net = adapted<T>();
  const std::vector<graft::AdapterSelection> wanted{graft::select(net, {{"a", 1}}), graft::base_only(),
                                                    graft::select(net, {{"b", 0.5}, {"a", -2}}), {}};
  const auto x = awkward::rows<T>(9, 7);
  graft::Batch batch;
  const std::vector<Index> rows{2, 3, 3, 1};
  for (std::size_t i = 0; i < wanted.size(); ++i) batch.add(rows[i], wanted[i]);
  const Matrix<T> together = net(batch.input(x)).value();
  Index at = 0;
  for (std::size_t i = 0; i < wanted.size(); at += rows[i++]) {
    graft::Batch one;
    one.add(rows[i], wanted[i]);
    const Matrix<T> alone = net(one.input(x.middleRows(at, rows[i]))).value();
    CHECK(same_bits(alone, Matrix<T>(together.middleRows(at, rows[i]))));
    if (i == 1) CHECK(same_bits(alone, Net<T>{}(Matrix<T>(x.middleRows(at, rows[i])))));
    else REQUIRE_FALSE(same_values(alone, Net<T>{}(Matrix<T>(x.middleRows(at, rows[i])))));
  }
}

TEST_CASE_TEMPLATE("merged is unmerged, and every bit comes back", T, float, double) {
  const auto x = awkward::rows<T>(5, 7);
  auto net = adapted<T>();
  graft::set_adapter(net, {"b", "a"});
  graft::set_scale(net, "a", 0.75);
  const auto y = net(x), base = Net<T>{}(x);
  const std::string before = everything(net);
  const auto report = graft::merge_adapter(net, {}, {.unmerge = graft::Unmerge::backup});
  CHECK(report.layers == Strings{"attn", "attn.out_proj", "cross", "cross.out_proj"});
  CHECK(same_values(net(x), y));
  {
    const auto off = graft::disable_adapter(net);
    CHECK(same_bits(net(x), base));
  }
  (void)graft::unmerge_adapter(net);
  CHECK(everything(net) == before);
  CHECK(same_bits(net(x), y));
  graft::set_adapter(net, "b");
  const auto alone = with_update<T>(net.cross, "b", T(7 / std::sqrt(5.0)));
  (void)graft::merge_and_unload(net, "b");
  CHECK(graft::repr(net) == graft::repr(Net<T>{}));
  CHECK(same_values(Matrix<T>(net.cross->out_proj->weight.view()), Matrix<T>(alone.out_proj.weight.view())));
  CHECK(same_values(Matrix<T>(net.cross->in_proj_weight.view()), Matrix<T>(alone.in_proj_weight.view())));
}

TEST_CASE("state dicts travel: by config, and by their keys, prefixed or not") {
  const auto x = awkward::rows<float>(5, 7);
  const auto net = adapted<float>();
  const graft::StateDict saved = graft::get_peft_model_state_dict(net, "b").clone();
  graft::StateDict prefixed;
  for (const auto& [key, view] : saved) prefixed.insert("base_model.model." + key, view);
  LoraConfig config = both;
  config.r = 3;
  config.use_rslora = true;
  config.rank_pattern = {{"cross", 5}};
  for (const graft::StateDict* tensors : {&saved, static_cast<const graft::StateDict*>(&prefixed)})
    for (const bool by_keys : {false, true}) {
      Net<float> fresh;
      if (by_keys) config.target_modules = graft::TargetModules(Strings{});
      const auto report = graft::inject_adapter_in_model(config, fresh, "c", {.low_cpu_mem_usage = true, .state_dict = by_keys ? tensors : nullptr});
      CHECK(report.unmatched_targets.empty());
      CHECK_THROWS_AS((void)fresh(x), graft::MetaError);
      CHECK(graft::set_peft_model_state_dict(fresh, *tensors, "c").loaded == saved.keys());
      CHECK(same_bits(fresh(x), net(x)));
      CHECK(bytes_of(graft::get_peft_model_state_dict(fresh, "c")) == bytes_of(saved));
      config.target_modules = both.target_modules;
    }
}

TEST_CASE("a plain attention becomes a site with its values") {
  MultiheadAttention<float> plain(width, 5);
  awkward::fill<float>(plain.in_proj_weight.untyped(), 1);
  awkward::fill<float>(plain.out_proj.weight.untyped(), 2);
  const auto x = awkward::rows<float>(4, width);
  const Adaptable<MultiheadAttention<float>> site(plain);
  CHECK(same_bits(site(x), plain(x)));
  CHECK(site->num_heads == 5);
  static_assert(std::is_same_v<decltype(site)::layer_type, MultiheadAttention<float>>);
}

TEST_CASE("both projections have the attention's rank and alpha") {
  Net<float> net;
  LoraConfig config = both;
  config.rank_pattern = {{"attn", 2}, {"out_proj", 5}};
  const auto report = graft::inject_adapter_in_model(config, net);
  CHECK(report.matched[1].r == 2);
  CHECK(report.matched[3].r == 4);
  CHECK(report.warnings == Strings{"rank_pattern has a key that matches no target: 'out_proj'"});
}

TEST_CASE("bias trains that of the output projection: the packed one is not called so") {
  for (const graft::Bias bias : {graft::Bias::lora_only, graft::Bias::all}) {
    Net<float> net;
    LoraConfig config = both;
    config.target_modules = {"attn"};
    config.bias = bias;
    (void)graft::inject_adapter_in_model(config, net);
    const auto keys = graft::get_peft_model_state_dict(net);
    CHECK(keys.contains("attn.base_layer.out_proj.base_layer.bias"));
    CHECK(keys.contains("cross.out_proj.bias") == (bias == graft::Bias::all));
    CHECK_FALSE(keys.contains("attn.base_layer.in_proj_bias"));
  }
}

TEST_CASE("all_linear and names take the output projection alone, as a linear layer whose update acts once") {
  for (const graft::TargetModules& targets : {graft::TargetModules(graft::all_linear), graft::TargetModules{"fc", "out_proj"}}) {
    Net<double> net;
    const auto report = graft::inject_adapter_in_model(LoraConfig{.r = 4, .lora_alpha = 7, .target_modules = targets}, net);
    CHECK(report.matched.size() == 3);
    CHECK(graft::get_peft_model_state_dict(net).contains("cross.out_proj.lora_A.weight"));
    trained::fill(net, "default");
    const Matrix<double> h = awkward::rows<double>(4, width);
    CHECK(same_values(net.cross(h), with_update<double>(net.cross, "default", 7 / 4.0, 1, 0)(h)));
    REQUIRE_FALSE(same_values(net.cross(h), Net<double>{}.cross(h)));
  }
}

TEST_CASE("what PEFT's attention does not have is refused, and nothing has changed") {
  Net<float> net;
  const auto with = [](auto change) {
    LoraConfig config = both;
    change(config);
    return config;
  };
  is_refused<graft::ConfigError>(with([](auto& c) { c.use_dora = true; }), net, "use_dora at 'attn'");
  is_refused<graft::ConfigError>(with([](auto& c) { c.lora_bias = true; }), net, "lora_bias at 'attn'");
  is_refused<graft::ConfigError>(with([](auto& c) { c.fan_in_fan_out = true; }), net, "fan_in_fan_out at 'attn'");
  constexpr graft::detail::Factorisers none{};  // of which the plan calls nothing
  const auto* const before = std::exchange(graft::detail::factorisers, &none);
  for (const char* scheme : {"pissa", "olora", "orthogonal", "eva"})
    is_refused<graft::ConfigError>(with([&](auto& c) { c.init_lora_weights = scheme; }), net, "at 'attn', an attention");
  graft::detail::factorisers = before;
  is_refused<graft::TargetError>(graft::Ia3Config{.target_modules = {"attn"}}, net, "does not fit the layer 'attn', a MultiheadAttention");
  is_refused<graft::TargetError>(graft::AdaLoraConfig{.init_r = 4, .target_r = 2, .target_modules = {"attn"}}, net, "does not fit");
  is_refused<graft::TargetError>(with([](auto& c) { c.target_modules = {"attn", "attn.out_proj"}; }), net, "which it is part of");
  const auto of_parameter = [](const char* parameter, graft::TargetModules modules = Strings{}) {
    LoraConfig config{.r = 4, .target_modules = std::move(modules)};
    config.target_parameters = {parameter};
    return config;
  };
  is_refused<graft::TargetError>(of_parameter("attn.out_proj.weight"), net, "is an attention's output projection's");
  is_refused<graft::TargetError>(of_parameter("attn.in_proj_bias"), net, "has 1 dimension");
  is_refused<graft::TargetError>(of_parameter("attn.in_proj_weight", {"attn"}), net, "and so is its layer");
  is_refused<graft::TargetError>(of_parameter("attn.in_proj_weight", {"attn.out_proj"}), net, "and 'attn.out_proj' behind it");
  (void)graft::inject_adapter_in_model(graft::Ia3Config{.target_modules = {"attn.out_proj"}}, net, "inner");
  is_refused<graft::TargetError>(both, net, "with adapters of its own, 'attn.out_proj'");
  is_refused<graft::TargetError>(of_parameter("attn.in_proj_weight"), net, "with adapters of its own, 'attn.out_proj'");
}

TEST_CASE("LoRA of the packed matrix alone leaves the output projection as it is") {
  const Matrix<double> x = awkward::rows<double>(4, 7);
  Net<double> net;
  const Matrix<double> base = net(x);
  LoraConfig config{.r = 3, .lora_alpha = 7, .target_modules = Strings{}};
  config.target_parameters = {"in_proj_weight"};
  const auto report = graft::inject_adapter_in_model(config, net, "a");
  REQUIRE(report.matched.size() == 2);
  CHECK(report.matched[0].path == "attn.in_proj_weight");
  trained::fill(net, "a");
  CHECK(graft::get_peft_model_state_dict(net, "a").keys() ==
        Strings{"attn.lora_A.weight", "attn.lora_B.weight", "cross.lora_A.weight", "cross.lora_B.weight"});
  const Matrix<double> with = net(x);
  REQUIRE_FALSE(same_values(with, base));
  const auto plain = [&](const auto& site) { return with_update<double>(site, "a", 7.0 / 3, 0); };
  const auto attn = plain(net.attn), cross = plain(net.cross);
  const Matrix<double> h = graft::tanh(net.fc(x)), y = attn(h, {.causal = true});
  CHECK(same_values(cross(y, h, h), with));
  is_refused<graft::TargetError>(LoraConfig{.r = 4, .target_modules = {"attn.out_proj"}}, net, "no module matches");
  (void)graft::merge_adapter(net);
  CHECK(same_values(net(x), with));
  (void)graft::unmerge_adapter(net);
  CHECK(same_values(net(x), with));
  (void)graft::merge_and_unload(net);
  CHECK(same_values(net(x), with));
}

TEST_CASE("an output projection whose attention is adapted is no target any more") {
  Net<float> net;
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 4, .target_modules = {"attn"}}, net);
  is_refused<graft::TargetError>(LoraConfig{.r = 4, .target_modules = {"attn.out_proj"}}, net, "no module matches");
  Net<float> other;
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 4, .target_modules = {"attn.out_proj", "fc"}}, other);
  const graft::StateDict tensors = graft::get_peft_model_state_dict(other);
  const LoraConfig by_keys{.r = 4, .target_modules = graft::TargetModules(Strings{})};
  const auto named = graft::inject_adapter_in_model(by_keys, net, "named", {.state_dict = &tensors});
  CHECK(named.matched.size() == 1);
  CHECK(named.unmatched_targets == Strings{"attn.out_proj"});
  const auto report = graft::inject_adapter_in_model(LoraConfig{.r = 4, .target_modules = graft::all_linear}, net, "all");
  REQUIRE(report.matched.size() == 2);
  CHECK(report.matched[1].path == "cross.out_proj");
}

TEST_CASE("an attention is saved whole, beside adapters elsewhere") {
  const auto x = awkward::rows<float>(5, 7);
  Net<float> net;
  LoraConfig config{.r = 4, .target_modules = {"attn"}};
  config.modules_to_save = {"cross"};
  trained::inject(config, net, "a");
  const graft::StateDict saved = graft::get_peft_model_state_dict(net, "a").clone();
  CHECK(saved.contains("cross.in_proj_weight"));
  CHECK(saved.contains("cross.out_proj.bias"));
  CHECK(graft::state_dict(net).contains("cross.original_module.out_proj.weight"));
  CHECK(graft::state_dict(net).contains("cross.modules_to_save.a.out_proj.weight"));
  MultiheadAttention<float> own(width, 3);
  const auto copy = [](auto& parameter, const graft::TensorView& view) { std::memcpy(parameter.untyped().data(), view.data, view.bytes()); };
  copy(own.in_proj_weight, saved.at("cross.in_proj_weight"));
  copy(own.in_proj_bias, saved.at("cross.in_proj_bias"));
  copy(own.out_proj.weight, saved.at("cross.out_proj.weight"));
  copy(own.out_proj.bias, saved.at("cross.out_proj.bias"));
  const auto h = awkward::rows<float>(4, width), k = awkward::rows<float>(3, width, 2);
  CHECK(same_values(net.cross(h, k, k), own(h, k, k)));
  REQUIRE_FALSE(same_values(net.cross(h, k, k), Net<float>{}.cross(h, k, k)));
  const auto y = net(x);
  (void)graft::merge_and_unload(net);
  CHECK(same_values(net(x), y));
  CHECK(graft::repr(net) == graft::repr(Net<float>{}));
}

TEST_CASE("adapters of an attention are combined and exchanged") {
  const auto x = awkward::rows<double>(5, 7);
  auto net = adapted<double>();
  graft::set_adapter(net, {"a", "b"});
  const auto sum = net(x);
  const auto a = graft::get_peft_model_state_dict(net, "a").clone();
  graft::add_weighted_adapter(net, {"a", "b"}, {1, 1}, "sum");
  graft::set_adapter(net, "sum");
  CHECK(same_values(net(x), sum));
  CHECK(graft::get_peft_model_state_dict(net, "sum").contains("cross.base_layer.out_proj.lora_B.weight"));

  graft::set_adapter(net, "a");
  const auto with = net(x);
  graft::set_adapter(net, "b");
  REQUIRE_FALSE(same_values(net(x), with));
  (void)graft::hotswap_adapter(net, a, both, "b");
  CHECK(same_bits(net(x), with));
}

TEST_CASE("an attention of the user's takes part") {
  OwnNet net;
  const Matrix<double> x = awkward::rows<double>(6, width);
  const auto base = net(x);
  const std::string tree = graft::repr(net);
  CHECK(graft::state_dict(net).keys() == Strings{"attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight"});
  MultiheadAttention<double> plain(width, 5);
  plain.in_proj_weight.view() = net.attn->in_proj_weight;
  plain.in_proj_bias.view() = net.attn->in_proj_bias;
  plain.out_proj.weight.view() = net.attn->out_proj->kernel;
  CHECK(same_values(base, plain(x)));

  trained::inject(LoraConfig{.r = 4, .lora_alpha = 7, .target_modules = {"attn"}}, net, "a");
  CHECK(graft::get_peft_model_state_dict(net, "a").contains("attn.base_layer.out_proj.lora_A.weight"));
  CHECK(graft::repr(net).find("(attn): lora.MultiheadAttention(\n    (base_layer): OwnAttention(\n      (out_proj): lora.Linear(") !=
        std::string::npos);
  const auto product = [&](const auto& site) -> Matrix<double> {
    return 7 / 4.0 * matrix<double>(site, "a", "lora_B") * matrix<double>(site, "a", "lora_A");
  };
  plain.in_proj_weight.view() += product(net.attn);
  plain.out_proj.weight.view() += 2 * product(net.attn->out_proj);
  const auto with = net(x);
  CHECK(same_values(with, plain(x)));
  REQUIRE_FALSE(same_values(with, base));
  graft::Batch batch;
  batch.add(2, graft::base_only()).add(4);
  Matrix<double> apart(6, width);
  apart << OwnNet{}(Matrix<double>(x.topRows(2))), net(Matrix<double>(x.bottomRows(4)));
  CHECK(same_values(Matrix<double>(net(batch.input(x)).value()), apart));
  {
    const auto off = graft::disable_adapter(net);
    CHECK(same_bits(net(x), base));
  }
  (void)graft::merge_and_unload(net);
  CHECK(same_values(net(x), with));
  CHECK(graft::repr(net) == tree);
}

TEST_CASE("a fused matrix takes the adapters of its parts, each into its columns") {
  const Matrix<double> fused = awkward::rows<double>(12, 5, 3), x = awkward::rows<double>(7, 5);
  Parts<graft::dense> apart;
  apart.q_proj->weight.view() = fused.topRows(6);
  apart.k_proj->weight.view() = fused.middleRows(6, 3);
  apart.v_proj->weight.view() = fused.bottomRows(3);
  Parts<graft::mapped> engine;
  engine.q_proj->weight.bind(fused.data());
  engine.k_proj->weight.bind(fused.data() + 6 * 5);
  engine.v_proj->weight.bind(fused.data() + 9 * 5);
  trained::inject(LoraConfig{.r = 2, .lora_alpha = 7, .target_modules = {"q_proj", "v_proj"}}, apart, "a");
  trained::inject(LoraConfig{.r = 2, .lora_alpha = 7, .target_modules = {"q_proj", "v_proj"}}, engine, "a");
  graft::Batch batch;
  batch.add(3, graft::base_only()).add(4);
  Matrix<double> expected(7, 12), y = x * fused.transpose();
  expected << apart.q_proj(x, batch), apart.k_proj(x, batch), apart.v_proj(x, batch);
  REQUIRE_FALSE(same_values(y, expected));
  engine.q_proj.update(batch, x, y.leftCols(6));
  engine.k_proj.update(batch, x, y.middleCols(6, 3));
  engine.v_proj.update(batch, x, y.rightCols(3));
  CHECK(same_values(y, expected));
}
