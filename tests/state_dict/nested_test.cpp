#include <graft/state_dict/nested.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <graft/io.hpp>

#include "support/results.hpp"

// PEFT wrote these adapters of nested methods (tests/data/nested/make.py).

using graft::Index;
using graft::Matrix;

namespace {
namespace fs = std::filesystem;

struct Net {
  graft::Adaptable<graft::Linear<>> a{5, 7};
  graft::Linear<> b{7, 3};
  auto operator()(const auto& x) const { return b(graft::tanh(a(x))); }
  GRAFT_MODULE(a, b)
};

struct Recorded {
  fs::path folder;
  graft::StateDict tensors = graft::safetensors::load_file(folder / "tensors.safetensors");
  Net net{};

  explicit Recorded(const std::string& name) : folder(fs::path(GRAFT_TEST_DATA) / "nested" / name) {
    graft::StateDict base;
    for (const auto& [key, view] : tensors)
      if (key.starts_with("base.")) base.insert(key.substr(5), view);
    (void)graft::set_base_model_state_dict(net, base);
  }
  Matrix<float> input() const {
    return Eigen::Map<const Matrix<float>>(reinterpret_cast<const float*>(tensors.at("input").data), 4, 5);
  }
  Matrix<float> expected(const std::string& name) const {
    const auto* values = reinterpret_cast<const double*>(tensors.at("expected." + name).data);
    return Eigen::Map<const Matrix<double>>(values, 4, 3).cast<float>();
  }
  std::string text(const std::string& name) const {
    std::ifstream file(folder / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
};
const std::vector<std::string> recorded{"lora_around_ia3", "lora_around_feedforward", "dora_around_ia3",
                                        "feedforward_around_lora"};

/// f64 values recorded, f32 computed: graft's tolerance for f32.
void check_all(const Recorded& one, Net& net) {
  REQUIRE_FALSE(results::same_values(one.expected("both"), one.expected("outer")));
  REQUIRE_FALSE(results::same_values(one.expected("both"), one.expected("inner")));
  for (const char* name : {"inner", "outer"}) {
    graft::set_adapter(net, name);
    CHECK(results::same_values(net(one.input()), one.expected(name)));
  }
  for (const auto& order : {std::vector<std::string>{"inner", "outer"}, {"outer", "inner"}}) {
    graft::set_adapter(net, order);
    CHECK(results::same_values(net(one.input()), one.expected("both")));
    graft::Batch batch;
    batch.add(1, graft::select(net, {{order[0]}, {order[1]}})).add(1, graft::base_only()).add(2, graft::select(net, {{"inner"}}));
    const Matrix<float> y = net(batch.input(one.input())).value();
    CHECK(results::same_values(Matrix<float>(y.topRows(1)), Matrix<float>(one.expected("both").topRows(1))));
    CHECK(results::same_values(Matrix<float>(y.bottomRows(2)), Matrix<float>(one.expected("inner").bottomRows(2))));
  }
}

TEST_CASE("nested methods compute what they do in PEFT, whatever is loaded first") {
  for (const std::string& name : recorded) {
    CAPTURE(name);
    for (const auto& order : {std::vector<std::string>{"inner", "outer"}, {"outer", "inner"}}) {
      Recorded one(name);
      for (const std::string& adapter : order) (void)graft::load_adapter(one.net, one.folder / adapter, adapter);
      check_all(one, one.net);
      Net copy = one.net;
      check_all(one, copy);
    }
  }
}

TEST_CASE("the tree, the keys and the files are PEFT's") {
  for (const std::string& name : recorded) {
    CAPTURE(name);
    Recorded one(name);
    for (const char* adapter : {"inner", "outer"}) (void)graft::load_adapter(one.net, one.folder / adapter, adapter);
    CHECK(graft::repr(one.net) + "\n" == one.text("tree.txt"));
    std::string keys;
    for (const std::string& key : graft::state_dict(one.net).keys()) keys += key + "\n";
    CHECK(keys == one.text("keys.txt"));
    const fs::path saved = fs::temp_directory_path() / ("graft-nested-" + name);
    for (const std::string adapter : {"inner", "outer"}) {
      const fs::path file = graft::save_pretrained(one.net, saved, adapter) / "adapter_model.safetensors";
      std::ifstream written(file, std::ios::binary);
      CHECK(std::string(std::istreambuf_iterator<char>(written), {}) == one.text(adapter + "/adapter_model.safetensors"));
    }
    fs::remove_all(saved);
    // the base's own keys are taken with the wrappers in them
    Net other;
    graft::StateDict base;
    for (const auto& [key, view] : graft::state_dict(one.net))
      if (key.find("lora_") == key.npos && key.find("ia3_") == key.npos) base.insert(key, view);
    CHECK(graft::set_base_model_state_dict(other, base).loaded.size() == 4);
  }
}

TEST_CASE("injected first, an adapter goes inside by the keys that are set") {
  Recorded one("lora_around_ia3");
  for (const std::string adapter : {"inner", "outer"})
    (void)graft::inject_adapter_in_model(graft::load_peft_config(one.folder / adapter), one.net, adapter);
  const graft::StateDict inner = graft::load_peft_weights(one.folder / "inner");
  // nothing has moved when the keys do not fit
  graft::StateDict surplus = inner;
  surplus.insert("a.base_layer.lora_Q.weight", inner.begin()->second);
  CHECK_THROWS_AS((void)graft::set_peft_model_state_dict(one.net, surplus, "inner"), graft::StateDictError);
  CHECK(graft::get_peft_model_state_dict(one.net, "inner").keys() == std::vector<std::string>{"a.ia3_l"});
  (void)graft::set_peft_model_state_dict(one.net, inner, "inner");
  (void)graft::set_peft_model_state_dict(one.net, graft::load_peft_weights(one.folder / "outer"), "outer");
  CHECK(graft::get_peft_model_state_dict(one.net, "inner").keys() == std::vector<std::string>{"a.base_layer.ia3_l"});
  check_all(one, one.net);

  // targets from keys with wrappers in them
  Recorded two("lora_around_ia3");
  (void)graft::inject_adapter_in_model(graft::Ia3Config{.target_modules = {"nothing"}}, two.net, "inner", {.state_dict = &inner});
  (void)graft::set_peft_model_state_dict(two.net, inner, "inner");
  CHECK(results::same_values(two.net(two.input()), two.expected("inner")));
}

TEST_CASE("merging keeps the nesting, or says why it cannot") {
  for (const std::string& name : recorded) {
    CAPTURE(name);
    Recorded one(name);
    for (const char* adapter : {"inner", "outer"}) (void)graft::load_adapter(one.net, one.folder / adapter, adapter);
    graft::set_adapter(one.net, {"inner", "outer"});
    Net merged = one.net;
    (void)graft::merge_and_unload(merged);
    CHECK(results::same_values(merged(one.input()), one.expected("both")));
    for (const char* first : {"inner", "outer"}) {
      Net model = one.net;
      try {
        (void)graft::merge_adapter(model, first);
      } catch (const graft::MergeError& error) {
        CHECK_FALSE(error.fix.empty());
        continue;
      }
      CHECK(results::same_values(model(one.input()), one.expected("both")));
    }
  }
  Recorded one("lora_around_ia3");
  for (const char* adapter : {"inner", "outer"}) (void)graft::load_adapter(one.net, one.folder / adapter, adapter);
  graft::set_adapter(one.net, {"inner", "outer"});
  CHECK_THROWS_AS((void)graft::merge_adapter(one.net, "outer"), graft::MergeError);  // would be scaled with the base
  (void)graft::merge_adapter(one.net, "inner");
  CHECK(results::same_values(one.net(one.input()), one.expected("both")));
}

}  // namespace
