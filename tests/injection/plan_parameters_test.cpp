#include <graft/injection/plan_parameters.hpp>

#include <doctest/doctest.h>

#include <graft/graft.hpp>
#include <string>
#include <vector>

using graft::Shape;

namespace {

struct Block {
  graft::Adaptable<graft::Parameter<>> up{Shape{3, 5, 7}};
  graft::Parameter<> scale{Shape{7}};
  graft::Parameter<> plain{Shape{7, 7}};
  graft::Adaptable<graft::TransposedParameter<>> down{Shape{3, 5, 7}};
  graft::Adaptable<graft::Parameter<>> row{Shape{7}};
  GRAFT_MODULE(up, scale, plain, down, row)
};
struct Net {
  graft::Adaptable<graft::Embedding<>> table{11, 7};
  graft::Adaptable<graft::Linear<>> fc{7, 7};
  std::vector<Block> layers = std::vector<Block>(2);
  graft::Linear<> head{7, 3};
  graft::Adaptable<graft::Conv1d<>> conv{7, 7, graft::Conv1dOptions{.kernel = 3}};
  graft::Adapted<graft::Linear<>, graft::Ia3> only_ia3{7, 7};
  GRAFT_MODULE(table, fc, layers, head, conv, only_ia3)
};
struct Root {
  graft::Adaptable<graft::Parameter<>> w{Shape{5, 7}};
  GRAFT_MODULE(w)
};
struct Short {
  graft::Adaptable<graft::Embedding<>> table{11, 7, graft::EmbeddingOptions{.max_norm = 1}};
  GRAFT_MODULE(table)
};

/// A linear layer with a matrix beside its weight.
struct Gated {
  graft::Parameter<> gate{Shape{7, 7}}, weight{Shape{7, 7}};
  auto operator()(const auto& x) const { return graft::linear(x, weight); }
  GRAFT_MODULE(gate, weight)
};
}  // namespace
template <>
struct graft::layer_traits<Gated> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = float;
  static Index in_features(const Gated&) { return 7; }
  static Index out_features(const Gated&) { return 7; }
  static auto weight(auto& layer) { return layer.weight.view(); }
};
namespace {
struct WithGated {
  graft::Adaptable<Gated> layer;
  GRAFT_MODULE(layer)
};

graft::LoraConfig config(std::vector<std::string> parameters) {
  graft::LoraConfig made{.r = 2};
  made.target_parameters = std::move(parameters);
  return made;
}
std::string matched(const graft::LoraConfig& made) {
  Net net;
  std::string all;
  for (const auto& one : graft::inject_adapter_in_model(made, net).matched) all += one.path + ":" + std::to_string(one.r) + " ";
  return all;
}
/// The message of the error that injecting into a fresh model gives.
template <class E, class M = Net>
std::string refused(const graft::LoraConfig& made, const graft::InjectOptions& options = {}) {
  M model;
  try {
    (void)graft::inject_adapter_in_model(made, model, "default", options);
  } catch (const E& error) {
    for (const auto& site : graft::sites_of(model).sites) CHECK(site->table() == nullptr);
    return error.what();
  }
  return "";
}
bool has(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

}  // namespace

TEST_CASE("a name matches a parameter whose path is it or ends with it") {
  CHECK(matched(config({"fc.weight"})) == "fc.weight:2 ");
  CHECK(matched(config({"up"})) == "layers.0.up:2 layers.1.up:2 ");
  CHECK(matched(config({"layers.1.down", "0.up"})) == "layers.0.up:2 layers.1.down:2 ");
  CHECK(matched(config({"table.weight"})) == "table.weight:2 ");
  auto made = config({"up", "fc.weight"});
  made.rank_pattern = {{"up", 3}, {"fc", 5}};  // a pattern means the parameter's path, not its module's
  CHECK(matched(made) == "fc.weight:2 layers.0.up:3 layers.1.up:3 ");
  made = config({"up"});
  made.target_modules = {"fc"};
  made.exclude_modules = {"layers"};  // of modules alone
  CHECK(matched(made) == "fc:2 layers.0.up:2 layers.1.up:2 ");
}

TEST_CASE("a stack's sizes are reported as adapters see them") {
  Net net;
  const auto report = graft::inject_adapter_in_model(config({"0.down"}), net);
  REQUIRE(report.matched.size() == 1);
  CHECK(report.matched[0].kind == graft::LayerKind::parameter);
  CHECK(report.matched[0].in == 5);
  CHECK(report.matched[0].out == 7);
  CHECK(net.layers[0].down.parameter("default", "lora_A").shape() == std::vector<graft::Index>{6, 5});
  CHECK(net.layers[0].down.parameter("default", "lora_B").shape() == std::vector<graft::Index>{7, 6});
}

TEST_CASE("parameters are no modules") {
  auto made = config({});
  made.target_modules = {"up"};
  CHECK(has(refused<graft::TargetError>(made), "no module matches"));
  made.target_modules = graft::all_linear;
  CHECK(matched(made) == "fc:2 ");
}

TEST_CASE("idle names are reported, and alone an error") {
  Net net;
  const auto report = graft::inject_adapter_in_model(config({"upp", "fc.weight"}), net);
  CHECK(report.unmatched_targets == std::vector<std::string>{"upp"});
  CHECK(has(refused<graft::TargetError>(config({"fc.weigth"})), "did you mean fc.weight"));
  CHECK(has(refused<graft::TargetError>(config({"upp", "fc.weight"}), {.strict_targets = true}), "match no parameter"));
  auto made = config({"upp"});
  made.target_modules = std::vector<std::string>{};
  CHECK(has(refused<graft::TargetError>(made), "no parameter matches"));
  made.target_modules = {"fc"};
  Net other;
  CHECK(graft::inject_adapter_in_model(made, other).warnings.size() == 1);
  made = config({"up"});
  made.target_modules = {"nothing"};
  Net third;
  CHECK(graft::inject_adapter_in_model(made, third).warnings.size() == 1);
}

TEST_CASE("what cannot be adapted is refused before anything changes") {
  CHECK(has(refused<graft::TargetError>(config({"0.up", "fc.bias"})), "has 1 dimension"));
  CHECK(has(refused<graft::TargetError>(config({"0.up", "scale"})), "has 1 dimension"));
  CHECK(has(refused<graft::TargetError>(config({"0.up", "row"})), "has 1 dimension"));
  CHECK(has(refused<graft::TargetError>(config({"0.up", "plain"})), "Adaptable<graft::Parameter"));
  CHECK(has(refused<graft::TargetError>(config({"0.up", "head.weight"})), "graft::Adaptable<Linear"));
  CHECK(has(refused<graft::TargetError>(config({"0.up", "conv.weight"})), "convolution"));
  CHECK(has(refused<graft::TargetError>(config({"0.up", "only_ia3.weight"})), "no room for LORA"));
  CHECK(has(refused<graft::TargetError, Root>(config({"w"})), "the model itself"));
  CHECK(has(refused<graft::TargetError, WithGated>(config({"layer.gate"})), "not the weight"));
  WithGated gated;
  CHECK(graft::inject_adapter_in_model(config({"layer.weight"}), gated).matched.at(0).path == "layer.weight");
  CHECK(has(refused<graft::TargetError, Short>(config({"table.weight"})), "max_norm"));
}

TEST_CASE("options that mean nothing to a parameter are refused") {
  const auto with = [](auto change) {
    auto made = config({"up"});
    change(made);
    return refused<graft::ConfigError>(made);
  };
  CHECK(has(with([](auto& made) { made.lora_dropout = 0.1; }), "'lora_dropout'"));
  CHECK(has(with([](auto& made) { made.fan_in_fan_out = true; }), "'fan_in_fan_out'"));
  CHECK(has(with([](auto& made) { made.lora_bias = true; }), "'lora_bias'"));
  CHECK(has(with([](auto& made) { made.use_dora = true; }), "'use_dora'"));
  CHECK(has(with([](auto& made) { made.init_lora_weights = "eva"; }), "\"eva\""));
  const graft::StateDict keys;
  CHECK(has(refused<graft::ConfigError>(config({"up"}), {.state_dict = &keys}), "state dict"));
  // where no parameter is taken, they are the modules' own
  auto made = config({"nothing"});
  made.target_modules = {"fc"};
  made.lora_dropout = 0.1;
  CHECK(matched(made) == "fc:2 ");
}

TEST_CASE("a layer is adapted as a module or by its weight") {
  auto made = config({"fc.weight"});
  made.target_modules = {"fc"};
  CHECK(has(refused<graft::TargetError>(made), "one of the target modules"));
  made = config({"up"});
  made.modules_to_save = {"layers.0"};
  CHECK(refused<graft::TargetError>(made) != "");

  Net net;
  auto module = config({});
  module.target_modules = {"fc"};
  (void)graft::inject_adapter_in_model(module, net, "module");
  CHECK_THROWS_AS((void)graft::inject_adapter_in_model(config({"fc.weight"}), net, "weight"), graft::TargetError);
  graft::delete_adapter(net, "module");
  CHECK_NOTHROW((void)graft::inject_adapter_in_model(config({"fc.weight"}), net, "weight"));
  CHECK_NOTHROW((void)graft::inject_adapter_in_model(module, net, "module"));  // PEFT adds it to the parameter's wrapper
}

TEST_CASE("all adapters of a model target the same parameters") {
  Net net;
  (void)graft::inject_adapter_in_model(config({"up", "down"}), net, "a");
  CHECK_THROWS_AS((void)graft::inject_adapter_in_model(config({"up"}), net, "b"), graft::ConfigError);
  CHECK_NOTHROW((void)graft::inject_adapter_in_model(config({"down", "up"}), net, "b"));
  graft::delete_adapter(net, "b");
  CHECK_NOTHROW((void)graft::inject_adapter_in_model(config({"up"}), net, "a", {.replace = true}));
}

TEST_CASE("the first parameter of a module is the innermost, whatever the config's order") {
  Net net;
  (void)graft::inject_adapter_in_model(config({"down", "up"}), net);
  const auto depth = [](const auto& model, const char* path) {
    for (const auto& site : graft::sites_of(model).sites)
      if (site->path() == path) return int(site->table()->entries[0].depth());
    return -1;
  };
  CHECK(depth(net, "layers.0.up") == 1);
  CHECK(depth(net, "layers.0.down") == 0);
  CHECK(depth(net, "layers.1.up") == 1);
}
