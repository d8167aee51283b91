#include <graft/state_dict/saved_modules.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include <graft/injection/merge.hpp>
#include <graft/state_dict/load_base.hpp>
#include <graft/state_dict/repr.hpp>
#include <graft/state_dict/status.hpp>

#include "support/results.hpp"
#include "support/trained.hpp"

using graft::Bias;
using graft::LoraConfig;
using graft::StateDict;
using Strings = std::vector<std::string>;

namespace {

using Linear = graft::Adaptable<graft::Linear<>>;
using LayerNorm = graft::Adaptable<graft::LayerNorm<>>;

// the models of tests/data/saved_modules/make.py
struct Side {
  Linear fc{5, 7};
  LayerNorm norm{7};
  auto operator()(const auto& x) const { return norm(fc(x)); }
  GRAFT_MODULE(fc, norm)
};
struct Outer {
  Side side;
  Linear last{7, 3};
  GRAFT_MODULE(side, last)
};
struct Twin {
  std::shared_ptr<Linear> fc = std::make_shared<Linear>(5, 7);
  LayerNorm norm{7};
  std::shared_ptr<Linear> again = fc;
  GRAFT_MODULE(fc, norm, again)
};
struct Experts {
  graft::Adaptable<graft::Parameter<>> w{graft::Shape{4, 5}};
  Linear gate{5, 3};
  GRAFT_MODULE(w, gate)
};

namespace one {
struct Net {
  Linear lin{6, 6};
  Side side;
  GRAFT_MODULE(lin, side)
};
}  // namespace one
namespace nested {
struct Net {
  Linear lin{6, 6};
  Outer outer;
  GRAFT_MODULE(lin, outer)
};
}  // namespace nested
namespace listed {
struct Net {
  Linear lin{6, 6};
  std::tuple<Linear, graft::ReLU, Linear> side{Linear(5, 7), graft::ReLU{}, Linear(7, 7)};
  std::vector<Side> list = std::vector<Side>(2);
  GRAFT_MODULE(lin, side, list)
};
}  // namespace listed
namespace shared {
struct Side {
  std::shared_ptr<Linear> fc = std::make_shared<Linear>(5, 7);
  LayerNorm norm{7};
  GRAFT_MODULE(fc, norm)
};
struct Net {
  Linear lin{6, 6};
  std::shared_ptr<Side> side = std::make_shared<Side>(), other = side;
  std::shared_ptr<Linear> fc_again = side->fc;
  GRAFT_MODULE(lin, side, other, fc_again)
};
}  // namespace shared
namespace shared_inside {
struct Net {
  Linear lin{6, 6};
  Twin side;
  GRAFT_MODULE(lin, side)
};
}  // namespace shared_inside
namespace shared_around {
struct Net {
  Linear lin{6, 6};
  std::shared_ptr<Outer> outer = std::make_shared<Outer>(), again = outer;
  GRAFT_MODULE(lin, outer, again)
};
}  // namespace shared_around
namespace attention {
struct Net {
  Linear lin{6, 6};
  graft::Adaptable<graft::MultiheadAttention<>> m{6, 2};
  GRAFT_MODULE(lin, m)
};
}  // namespace attention
namespace experts {
struct Net {
  Linear lin{6, 6};
  std::shared_ptr<Experts> experts = std::make_shared<Experts>(), again = experts;
  GRAFT_MODULE(lin, experts, again)
};
}  // namespace experts

struct Holder {
  one::Net net;
  GRAFT_MODULE(net)
};

/// What PEFT made of one of them.
struct Case {
  std::string tree;
  Strings memory;
  std::map<std::string, Strings> files;
};
Case recorded(const std::string& name) {
  std::ifstream file(GRAFT_TEST_DATA "/saved_modules/cases.txt");
  Case all;
  Strings* keys = nullptr;
  bool is_here = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("@ ")) {
      if (is_here) break;
      is_here = line == "@ " + name;
    } else if (!is_here) {
      continue;
    } else if (line.starts_with("# ")) {
      keys = line == "# memory" ? &all.memory : &all.files[line.substr(7)];
    } else if (keys) {
      keys->push_back(line);
    } else {
      all.tree += (all.tree.empty() ? "" : "\n") + line;
    }
  }
  return all;
}

