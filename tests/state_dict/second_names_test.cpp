#include <graft/state_dict/second_names.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <memory>

#include <graft/state_dict/hotswap.hpp>
#include <graft/state_dict/load.hpp>

#include "support/results.hpp"
#include "support/trained.hpp"

using graft::Bias;
using graft::LoraConfig;
using graft::StateDict;
using Strings = std::vector<std::string>;
using Linear = graft::Adaptable<graft::Linear<>>;

namespace {

struct Inner {
  Linear up{5, 7}, down{7, 5};
  auto operator()(const auto& x) const { return down(up(x)); }
  GRAFT_MODULE(up, down)
};
/// As in Python: `self.second = self.first`, `self.q = self.p`.
struct Net {
  std::shared_ptr<Inner> first = std::make_shared<Inner>(), second = first;
  Linear alone{5, 5};
  std::shared_ptr<Linear> p = std::make_shared<Linear>(5, 5), q = p;
  auto operator()(const auto& x) const { return (*q)((*p)((*second)((*first)(alone(x))))); }
  GRAFT_MODULE(first, second, alone, p, q)
};
/// Without room, and shared as a whole: what is inside has four names.
struct Pair {
  std::shared_ptr<graft::Linear<>> a = std::make_shared<graft::Linear<>>(3, 3), b = a;
  GRAFT_MODULE(a, b)
};
struct Twice {
  std::shared_ptr<Pair> x = std::make_shared<Pair>();
  Linear site{3, 3};
  std::shared_ptr<Pair> y = x;
  GRAFT_MODULE(x, site, y)
};

const LoraConfig of_targets{.r = 2, .lora_alpha = 4, .bias = Bias::all, .target_modules = {"up", "p"}};
const LoraConfig of_copy{.r = 2, .bias = Bias::all, .target_modules = {"alone"}, .modules_to_save = {"down"}};

template <class M = Net>
std::unique_ptr<M> made(const LoraConfig& config) {
  auto net = std::make_unique<M>();
  graft::initialise(*net, 1);
  (void)graft::inject_adapter_in_model(config, *net);
  trained::fill(*net, "default");
  return net;
}
Strings sorted(Strings keys) {
  std::sort(keys.begin(), keys.end());
  return keys;
}
/// A tensor full of one value.
graft::TensorView full(const graft::TensorView& like, float value) {
  const auto values = std::make_shared<std::vector<float>>(std::size_t(like.size()), value);
  return {graft::Dtype::f32, like.shape, reinterpret_cast<const std::byte*>(values->data()), values};
}
float first_of(const graft::TensorView& view) { return reinterpret_cast<const float*>(view.data)[0]; }
StateDict without(StateDict all, std::initializer_list<const char*> keys) {
  for (const char* key : keys) REQUIRE(all.erase(key));
  return all;
}
StateDict backwards(const StateDict& all) {
  StateDict other;
  for (auto entry = all.end(); entry != all.begin();) other.insert(*--entry);
  return other;
}

// what torch 2.13 and PEFT 0.21.2 write of this model
const Strings base_keys{"first.up.weight",   "first.up.bias",   "first.down.weight",  "first.down.bias", "second.up.weight",
                        "second.up.bias",    "second.down.weight", "second.down.bias", "alone.weight",    "alone.bias",
                        "p.weight",          "p.bias",          "q.weight",           "q.bias"};
const Strings target_memory_keys{
    "first.up.base_layer.weight",      "first.up.base_layer.bias",       "first.up.lora_A.default.weight",
    "first.up.lora_B.default.weight",  "first.down.weight",              "first.down.bias",
    "second.up.base_layer.weight",     "second.up.base_layer.bias",      "second.up.lora_A.default.weight",
    "second.up.lora_B.default.weight", "second.down.weight",             "second.down.bias",
    "alone.weight",                    "alone.bias",                     "p.base_layer.weight",
    "p.base_layer.bias",               "p.lora_A.default.weight",        "p.lora_B.default.weight",
    "q.weight",                        "q.bias"};
const Strings target_file_keys{
    "alone.bias",        "first.down.bias", "first.up.base_layer.bias", "first.up.lora_A.weight", "first.up.lora_B.weight",
    "p.base_layer.bias", "p.lora_A.weight", "p.lora_B.weight",          "q.bias",                 "second.down.bias",
    "second.up.base_layer.bias"};
const Strings copy_memory_keys{"first.up.weight",
                               "first.up.bias",
                               "first.down.original_module.weight",
                               "first.down.original_module.bias",
                               "first.down.modules_to_save.default.weight",
                               "first.down.modules_to_save.default.bias",
                               "second.up.weight",
                               "second.up.bias",
                               "second.down.original_module.weight",
                               "second.down.original_module.bias",
                               "second.down.modules_to_save.default.weight",
                               "second.down.modules_to_save.default.bias",
                               "alone.base_layer.weight",
                               "alone.base_layer.bias",
                               "alone.lora_A.default.weight",
                               "alone.lora_B.default.weight",
                               "p.weight",
                               "p.bias",
                               "q.weight",
                               "q.bias"};
const Strings copy_file_keys{"alone.base_layer.bias",
                             "alone.lora_A.weight",
                             "alone.lora_B.weight",
                             "first.down.bias",
                             "first.down.modules_to_save.bias",
                             "first.down.original_module.bias",
                             "first.down.weight",
                             "first.up.bias",
                             "p.bias",
                             "q.bias",
                             "second.down.modules_to_save.bias",
                             "second.down.original_module.bias",
                             "second.up.bias"};

}  // namespace

