#include <graft/state_dict/load.hpp>

#include <doctest/doctest.h>

#include "support/loaded_net.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"
#include "support/tree_model.hpp"

using graft::LoraConfig;
using graft::Matrix;
using graft::StateDict;
using graft::TensorView;
using loaded::Net;
using results::bytes_of;
using results::everything;
using Strings = std::vector<std::string>;

namespace {

const LoraConfig& config = loaded::config;
const std::vector<int>& ids = loaded::ids;

/// A head of the embedding's shape, and what has another.
struct Tied {
  graft::Embedding<> plain{5, 3};
  graft::Adaptable<graft::Linear<>> p{3, 4}, lm_head{3, 5};
  GRAFT_MODULE(plain, p, lm_head)
};

Net made(bool meta = false) {
  Net net;
  awkward::fill<float>(net.embed->weight.untyped(), 1);
  awkward::fill<float>(net.p->weight.untyped(), 2);
  awkward::fill<float>(net.head->weight.untyped(), 3);
  (void)graft::inject_adapter_in_model(config, net, "default", {.low_cpu_mem_usage = meta});
  return net;
}
StateDict saved() {
  Net net = made();
  trained::fill(net, "default");
  return graft::get_peft_model_state_dict(net).clone();
}
StateDict renamed(const StateDict& all, auto rename) {
  StateDict other;
  for (const auto& [key, view] : all) other.insert(rename(key), view);
  return other;
}
/// Its keys without those that PEFT writes a second time.
Strings own_keys(const StateDict& all) {
  Strings keys = all.keys();
  keys.resize(keys.size() - 2);
  return keys;
}
template <class E>
std::string refused(const StateDict& state_dict, const graft::LoadOptions& options = {},
                    const std::string& name = "default") {
  for (const bool meta : {false, true}) {
    Net net = made(meta);
    const std::string before = everything(net);
    try {
      (void)graft::set_peft_model_state_dict(net, state_dict, name, options);
      return "accepted";
    } catch (const E& error) {
      CHECK(everything(net) == before);
      CHECK_FALSE(error.fix.empty());
      if (meta) return error.what();
    }
  }
  return {};
}
bool has(const std::string& text, std::string_view part) {
  if (text.find(part) == std::string::npos) MESSAGE(text);
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("an adapter's keys are PEFT's: base_layer.bias of targets, plain keys of copies and other biases") {
  CHECK(saved().keys() == Strings{"embed.lora_embedding_A", "embed.lora_embedding_B", "p.base_layer.bias",
                                  "p.lora_A.weight", "p.lora_B.weight", "head.weight", "head.bias",
                                  "norm.bias", "head.original_module.bias", "head.modules_to_save.bias"});
}

TEST_CASE("bare, prefixed and in-memory keys load alike, and the caller's dictionary is not changed") {
  const StateDict all = saved();
  const std::string before = bytes_of(all);
  Net reference = made();
  (void)graft::set_peft_model_state_dict(reference, all);
  const StateDict prefixed = renamed(all, [](const std::string& key) { return "base_model.model." + key; });
  const StateDict memory = renamed(all, [](const std::string& key) {
    if (key == "p.lora_A.weight") return std::string("p.lora_A.default.weight");
    if (key == "embed.lora_embedding_B") return std::string("embed.lora_embedding_B.default");
    if (key == "head.weight") return std::string("head.modules_to_save.default.weight");
    return key;
  });
  for (const StateDict* one : {&prefixed, &memory})
    for (const bool meta : {false, true}) {
      Net net = made(meta);
      const auto report = graft::set_peft_model_state_dict(net, *one, "default", {.low_cpu_mem_usage = meta});
      CHECK(report.loaded == own_keys(all));
      CHECK(report.missing_keys.empty());
      CHECK(report.unexpected_keys.empty());
      CHECK(report.cast_keys.empty());
      CHECK(results::same_bits(net(ids), reference(ids)));
      CHECK(bytes_of(graft::get_peft_model_state_dict(net)) == before);
    }
  CHECK(bytes_of(all) == before);
}

TEST_CASE("what PEFT writes beside an adapter's own keys is accepted by a strict load") {
  StateDict all = saved();
  Net net = made();
  CHECK(graft::set_peft_model_state_dict(net, all).unexpected_keys.empty());
  // an embedding that is a target is saved whole, and loaded over the base
  const Matrix<float> table = awkward::rows<float>(5, 3, 9);
  all.insert(
      "embed.base_layer.weight",
      TensorView{graft::Dtype::f32, {5, 3}, reinterpret_cast<const std::byte*>(table.data()), nullptr});
  CHECK(graft::set_peft_model_state_dict(net, all).unexpected_keys.empty());
  CHECK(results::same_bits(Matrix<float>(net.embed->weight.view()), table));
}

TEST_CASE("embeddings and heads that were saved whole beside an adapter go over the base, as in PEFT") {
  Tied net;
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"p"}}, net);
  StateDict all = graft::get_peft_model_state_dict(net).clone();
  const Matrix<float> table = awkward::rows<float>(5, 3, 9), other = awkward::rows<float>(4, 3, 8);
  const auto view = [](const Matrix<float>& values) {
    return TensorView{graft::Dtype::f32, {values.rows(), values.cols()}, reinterpret_cast<const std::byte*>(values.data()),
                      nullptr};
  };
  all.insert("plain.weight", view(table));
  all.insert("base_model.model.lm_head.weight", view(table));
  const auto report = graft::set_peft_model_state_dict(net, all);
  CHECK(report.unexpected_keys.empty());
  CHECK(tree::mentions(report.warnings, "'plain.weight'"));
  CHECK(tree::mentions(report.warnings, "'lm_head.weight'"));
  CHECK(results::same_bits(Matrix<float>(net.plain.weight.view()), table));
  CHECK(results::same_bits(Matrix<float>(net.lm_head->weight.view()), table));
  const std::string before = everything(net);
  StateDict grown = all, foreign = all;
  TensorView larger = view(other);
  larger.shape = {6, 2};
  grown.insert("plain.weight", larger);  // a vocabulary that grew in Python
  CHECK_THROWS_WITH_AS(graft::set_peft_model_state_dict(net, grown), doctest::Contains("'plain.weight' is (6, 2), expected (5, 3)"),
                       graft::StateDictError);
  foreign.insert("p.weight", view(other));
  CHECK_THROWS_WITH_AS(graft::set_peft_model_state_dict(net, foreign), doctest::Contains("p.weight"), graft::StateDictError);
  CHECK(everything(net) == before);
}