LoraConfig lora(graft::TargetModules targets, Strings save = {}, Bias bias = Bias::none) {
  return {.r = 2, .bias = bias, .target_modules = std::move(targets), .modules_to_save = std::move(save)};
}
const LoraConfig of_lin = lora({"lin"}), of_fc = lora({"fc"}), of_side = lora({"lin"}, {"side"});

Strings sorted(Strings keys) {
  std::sort(keys.begin(), keys.end());
  return keys;
}

/// Injects one adapter, or two, and deletes some; then everything is as PEFT had it.
template <class M>
std::unique_ptr<M> made(const std::vector<graft::PeftConfig>& configs, const Strings& deleted = {}) {
  auto net = std::make_unique<M>();
  graft::initialise(*net, 1);
  for (std::size_t i = 0; i < configs.size(); ++i) (void)graft::inject_adapter_in_model(configs[i], *net, i ? "b" : "default");
  for (const std::string& name : deleted) graft::delete_adapter(*net, name);
  return net;
}
template <class M>
void check(const M& net, const std::string& name) {
  CAPTURE(name);
  const Case peft = recorded(name);
  REQUIRE_FALSE(peft.memory.empty());
  CHECK(graft::repr(net) == peft.tree);
  CHECK(graft::state_dict(net).keys() == peft.memory);
  for (const auto& [adapter, keys] : peft.files)
    CHECK(sorted(graft::get_peft_model_state_dict(net, adapter).keys()) == sorted(keys));
}
template <class M>
void check(const std::string& name, const std::vector<graft::PeftConfig>& configs, const Strings& deleted = {}) {
  const auto net = made<M>(configs, deleted);
  check(*net, name);
  check(M(*net), name);  // a copy, whose sites have records of their own
}

/// A tensor full of one value.
graft::TensorView full(const graft::TensorView& like, float value) {
  const auto values = std::make_shared<std::vector<float>>(std::size_t(like.size()), value);
  return {graft::Dtype::f32, like.shape, reinterpret_cast<const std::byte*>(values->data()), values};
}
float first_of(const graft::TensorView& view) { return reinterpret_cast<const float*>(view.data)[0]; }
/// These tensors, each full of its own number, from 1 on.
StateDict numbered(const StateDict& all) {
  StateDict numbers;
  for (const auto& [key, view] : all) numbers.insert(key, full(view, float(numbers.size() + 1)));
  return numbers;
}

}  // namespace

TEST_CASE("a module that is saved whole is one wrapper, in the tree and in keys") {
  check<one::Net>("one adapter", {of_side});
  check<one::Net>("two adapters", {of_side, of_side});
  check<one::Net>("the second saves nothing", {of_side, of_lin});
  check<one::Net>("the first saves nothing", {of_lin, of_side});
  check<one::Net>("all biases", {lora({"lin"}, {"side"}, Bias::all)});
  check<listed::Net>("sequential", {of_side});
  check<listed::Net>("modules of a list", {lora({"lin"}, {"list.0", "list.1"})});
}

TEST_CASE("a deleted adapter leaves its wrapper") {
  check<one::Net>("the first deleted", {of_side, of_side}, {"default"});
  check<one::Net>("both deleted", {of_side, of_side}, {"default", "b"});
  check<one::Net>("layer, then its module, the first deleted", {lora({"lin"}, {"fc"}), of_side}, {"default"});
  check<one::Net>("lora into a saved module, deleted", {of_side, of_fc}, {"b"});
  check<one::Net>("lora into a saved module that is deleted", {of_side, of_fc}, {"default"});
}

TEST_CASE("modules in modules") {
  check<nested::Net>("outer", {lora({"lin"}, {"outer"})});
  check<nested::Net>("inner", {lora({"lin"}, {"outer.side"})});
  check<nested::Net>("inner, then outer", {lora({"lin"}, {"side"}), lora({"lin"}, {"outer"})});
  check<one::Net>("layer, then its module", {lora({"lin"}, {"fc"}), of_side});
}