TEST_CASE("a module under two names is written under both, as torch and PEFT write it") {
  const auto targets = made(of_targets), copy = made(of_copy);
  CHECK(graft::state_dict(Net{}).keys() == base_keys);
  CHECK(graft::get_base_model_state_dict(*targets).keys() == base_keys);
  CHECK(graft::get_base_model_state_dict(*copy).keys() == base_keys);
  CHECK(graft::state_dict(*targets).keys() == target_memory_keys);
  CHECK(graft::state_dict(*copy).keys() == copy_memory_keys);
  const StateDict of_file = graft::get_peft_model_state_dict(*targets);
  CHECK(sorted(of_file.keys()) == target_file_keys);
  CHECK(of_file.at("q.bias").data == of_file.at("p.base_layer.bias").data);
  CHECK(sorted(graft::get_peft_model_state_dict(*copy).keys()) == copy_file_keys);
}

TEST_CASE("an adapter's own matrices, and the biases of its targets alone, stand under the first name") {
  LoraConfig config = of_targets;
  config.bias = Bias::lora_only;
  CHECK(sorted(graft::get_peft_model_state_dict(*made(config)).keys()) ==
        Strings{"first.up.base_layer.bias", "first.up.lora_A.weight", "first.up.lora_B.weight", "p.base_layer.bias", "p.lora_A.weight",
                "p.lora_B.weight"});
  config.bias = Bias::none;
  CHECK(sorted(graft::get_peft_model_state_dict(*made(config)).keys()) ==
        Strings{"first.up.lora_A.weight", "first.up.lora_B.weight", "p.lora_A.weight", "p.lora_B.weight"});
}

TEST_CASE("a strict load takes all of it, or each tensor under one of its names") {
  for (const LoraConfig& config : {of_targets, of_copy})
    for (const bool meta : {false, true}) {
      const StateDict saved = graft::get_peft_model_state_dict(*made(config)).clone();
      Net net;
      graft::initialise(net, 1);
      (void)graft::inject_adapter_in_model(config, net, "default", {.low_cpu_mem_usage = meta});
      const graft::LoadReport report = graft::set_peft_model_state_dict(net, saved, "default", {.low_cpu_mem_usage = meta});
      CHECK(report.warnings.empty());
      CHECK(results::bytes_of(graft::get_peft_model_state_dict(net)) == results::bytes_of(saved));
    }
  const StateDict saved = graft::get_peft_model_state_dict(*made(of_targets)).clone();
  Net net;
  (void)graft::inject_adapter_in_model(of_targets, net);
  CHECK_NOTHROW((void)graft::set_peft_model_state_dict(net, without(saved, {"q.bias", "second.down.bias"})));
  CHECK_NOTHROW((void)graft::set_peft_model_state_dict(net, without(saved, {"p.base_layer.bias", "first.down.bias"})));
  CHECK(results::bytes_of(graft::get_peft_model_state_dict(net)) == results::bytes_of(saved));
  CHECK_THROWS_AS((void)graft::set_peft_model_state_dict(net, without(saved, {"p.base_layer.bias", "q.bias"})), graft::StateDictError);
  StateDict more = saved;
  more.insert("q.base_layer.bias", saved.at("q.bias"));
  CHECK_THROWS_AS((void)graft::set_peft_model_state_dict(net, more), graft::StateDictError);
  more = without(more, {"q.base_layer.bias"});
  more.insert("r.bias", saved.at("q.bias"));
  CHECK_THROWS_AS((void)graft::set_peft_model_state_dict(net, more), graft::StateDictError);
}

