#include <doctest/doctest.h>

#include <deque>
#include <fstream>
#include <graft/injection/control.hpp>
#include <graft/injection/disable.hpp>
#include <graft/injection/inject.hpp>
#include <graft/modules/activations.hpp>
#include <graft/modules/conv.hpp>
#include <graft/modules/multihead_attention.hpp>
#include <graft/state_dict/repr.hpp>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

namespace {

using graft::Adaptable;
using graft::LoraConfig;

struct MLP {
  Adaptable<graft::Linear<>> lin0{4, 6}, lin1{6, 3};
  GRAFT_MODULE(lin0, lin1)
};

struct MLPWithAttention : MLP {
  Adaptable<graft::MultiheadAttention<>> m{6, 2};
  GRAFT_MODULE_FROM(MLP, m)
};

struct Block {
  Adaptable<graft::Linear<>> q{4, 4};
  graft::ReLU act;
  GRAFT_MODULE(q, act)
};

struct Net {
  std::vector<Block> layers = std::vector<Block>(4);
  graft::Linear<> head{4, 3};
  GRAFT_MODULE(layers, head)
};

struct Shared {
  std::shared_ptr<Block> first = std::make_shared<Block>(), second = first;
  std::vector<std::shared_ptr<Block>> list{first, first};
  std::shared_ptr<Adaptable<graft::Linear<>>> p = std::make_shared<Adaptable<graft::Linear<>>>(4, 3), p_again = p;
  GRAFT_MODULE(first, second, list, p, p_again)
};

template <class L>
struct One {
  Adaptable<L> m;
  GRAFT_MODULE(m)
};

/// A layer of somebody's that stores (in, out).
struct Conv1D {
  graft::Matrix<> stored = graft::Matrix<>::Zero(5, 7);
  Eigen::VectorXf bias = Eigen::VectorXf::Zero(7);
};

/// And one with a child and options of its own.
struct Gated {
  graft::Linear<> gate{3, 3, false};
  [[nodiscard]] static std::string extra_repr() { return "width=3"; }
  GRAFT_MODULE(gate)
};

struct Parameters {
  graft::Parameter<> scale{graft::Shape{3}};
  GRAFT_MODULE(scale)
};

/// The tree that torch and PEFT print, from data/repr/make.py.
std::string tree(const std::string& name) {
  std::ifstream file(GRAFT_TEST_DATA "/repr/trees.txt");
  std::string line, text;
  while (std::getline(file, line) && line != "@ " + name) {}
  REQUIRE_MESSAGE(file, "trees.txt has no tree " << name);
  while (std::getline(file, line) && !line.starts_with("@ ")) text += (text.empty() ? "" : "\n") + line;
  return text;
}

template <class M, class Config>
void inject(M& model, Config config, graft::TargetModules targets = {"m"}, std::string name = "default", bool meta = false) {
  config.target_modules = std::move(targets);
  graft::inject_adapter_in_model(config, model, std::move(name), {.low_cpu_mem_usage = meta});
}
/// The site of a one-site model with one adapter.
template <class L, class Config>
std::string injected(L layer, Config config, bool meta = false) {
  One<L> model{std::move(layer)};
  inject(model, std::move(config), {"m"}, "default", meta);
  return graft::repr(model.m);
}

LoraConfig lora(int r = 2) { return {.r = r}; }
graft::AdaLoraConfig adalora() { return {.init_r = 3, .target_r = 1}; }
graft::Ia3Config ia3() { return {.feedforward_modules = std::vector<std::string>{}}; }
graft::Ia3Config feedforward() { return {.feedforward_modules = {"m"}}; }

}  // namespace

template <>
struct graft::layer_traits<Conv1D> {
  static constexpr LayerKind kind = LayerKind::linear;
  static constexpr bool transposed = true;
  using scalar = float;
  static Index in_features(const Conv1D& layer) { return layer.stored.rows(); }
  static Index out_features(const Conv1D& layer) { return layer.stored.cols(); }
  static auto weight(auto& layer) { return layer.stored.transpose(); }
  static auto& bias(auto& layer) { return layer.bias; }
  static Matrix<> forward(const Conv1D& layer, const auto& x) { return (x * layer.stored).rowwise() + layer.bias.transpose(); }
};