TEST_CASE("missing, unexpected and mismatched keys: errors that name them, or entries of the report") {
  StateDict missing = saved(), surplus = saved(), mismatched = saved();
  missing.erase("p.lora_B.weight");
  surplus.insert("p.lora_C.weight", surplus.at("p.lora_A.weight"));
  TensorView wrong = mismatched.at("p.lora_A.weight");
  wrong.shape = {1, 6};
  mismatched.insert("p.lora_A.weight", wrong);
  CHECK(has(refused<graft::StateDictError>(missing), "p.lora_B.weight"));
  CHECK(has(refused<graft::StateDictError>(surplus), "p.lora_C.weight"));
  for (const bool strict : {true, false}) {
    const std::string text = refused<graft::StateDictError>(mismatched, {.strict = strict});
    CHECK(has(text, "p.lora_A.weight"));
    CHECK(has(text, "1, 6"));
    CHECK(has(text, "2, 3"));
  }
  CHECK(has(refused<graft::StateDictError>(mismatched, {.ignore_mismatched_sizes = true}), "missing"));
  StateDict all_wrong;
  for (auto [key, view] : saved()) {
    view.shape.insert(view.shape.begin(), 1);
    all_wrong.insert(key, view);
  }
  const std::string many = refused<graft::StateDictError>(all_wrong);
  CHECK(has(many, "'p.lora_B.weight' is (1, 3, 2), expected (3, 2)"));
  CHECK(has(many, "and 3 more"));
  StateDict deep = saved();  // more dimensions than a Shape has room for
  wrong.shape = {1, 1, 1, 1, 1, 2, 3};
  deep.insert("p.lora_A.weight", wrong);
  CHECK(has(refused<graft::StateDictError>(deep), "'p.lora_A.weight' is (1, 1, 1, 1, 1, 2, 3), expected (2, 3)"));
  Net net = made();
  const Matrix<float> a = net.p.parameter("default", "lora_A").view<float>();
  auto report = graft::set_peft_model_state_dict(net, mismatched, "default",
                                                 {.strict = false, .ignore_mismatched_sizes = true});
  CHECK(report.mismatched_keys == Strings{"p.lora_A.weight"});
  CHECK(report.missing_keys == Strings{"p.lora_A.weight"});
  CHECK(report.loaded.size() == 7);
  CHECK(results::same_bits(a, Matrix<float>(net.p.parameter("default", "lora_A").view<float>())));
  report = graft::set_peft_model_state_dict(net, surplus, "default", {.strict = false});
  CHECK(report.unexpected_keys == Strings{"p.lora_C.weight"});
  report = graft::set_peft_model_state_dict(net, missing, "default", {.strict = false});
  CHECK(report.missing_keys == Strings{"p.lora_B.weight"});
}