TEST_CASE("a copy has the adapters of others that stand in the module") {
  check<one::Net>("lora into a saved module", {of_side, of_fc});
  check<one::Net>("a module with lora is saved", {of_fc, of_side});
  check<one::Net>("ia3 into a saved module", {graft::Ia3Config{.target_modules = {"lin"}, .modules_to_save = {"side"}},
                                              graft::Ia3Config{.target_modules = {"lin", "fc"}}});
}

TEST_CASE("an attention that is saved whole is such a module") {
  check<attention::Net>("attention", {lora({"lin"}, {"m"})});
  check<attention::Net>("attention, two adapters", {lora({"lin"}, {"m"}), lora({"lin"}, {"m"})});
  check<attention::Net>("lora into a saved attention", {lora({"lin"}, {"m"}), lora({"out_proj"})});
}

TEST_CASE("modules under several names") {
  const LoraConfig with_biases = lora({"lin"}, {"side"}, Bias::all);
  check(*made<shared::Net>({of_side}), "shared");
  check(*made<shared::Net>({with_biases}), "shared, all biases");
  check(*made<shared_inside::Net>({of_side}), "shared inside");
  check(*made<shared_inside::Net>({with_biases}), "shared inside, all biases");
  check(*made<shared_inside::Net>({of_side, of_side}), "shared inside, two adapters");
  check(*made<shared_around::Net>({of_side}), "shared around");
  check(*made<shared_around::Net>({with_biases}), "shared around, all biases");
  check(*made<experts::Net>({lora({"lin"}, {"experts"}, Bias::all)}), "a module with a parameter");
  LoraConfig of_parameter{.r = 2};
  of_parameter.target_parameters = {"experts.w"};
  check(*made<experts::Net>({of_parameter}), "a shared module's parameter is adapted");
}

TEST_CASE("the wrappers of a model that was put into another stay where they are") {
  const auto net = made<one::Net>({of_side, of_fc});
  const Holder holder{*net};
  Strings keys = graft::state_dict(*net).keys();
  for (std::string& key : keys) key = "net." + key;
  CHECK(graft::state_dict(holder).keys() == keys);
  CHECK(graft::repr(holder.net) == graft::repr(*net));
}

TEST_CASE("a file's tensors go where PEFT puts them") {
  const auto net = made<one::Net>({lora({"lin"}, {"side"}, Bias::all)});
  const StateDict base = graft::get_base_model_state_dict(*net).clone();
  const StateDict file = numbered(graft::get_peft_model_state_dict(*net));
  CHECK(graft::set_peft_model_state_dict(*net, file).warnings.empty());
  const StateDict now = graft::state_dict(*net);
  for (const char* key : {"fc.weight", "fc.bias", "norm.weight", "norm.bias"}) {
    const std::string rest(key);
    CHECK(first_of(now.at("side.modules_to_save.default." + rest)) == first_of(file.at("side." + rest)));
    CHECK(first_of(now.at("side.original_module." + rest)) == first_of(base.at("side." + rest)));
  }
}

TEST_CASE("of a copy's several names the last one counts, and the base's names are not the copy's") {
  const LoraConfig config = lora({"lin"}, {"side"}, Bias::all);
  const auto inside = made<shared_inside::Net>({config});
  StateDict file = numbered(graft::get_peft_model_state_dict(*inside));
  (void)graft::set_peft_model_state_dict(*inside, file);
  for (const char* key : {"weight", "bias"}) {
    const float value = first_of(file.at(std::string("side.again.") + key));
    CHECK(value != first_of(file.at(std::string("side.fc.") + key)));
    for (const char* name : {"fc.", "again."})
      CHECK(first_of(graft::state_dict(*inside).at(std::string("side.modules_to_save.default.") + name + key)) == value);
  }
  const auto outside = made<shared::Net>({config});
  file = numbered(graft::get_peft_model_state_dict(*outside));
  CHECK(graft::set_peft_model_state_dict(*outside, file).warnings.empty());
  for (const char* key : {"fc.bias", "norm.bias"})
    CHECK(first_of(graft::state_dict(*outside).at(std::string("side.modules_to_save.default.") + key)) ==
          first_of(file.at(std::string("side.") + key)));
}