TEST_CASE("where the names of a tensor hold other values the last one in the model counts, in whatever order they come") {
  StateDict saved = graft::get_peft_model_state_dict(*made(of_targets)).clone();
  for (const char* first : {"first.down.bias", "first.up.base_layer.bias", "p.base_layer.bias"}) saved.insert(first, full(saved.at(first), 1));
  for (const char* second : {"second.down.bias", "second.up.base_layer.bias", "q.bias"}) saved.insert(second, full(saved.at(second), 2));
  for (const StateDict& all : {saved, backwards(saved)}) {
    const auto net = made(of_targets);
    const graft::LoadReport report = graft::set_peft_model_state_dict(*net, all);
    REQUIRE(report.warnings.size() == 3);
    for (const char* key : {"second.down.bias", "second.up.base_layer.bias", "q.bias"})
      CHECK(std::count_if(report.warnings.begin(), report.warnings.end(), [&](const std::string& warning) {
              return warning.find(std::string(": '") + key + "'") != std::string::npos;
            }) == 1);
    const StateDict now = graft::state_dict(*net);
    for (const char* key : {"first.down.bias", "first.up.base_layer.bias", "p.base_layer.bias", "q.bias"}) CHECK(first_of(now.at(key)) == 2);
  }
}

TEST_CASE("the second name of a layer that is saved whole is the base's") {
  const LoraConfig config{.r = 2, .bias = Bias::all, .target_modules = {"alone"}, .modules_to_save = {"p"}};
  const auto net = made(config);
  StateDict saved = graft::get_peft_model_state_dict(*net).clone();
  const Strings of_p{"p.bias", "p.modules_to_save.bias", "p.original_module.bias", "p.weight", "q.bias"};  // PEFT's own
  Strings written;
  for (const std::string& key : sorted(saved.keys()))
    if (key.starts_with("p.") || key.starts_with("q.")) written.push_back(key);
  CHECK(written == of_p);
  for (std::size_t i = 0; i < of_p.size(); ++i) saved.insert(of_p[i], full(saved.at(of_p[i]), float(i)));
  for (const StateDict& all : {saved, backwards(saved)}) {
    CHECK(graft::set_peft_model_state_dict(*net, all).warnings.empty());
    CHECK(first_of(graft::state_dict(*net).at("p.modules_to_save.default.bias")) == 0);
  }
}

TEST_CASE("a base state dict of torch's or PEFT's loads strictly") {
  const auto net = made(of_copy);
  StateDict base = graft::get_base_model_state_dict(*net).clone();
  for (const auto& [key, view] : base) base.insert(key, full(view, key.starts_with("second") || key.starts_with("q") ? 4 : 3));
  // of the copy under its second name PEFT takes this for the base's
  base.insert("second.down.modules_to_save.default.bias", full(base.at("second.down.bias"), 9));
  const graft::LoadReport report = graft::set_base_model_state_dict(*net, backwards(base));
  CHECK(report.warnings.front() == "'second.down.modules_to_save.default.bias' is an adapter's and was left out");
  CHECK(report.warnings.size() == 7);
  const StateDict now = graft::get_base_model_state_dict(*net);
  for (const auto& [key, view] : now) CHECK(first_of(view) == (key.starts_with("alone") ? 3 : 4));
  CHECK(first_of(graft::get_peft_model_state_dict(*net).at("first.down.bias")) != 9);
  CHECK_NOTHROW((void)graft::set_base_model_state_dict(*net, graft::state_dict(*net).clone(), {.strict = false}));
  base.insert("second.bias", base.at("q.bias"));
  CHECK_THROWS_AS((void)graft::set_base_model_state_dict(*net, base), graft::StateDictError);
}

TEST_CASE("an adapter is exchanged from a state dict that has both") {
  const auto net = made(of_targets);
  StateDict next = graft::get_peft_model_state_dict(*net).clone();
  next.insert("p.lora_A.weight", full(next.at("p.lora_A.weight"), 7));
  CHECK_NOTHROW((void)graft::hotswap_adapter(*net, next, of_targets));
  CHECK(first_of(graft::get_peft_model_state_dict(*net).at("p.lora_A.weight")) == 7);
}

TEST_CASE("what is shared inside of what is shared has a name for every path") {
  const LoraConfig config{.r = 2, .bias = Bias::all, .target_modules = {"site"}};
  const auto net = made<Twice>(config);
  const Strings names{"x.a", "x.b", "y.a", "y.b"};
  CHECK(graft::get_base_model_state_dict(*net).keys() == Strings{"x.a.weight", "x.a.bias", "x.b.weight", "x.b.bias", "site.weight",
                                                                 "site.bias", "y.a.weight", "y.a.bias", "y.b.weight", "y.b.bias"});
  StateDict saved = graft::get_peft_model_state_dict(*net).clone();
  for (std::size_t last = 0; last < names.size(); ++last) {
    for (std::size_t i = 0; i < names.size(); ++i) saved.insert(names[i] + ".bias", full(saved.at("x.a.bias"), float(i)));
    StateDict some = saved;
    for (std::size_t i = last + 1; i < names.size(); ++i) REQUIRE(some.erase(names[i] + ".bias"));
    for (const StateDict& all : {some, backwards(some)}) {
      (void)graft::set_peft_model_state_dict(*net, all);
      CHECK(first_of(graft::state_dict(*net).at("x.a.bias")) == float(last));
    }
  }
}