TEST_CASE("two keys for one tensor, integers, meta tensors and unknown adapters are errors") {
  StateDict twice = saved(), integers = saved(), meta = saved();
  twice.insert("base_model.model.p.lora_A.weight", twice.at("p.lora_A.weight"));
  CHECK(has(refused<graft::StateDictError>(twice), "two keys"));
  TensorView view = integers.at("norm.bias");
  view.dtype = graft::Dtype::i32;
  integers.insert("norm.bias", view);
  CHECK(has(refused<graft::StateDictError>(integers), "norm.bias"));
  view = meta.at("p.lora_A.weight");
  view.data = nullptr;
  meta.insert("p.lora_A.weight", view);
  CHECK(has(refused<graft::MetaError>(meta), "p.lora_A.weight"));
  CHECK(has(refused<graft::AdapterError>(saved(), {}, "other"), "'other'"));
  CHECK(has(refused<graft::AdapterError>(saved(), {}, ""), "''"));
}

TEST_CASE("other dtypes are cast, which the report says") {
  StateDict doubles;
  const StateDict all = saved();
  std::vector<std::vector<double>> values;
  for (const auto& [key, view] : all) {
    std::vector<double>& own = values.emplace_back();
    for (graft::Index i = 0; i < view.size(); ++i)
      own.push_back(double(reinterpret_cast<const float*>(view.data)[i]));
    doubles.insert(key,
                   {graft::Dtype::f64, view.shape, reinterpret_cast<const std::byte*>(own.data()), nullptr});
  }
  Net net = made();
  const auto report = graft::set_peft_model_state_dict(net, doubles);
  CHECK(report.cast_keys == own_keys(all));
  CHECK(bytes_of(graft::get_peft_model_state_dict(net)) == bytes_of(all));
}

TEST_CASE("loading takes views that have an owner over, and copies the others") {
  const StateDict owned = saved();
  StateDict bare;
  for (auto [key, view] : owned) {
    view.owner = nullptr;
    bare.insert(key, view);
  }
  const auto data = [](const Net& net) { return net.p.parameter("default", "lora_A").data(); };
  Net taken = made(true), copied = made(true), plain = made(true);
  (void)graft::set_peft_model_state_dict(taken, owned, "default", {.low_cpu_mem_usage = true});
  (void)graft::set_peft_model_state_dict(copied, bare, "default", {.low_cpu_mem_usage = true});
  (void)graft::set_peft_model_state_dict(plain, owned);
  CHECK(data(taken) == owned.at("p.lora_A.weight").data);
  CHECK(data(copied) != owned.at("p.lora_A.weight").data);
  CHECK(data(plain) != owned.at("p.lora_A.weight").data);
  CHECK(taken.head->weight.data() != nullptr);
  // a second load must not write into memory that the first one borrowed
  const std::string before = bytes_of(owned);
  trained::fill(taken, "default", 77);
  CHECK(bytes_of(owned) == before);
}