TEST_CASE("a base is loaded by its keys in memory, into a model with adapters or without") {
  const auto net = made<nested::Net>({lora({"lin"}, {"side"}), lora({"lin"}, {"outer"})});
  const Strings bare = graft::get_base_model_state_dict(*net).keys();
  const StateDict copies = graft::get_peft_model_state_dict(*net, "b").clone();
  const StateDict memory = numbered(graft::state_dict(*net));
  CHECK(graft::set_base_model_state_dict(*net, memory, {.strict = false}).loaded == bare);
  const std::string inside = "outer.original_module.side.original_module.fc.weight";
  CHECK(first_of(graft::get_base_model_state_dict(*net).at("outer.side.fc.weight")) == first_of(memory.at(inside)));
  CHECK(results::bytes_of(graft::get_peft_model_state_dict(*net, "b")) == results::bytes_of(copies));

  StateDict wrapped;
  for (const auto& [key, view] : graft::state_dict(*made<nested::Net>({lora({"lin"}, {"outer"})})))
    if (key.find("modules_to_save") == key.npos && key.find("lora_") == key.npos) wrapped.insert(key, full(view, 3));
  REQUIRE(wrapped.contains("outer.original_module.side.fc.weight"));
  for (const auto& into : {made<nested::Net>({}), made<nested::Net>({lora({"lin"}, {"outer"})}), made<nested::Net>({lora({"fc"})})}) {
    CHECK(graft::set_base_model_state_dict(*into, wrapped).loaded.size() == bare.size());
    CHECK(first_of(graft::get_base_model_state_dict(*into).at("outer.side.fc.weight")) == 3);
  }
}

TEST_CASE("an adapter in a module that another saves is loaded by its keys in memory") {
  const auto net = made<one::Net>({of_side, of_fc});
  StateDict memory;
  for (const auto& [key, view] : numbered(graft::state_dict(*net)))
    if (key.find(".b.") != key.npos) memory.insert(key, view);
  REQUIRE(memory.size() == 4);
  const graft::LoadReport report = graft::set_peft_model_state_dict(*net, memory, "b");
  CHECK(report.warnings.size() == 2);  // PEFT's copy has LoRA of its own, and here there is one
  const float last = first_of(memory.at("side.modules_to_save.default.fc.lora_A.b.weight"));
  CHECK(first_of(graft::get_peft_model_state_dict(*net, "b").at("side.fc.lora_A.weight")) == last);
  for (const char* key : {"side.modules_to_save.default.fc.lora_A.b.weight", "side.modules_to_save.default.fc.lora_B.b.weight"})
    memory.erase(key);
  CHECK(graft::set_peft_model_state_dict(*net, memory, "b").warnings.empty());
  memory.insert("side.original_module.norm.weight", memory.begin()->second);
  CHECK_THROWS_AS((void)graft::set_peft_model_state_dict(*net, memory, "b"), graft::StateDictError);
  // nor does what a copy's own adapter calls the original load into the copy
  StateDict own = graft::get_peft_model_state_dict(*net).clone();
  own.insert("side.original_module.fc.weight", own.at("side.fc.weight"));
  REQUIRE(own.erase("side.fc.weight"));
  CHECK_THROWS_AS((void)graft::set_peft_model_state_dict(*net, own), graft::StateDictError);
}

TEST_CASE("merging for good leaves the active copy under the base's keys, unloading the base") {
  for (const std::string name : {"default", "b"}) {
    const auto net = made<one::Net>({of_side, of_side});
    const StateDict file = numbered(graft::get_peft_model_state_dict(*net, "b")), base = graft::get_base_model_state_dict(*net).clone();
    (void)graft::set_peft_model_state_dict(*net, file, name);
    graft::set_adapter(*net, name);
    one::Net unloaded = *net;
    (void)graft::merge_and_unload(*net);
    graft::unload(unloaded);
    for (const auto* model : {&unloaded, net.get()}) {
      CHECK(graft::repr(*model) == graft::repr(one::Net{}));
      CHECK(graft::state_dict(*model).keys() == base.keys());
      CHECK(first_of(graft::state_dict(*model).at("side.fc.weight")) == first_of((model == net.get() ? file : base).at("side.fc.weight")));
    }
  }
}