TEST_CASE("LoRA prints as PEFT's") {
  MLP mlp;
  inject(mlp, lora(), {"lin0"});
  CHECK(graft::repr(mlp) == tree("linear"));
  inject(mlp, LoraConfig{.r = 3, .lora_dropout = 0.5}, {"lin0", "lin1"}, "other");
  CHECK(graft::repr(mlp) == tree("two adapters"));
  CHECK(injected(graft::Linear<>(5, 7, false), LoraConfig{.r = 2, .lora_dropout = 0.1, .lora_bias = true}) ==
        tree("dropout and lora_bias"));
  CHECK(injected(Conv1D{}, lora()) == tree("transposed"));
}

TEST_CASE("LoRA at an embedding shows parameters: their scalar and device too") {
  One<graft::Embedding<>> model{{11, 3, graft::EmbeddingOptions{.padding_idx = 0}}};
  inject(model, lora());
  CHECK(graft::repr(model.m) == tree("embedding"));
  inject(model, lora(4), {"m"}, "other");
  CHECK(graft::repr(model.m) == tree("embedding with two"));
  CHECK(injected(graft::Embedding<double>(11, 3), lora()) == tree("embedding of doubles"));
  CHECK(injected(graft::Embedding<>(11, 3), lora(), true) == tree("embedding on meta"));
}

TEST_CASE("LoRA at a convolution: A has the base's kernel, stride and padding, B its groups") {
  CHECK(injected(graft::Conv1d<>(5, 7, {.kernel = 3}), lora()) == tree("conv1d"));
  CHECK(injected(graft::Conv2d<>(4, 6, {.kernel = {3, 2}, .stride = 2, .padding = {1, 0}, .groups = 2}), lora()) ==
        tree("conv2d with groups"));
  CHECK(injected(graft::Conv2d<>(4, 6, {.kernel = 3, .padding = graft::same, .dilation = 2, .bias = false,
                                        .padding_mode = graft::PaddingMode::reflect}),
                 lora()) == tree("conv2d with same"));
  CHECK(injected(graft::Conv2d<>(4, 6, {.kernel = 3}), LoraConfig{.r = 2, .lora_bias = true}) == tree("conv2d with lora_bias"));
  CHECK(injected(graft::Conv3d<>(5, 7, {.kernel = {3, 1, 2}, .dilation = {1, 2, 1}}), lora()) == tree("conv3d"));
}

TEST_CASE("LoRA at an attention is around its output projection too") {
  One<graft::MultiheadAttention<>> model{{6, 2, false}};
  const One<graft::MultiheadAttention<>> plain = model;
  inject(model, LoraConfig{.r = 2, .lora_dropout = 0.1});
  CHECK(graft::repr(model) == tree("attention"));
  One<graft::MultiheadAttention<>> two = plain;
  inject(two, lora());
  inject(two, lora(4), {"m"}, "b");
  CHECK(graft::repr(two.m) == tree("attention of two"));
  CHECK(graft::repr(One<graft::MultiheadAttention<>>(two).m) == tree("attention of two"));
  One<graft::MultiheadAttention<>> out = plain;
  inject(out, lora(), {"out_proj"});
  CHECK(graft::repr(out.m) == tree("attention whose output projection is a target"));
  MLPWithAttention saved;
  LoraConfig config = lora();
  config.modules_to_save = {"m"};
  inject(saved, config, {"lin0"});
  CHECK(graft::repr(saved.m) == tree("attention that is saved whole"));
}

TEST_CASE("AdaLoRA prints as PEFT's") {
  One<graft::Linear<>> model{{5, 7}};
  inject(model, adalora());
  CHECK(graft::repr(model) == tree("adalora"));
  CHECK(injected(graft::Linear<>(5, 7), adalora(), true) == tree("adalora on meta"));
  CHECK(injected(graft::Conv2d<>(5, 7, {.kernel = {3, 2}}), adalora()) == tree("adalora of conv2d"));
}

TEST_CASE("IA3 prints as PEFT's, without the method's name") {
  CHECK(injected(graft::Linear<>(5, 7), ia3()) == tree("ia3"));
  CHECK(injected(graft::Linear<>(5, 7), feedforward()) == tree("ia3 feedforward"));
  CHECK(injected(graft::Conv2d<>(5, 7, {.kernel = 3}), feedforward()) == tree("ia3 feedforward conv2d"));
  CHECK(injected(graft::Conv3d<>(5, 7, {.kernel = 3}), ia3()) == tree("ia3 conv3d"));
  CHECK(injected(Conv1D{}, feedforward()) == tree("ia3 transposed"));
  One<graft::Linear<>> two{{5, 7}};
  inject(two, ia3());
  inject(two, ia3(), {"m"}, "b");
  CHECK(graft::repr(two.m) == tree("ia3 with two"));
}

TEST_CASE("modules_to_save shows the original and the copies") {
  MLP mlp;
  inject(mlp, LoraConfig{.r = 2, .modules_to_save = {"lin1"}}, {"lin0"});
  CHECK(graft::repr(mlp.lin1) == tree("saved module"));
  inject(mlp, LoraConfig{.r = 2, .modules_to_save = {"lin1"}}, {"lin0"}, "b");
  CHECK(graft::repr(mlp.lin1) == tree("saved module of two"));
}

TEST_CASE("methods at one site are wrapped around each other in the order of injection") {
  One<graft::Linear<>> model{{5, 7}};
  inject(model, lora());
  inject(model, ia3(), {"m"}, "b");
  inject(model, lora(4), {"m"}, "c");
  CHECK(graft::repr(model.m) == tree("lora in ia3 in lora"));
  One<graft::Linear<>> other{{5, 7}};
  inject(other, adalora());
  inject(other, lora(), {"m"}, "b");
  CHECK(graft::repr(other.m) == tree("adalora in lora"));
}

TEST_CASE("a deleted adapter leaves its wrapper, in a copy of the model too") {
  MLP mlp;
  inject(mlp, LoraConfig{.r = 2, .modules_to_save = {"lin1"}}, {"lin0"});
  inject(mlp, lora(3), {"lin0"}, "x");
  graft::delete_adapter(mlp, "default");
  CHECK(graft::repr(mlp) == tree("one deleted"));
  graft::delete_adapter(mlp, "x");
  CHECK(graft::repr(mlp) == tree("all deleted"));
  const MLP copy = mlp;
  CHECK(graft::repr(copy) == tree("all deleted"));
}

TEST_CASE("activation and disabling leave no trace") {
  MLP mlp;
  inject(mlp, lora(), {"lin0"});
  graft::set_adapter(mlp, {});
  CHECK(graft::repr(mlp) == tree("linear"));
  const auto guard = graft::disable_adapter(mlp);
  CHECK(graft::repr(mlp) == tree("linear"));
}

TEST_CASE("an adapter that trains only the bias of a layer leaves it unwrapped") {
  MLP mlp;
  inject(mlp, LoraConfig{.r = 2, .bias = graft::Bias::all}, {"lin0"});
  CHECK(graft::repr(mlp) == tree("linear"));
  graft::delete_adapter(mlp, "default");
  CHECK(graft::repr(mlp.lin1) == "Linear(in_features=6, out_features=3, bias=True)");
}

TEST_CASE("neighbouring equal blocks fold") {
  Net net;
  CHECK(graft::repr(net) == tree("blocks"));
  inject(net, lora(), {"q"});
  CHECK(graft::repr(net) == tree("blocks adapted alike"));
  Net mixed;
  inject(mixed, LoraConfig{.r = 2, .rank_pattern = {{"layers.2.q", 4}}}, {"q"});
  CHECK(graft::repr(mixed) == tree("a block with another rank"));
}

TEST_CASE("what shared pointers reach under several names is printed under all of them, and a layer without its wrapper") {
  Shared shared;
  CHECK(graft::repr(shared) == tree("modules under several names"));
  inject(shared, lora(), {"q", "p"});
  CHECK(graft::repr(shared) == tree("modules under several names adapted"));
}

TEST_CASE("containers print as torch's") {
  using graft::ReLU;
  CHECK(graft::repr(std::tuple<ReLU, ReLU>()) == tree("sequential"));
  using Activation = std::variant<ReLU, graft::Tanh>;
  CHECK(graft::repr(std::vector<Activation>{ReLU{}, ReLU{}, graft::Tanh{}, ReLU{}}) == tree("list"));
  CHECK(graft::repr(std::deque<Activation>{ReLU{}, ReLU{}, graft::Tanh{}, ReLU{}}) == tree("list"));
  CHECK(graft::repr(std::list<std::array<ReLU, 2>>(2)) == tree("list of lists"));
  CHECK(graft::repr(std::map<std::string, ReLU>{{"a", {}}, {"b", {}}}) == tree("map"));
  CHECK(graft::repr(std::vector<ReLU>{}) == "ModuleList()");
  CHECK(graft::repr(std::map<std::string, ReLU>{}) == "ModuleDict()");
}

TEST_CASE("an empty pointer in a list is left out, and does not fold") {
  using graft::ReLU;
  CHECK(graft::repr(std::vector<std::optional<ReLU>>{ReLU{}, std::nullopt, ReLU{}, ReLU{}}) ==
        "ModuleList(\n  (0): ReLU()\n  (2-3): 2 x ReLU()\n)");
}

TEST_CASE("containers of parameters print as torch's; a parameter of a module has no line") {
  using P = graft::Parameter<>;
  CHECK(graft::repr(std::vector<P>(2, P(graft::Shape{2, 3}))) == tree("parameter list"));
  CHECK(graft::repr(std::vector<graft::Parameter<graft::bf16>>(1, graft::Parameter<graft::bf16>(graft::Shape{2, 3}))) ==
        tree("parameter list of one"));
  CHECK(graft::repr(std::map<std::string, Eigen::VectorXd>{{"a", Eigen::VectorXd::Zero(4)}}) == tree("parameter map"));
  CHECK(graft::repr(std::vector<P>{}) == "ParameterList()");
  CHECK(graft::repr(std::map<std::string, P>{}) == "ParameterDict()");
  CHECK(graft::repr(Parameters{}) == "Parameters()");
}

TEST_CASE("layers print their options as torch's") {
  using namespace graft;
  std::string text;
  const auto add = [&](const auto& layer) { text += (text.empty() ? "" : "\n") + repr(layer); };
  add(Linear<>(5, 7));
  add(Linear<>(5, 7, false));
  add(Conv1D{});
  add(Embedding<>(11, 3));
  add(Embedding<>(11, 3, {.padding_idx = -1}));
  add(Embedding<>(11, 3, {.max_norm = 1, .norm_type = 1, .scale_grad_by_freq = true, .sparse = true}));
  add(Conv1d<>(4, 6, {.kernel = 3, .padding = 1}));
  add(Conv2d<>(4, 6, {.kernel = 3, .dilation = {2, 1}, .bias = false, .padding_mode = PaddingMode::circular}));
  add(Conv3d<>(4, 6, {.kernel = {1, 2, 3}, .stride = {3, 2, 1}, .groups = 2, .padding_mode = PaddingMode::replicate}));
  add(LayerNorm<>(4));
  add(LayerNorm<>(4, 1e-6, false));
  add(RMSNorm<>(4));
  add(ReLU{});
  add(SiLU{});
  add(GELU{});
  add(GELU{Gelu::tanh});
  add(Tanh{});
  add(Sigmoid{});
  add(Identity{});
  for (const double p : {0.5, 0.0001, 0.1, 1e-5}) add(Dropout(p));
  CHECK(text == tree("layers"));
}

TEST_CASE("a module's own options stand before its children") {
  CHECK(graft::repr(Gated{}) == "Gated(\n  width=3\n  (gate): Linear(in_features=3, out_features=3, bias=False)\n)");
}
