#include <graft/io/pretrained.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>

#include <graft/io.hpp>

#include "io/temporary_directory.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"
#include "support/tree_model.hpp"

using graft::LoraConfig;
using graft::Matrix;
using results::bytes_of;
using results::everything;
using results::same_bits;
using Strings = std::vector<std::string>;

namespace {

struct Net {
  graft::Adaptable<graft::Linear<>> p{3, 3}, subhead{3, 3}, head{3, 2};
  graft::LayerNorm<> norm{2};
  auto operator()(const auto& x) const { return norm(head(subhead(p(x)))); }
  GRAFT_MODULE(p, subhead, head, norm)
};
const Matrix<float> x = awkward::rows<float>(4, 3);

Net base() {
  Net net;
  awkward::fill<float>(net.p->weight.untyped(), 2);
  awkward::fill<float>(net.subhead->weight.untyped(), 3);
  awkward::fill<float>(net.head->weight.untyped(), 4);
  return net;
}
const LoraConfig whole{.r = 2,
                       .lora_alpha = 7,
                       .bias = graft::Bias::all,
                       .target_modules = {"p", "subhead"},
                       .modules_to_save = {"head"}};
Net trained_net() {
  Net net = base();
  trained::inject(whole, net, "default");
  return net;
}
/// The failure of a load, after which the model and its other adapter are as they were.
template <class E>
std::string refused(const std::filesystem::path& dir, graft::LoadAdapterOptions options = {}) {
  std::string text = "accepted";
  for (const bool meta : {false, true}) {
    Net net = base(), bare = base();
    trained::inject(LoraConfig{.r = 1, .target_modules = {"p"}}, net, "other");
    const std::string before = everything(net), bare_before = everything(bare);
    options.low_cpu_mem_usage = meta;
    CHECK_THROWS_AS(graft::load_adapter(bare, dir, "new", options), E);
    CHECK(everything(bare) == bare_before);
    try {
      (void)graft::load_adapter(net, dir, "new", options);
    } catch (const E& error) {
      text = error.what();
      CHECK_FALSE(error.fix.empty());
    }
    CHECK(everything(net) == before);
  }
  return text;
}
bool has(const std::string& text, std::string_view part) {
  if (text.find(part) == std::string::npos) MESSAGE(text);
  return text.find(part) != std::string::npos;
}
void rewrite(const std::filesystem::path& dir, auto change) {
  graft::StateDict weights = graft::load_peft_weights(dir).clone();
  change(weights);
  graft::safetensors::save_file(weights, dir / "adapter_model.safetensors", {{"format", "pt"}});
}

}  // namespace

TEST_CASE("saved and loaded is the same, read, taken over or mapped; saved again it is the same bytes") {
  const TemporaryDirectory dir;
  const Net net = trained_net();
  CHECK(graft::save_pretrained(net, dir.path()) == dir.path());
  const Matrix<float> y = net(x);
  REQUIRE_FALSE(results::same_values(y, base()(x)));
  for (const bool meta : {false, true})
    for (const bool mapped : {false, true}) {
      Net fresh = base();
      const auto report =
          graft::load_adapter(fresh, dir.path(), "mine", {.low_cpu_mem_usage = meta, .mapped = mapped});
      CHECK(report.loaded.size() + 2 ==
            graft::get_peft_model_state_dict(net).size());  // two are bias = all's doubles
      CHECK(same_bits(fresh(x), y));
      CHECK(graft::active_adapters(fresh) == Strings{"mine"});
      CHECK_FALSE(fresh.p.parameter("mine", "lora_A").requires_grad());
      const TemporaryDirectory again;
      CHECK(graft::save_pretrained(fresh, again.path(), "mine") == again.path() / "mine");
      for (const char* file : {"adapter_model.safetensors", "adapter_config.json"})
        CHECK(read_text(dir / file) == read_text(again.path() / "mine" / file));
      Net copy = fresh;
      graft::delete_adapter(fresh, "mine");
      CHECK(same_bits(fresh(x), base()(x)));
      CHECK(same_bits(copy(x), y));
    }
}

TEST_CASE("a saved module's name is a whole component, also when its adapter is loaded again") {
  // modules_to_save = {head} must not take subhead, though the file has keys that begin so
  const TemporaryDirectory dir;
  (void)graft::save_pretrained(trained_net(), dir.path());
  Net fresh = base();
  CHECK_NOTHROW(graft::load_adapter(fresh, dir.path()));
  CHECK_FALSE(tree::has_copy(fresh, "subhead"));
}

TEST_CASE("a load that fails changes nothing: missing keys, surplus keys, other shapes") {
  const TemporaryDirectory missing, surplus, mismatched;
  for (const auto* dir : {&missing, &surplus, &mismatched})
    (void)graft::save_pretrained(trained_net(), dir->path());
  const std::string key = "base_model.model.p.lora_B.weight";
  rewrite(missing.path(), [&](graft::StateDict& all) { all.erase(key); });
  rewrite(surplus.path(),
          [&](graft::StateDict& all) { all.insert("base_model.model.q.lora_B.weight", all.at(key)); });
  rewrite(mismatched.path(), [&](graft::StateDict& all) {
    graft::TensorView view = all.at(key);
    view.shape = {2, 3};
    all.insert(key, view);
  });
  CHECK(has(refused<graft::StateDictError>(missing.path()), "p.lora_B.weight"));
  CHECK(has(refused<graft::StateDictError>(surplus.path()), "q.lora_B.weight"));
  CHECK(has(refused<graft::StateDictError>(surplus.path()), surplus.path().string()));
  CHECK(has(refused<graft::StateDictError>(mismatched.path(), {.strict = false}), "p.lora_B.weight"));
  CHECK(has(refused<graft::StateDictError>(mismatched.path(), {.mapped = true}), "3, 2"));
  Net lenient = base();
  CHECK(graft::load_adapter(lenient, surplus.path(), "a", {.strict = false}).unexpected_keys.size() == 1);
}

TEST_CASE("a load that fails changes nothing: files that are not there, cut short or pickled") {
  const TemporaryDirectory dir, pickle, cut, no_config, foreign;
  CHECK(has(refused<graft::FileError>(dir / "nowhere"), "nowhere"));
  for (const auto* one : {&pickle, &cut, &no_config, &foreign})
    (void)graft::save_pretrained(trained_net(), one->path());
  std::filesystem::rename(pickle / "adapter_model.safetensors", pickle / "adapter_model.bin");
  CHECK(has(refused<graft::FileError>(pickle.path()), "pickle"));
  const std::string bytes = read_text(cut / "adapter_model.safetensors");
  for (const std::size_t size : {std::size_t(0), std::size_t(7), std::size_t(40), bytes.size() - 1}) {
    write_text(cut / "adapter_model.safetensors", bytes.substr(0, size));
    CHECK(refused<graft::FileError>(cut.path()) != "accepted");
    CHECK(refused<graft::FileError>(cut.path(), {.mapped = true}) != "accepted");
  }
  std::filesystem::remove(no_config / "adapter_config.json");
  CHECK(has(refused<graft::FileError>(no_config.path()), "adapter_config.json"));
  std::string config = read_text(foreign / "adapter_config.json");
  config.replace(config.find("\"subhead\""), 9, "\"nowhere\"");
  config.replace(config.find("\"p\""), 3, "\"q_p\"");
  write_text(foreign / "adapter_config.json", config);
  CHECK(has(refused<graft::TargetError>(foreign.path()), "no module matches"));
  CHECK(has(refused<graft::TargetError>(foreign.path()), foreign.path().string()));
  config.replace(config.find("\"r\": 2"), 6, "\"r\": 0");
  write_text(foreign / "adapter_config.json", config);
  CHECK(has(refused<graft::ConfigError>(foreign.path()), "'" + foreign.path().string() + "': 'r' is 0"));
}

TEST_CASE("names that are taken are errors; a replacement takes the place whole, or nothing happens") {
  const TemporaryDirectory dir, broken;
  const Net saved = trained_net();
  (void)graft::save_pretrained(saved, dir.path());
  (void)graft::save_pretrained(saved, broken.path());
  rewrite(broken.path(), [](graft::StateDict& all) { all.erase("base_model.model.norm.bias"); });
  Net net = trained_net();
  trained::fill(net, "default", 50);
  std::string before = everything(net);
  CHECK_THROWS_AS(graft::load_adapter(net, dir.path()), graft::AdapterError);
  CHECK(everything(net) == before);
  CHECK_THROWS_AS(graft::load_adapter(net, broken.path(), "default", {.replace = true}),
                  graft::StateDictError);
  CHECK(everything(net) == before);
  CHECK_NOTHROW(graft::load_adapter(net, dir.path(), "default",
                                    {.replace = true}));  // one trainer of biases for another
  CHECK(graft::adapter_names(net) == Strings{"default"});
  CHECK(same_bits(net(x), saved(x)));
  graft::set_adapter(net, {});
  CHECK(same_bits(net(x), base()(x)));
  for (const char* name : {"", "a.b", "__base__"}) {
    before = everything(net);
    CHECK_THROWS_AS(graft::load_adapter(net, dir.path(), name), graft::AdapterError);
    CHECK(everything(net) == before);
  }
}

TEST_CASE("keys that carry the adapter's name are its own while it replaces another too") {
  const TemporaryDirectory dir, broken;
  Net net = base();
  trained::inject(LoraConfig{.r = 2, .target_modules = {"p"}}, net, "mine");
  const std::filesystem::path folder = graft::save_pretrained(net, dir.path(), "mine");
  const Matrix<float> y = net(x);
  rewrite(folder, [](graft::StateDict& all) {
    const graft::TensorView a = all.at("base_model.model.p.lora_A.weight");
    all.erase("base_model.model.p.lora_A.weight");
    all.insert("base_model.model.p.lora_A.mine.weight", a);
  });
  Net copy = net;  // whose sites have a record each
  trained::fill(copy, "mine", 50);
  (void)graft::load_adapter(copy, folder, "mine", {.replace = true});
  CHECK(graft::adapter_names(copy) == Strings{"mine"});
  CHECK(same_bits(copy(x), y));
  rewrite(folder, [](graft::StateDict& all) { all.erase("base_model.model.p.lora_B.weight"); });
  try {
    (void)graft::load_adapter(copy, folder, "mine", {.replace = true});
    FAIL("was accepted");
  } catch (const graft::StateDictError& error) {
    CHECK(has(error.problem, "missing keys for adapter 'mine': p.lora_B.weight"));
  }
  CHECK(graft::adapter_names(copy) == Strings{"mine"});
  CHECK(same_bits(copy(x), y));
}

TEST_CASE("what a lenient load leaves out has the values of an injection, lazily or not") {
  const TemporaryDirectory dir;
  Net net = base();
  trained::inject(LoraConfig{.r = 2, .target_modules = {"p", "subhead"}}, net, "default");
  (void)graft::save_pretrained(net, dir.path());
  rewrite(dir.path(), [](graft::StateDict& all) {
    all.erase("base_model.model.p.lora_A.weight");
    all.erase("base_model.model.subhead.lora_B.weight");
  });
  Net eager = base();
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .target_modules = {"p", "subhead"}}, eager, "e");
  for (const bool meta : {false, true}) {
    Net lazy = base();
    const auto report =
        graft::load_adapter(lazy, dir.path(), "l", {.low_cpu_mem_usage = meta, .strict = false});
    CHECK(report.missing_keys == Strings{"p.lora_A.weight", "subhead.lora_B.weight"});
    const auto same = [](const graft::ParameterView& a, const graft::ParameterView& b) {
      return same_bits(Matrix<float>(a.view<float>()), Matrix<float>(b.view<float>()));
    };
    CHECK(same(lazy.p.parameter("l", "lora_A"), eager.p.parameter("e", "lora_A")));
    CHECK(same(lazy.subhead.parameter("l", "lora_B"), eager.subhead.parameter("e", "lora_B")));
    CHECK(same(lazy.p.parameter("l", "lora_B"), net.p.parameter("default", "lora_B")));
    CHECK_NOTHROW((void)lazy(x));
  }
}

TEST_CASE("saving refuses what has no values or no name here, and leaves the folder as it was") {
  const TemporaryDirectory dir;
  Net net = base();
  (void)graft::inject_adapter_in_model(whole, net, "default", {.low_cpu_mem_usage = true});
  CHECK_THROWS_AS((void)graft::save_pretrained(net, dir / "out"), graft::MetaError);
  CHECK_THROWS_AS((void)graft::save_pretrained(net, dir / "out", "nobody"), graft::AdapterError);
  CHECK(dir.file_count() == 0);
  const std::string outside = (dir / "outside").string();
  for (const std::string& name : {outside, std::string("a/b"), std::string("a\\b")}) {
    trained::inject(LoraConfig{.target_modules = {"p"}}, net, name);
    CHECK_THROWS_AS((void)graft::save_pretrained(net, dir / "out", name), graft::AdapterError);
    graft::delete_adapter(net, name);
  }
  CHECK(dir.file_count() == 0);
}

TEST_CASE("IA3: the shape in the file decides which side is scaled") {
  const TemporaryDirectory dir;
  Net net = base();
  trained::inject(graft::Ia3Config{.target_modules = {"p", "head"}, .feedforward_modules = {"head"}}, net,
                  "default");
  (void)graft::save_pretrained(net, dir.path());
  std::string config = read_text(dir / "adapter_config.json");
  const std::size_t at = config.find("\"feedforward_modules\"");
  config.replace(config.find('[', at), config.find(']', at) - config.find('[', at) + 1, "[]");
  write_text(dir / "adapter_config.json", config);
  Net fresh = base();
  (void)graft::load_adapter(fresh, dir.path());
  CHECK(fresh.head.parameter("default", "ia3_l").shape() == std::vector<graft::Index>{1, 3});
  CHECK(same_bits(fresh(x), net(x)));
}

TEST_CASE("names that PEFT could not load are refused, those that it warns about are a warning") {
  const TemporaryDirectory dir;
  Net net = base();
  for (const char* name : {"keys", "forward", "train", "__init__", "_modules"}) {
    trained::inject(LoraConfig{.target_modules = {"p"}}, net, name);
    CHECK_THROWS_WITH_AS((void)graft::save_pretrained(net, dir / "out", name), doctest::Contains("torch's containers"),
                         graft::AdapterError);
    graft::delete_adapter(net, name);
  }
  CHECK(dir.file_count() == 0);
  const auto warnings_of = [&](const graft::PeftConfig& config, const std::string& name) {
    Strings warnings;
    (void)graft::inject_adapter_in_model(config, net, name);
    (void)graft::save_pretrained(net, dir.path(), name, &warnings);
    return warnings.size();
  };
  CHECK(warnings_of(LoraConfig{.target_modules = {"p"}}, "lora") == 1);
  CHECK(warnings_of(LoraConfig{.target_modules = {"p"}}, "a") == 1);
  CHECK(warnings_of(graft::AdaLoraConfig{.target_modules = {"p"}, .total_step = 9}, "or") == 1);
  CHECK(warnings_of(graft::AdaLoraConfig{.target_modules = {"p"}}, "untrained") == 1);  // PEFT needs total_step to load
  CHECK(warnings_of(graft::Ia3Config{.target_modules = {"p"}}, "ia3") == 1);
  CHECK(warnings_of(graft::Ia3Config{.target_modules = {"p"}}, "loras") == 0);
  CHECK(warnings_of(LoraConfig{.target_modules = {"p"}}, "ia3_") == 0);
  CHECK_NOTHROW((void)graft::save_pretrained(net, dir.path(), "a"));
}

TEST_CASE("ranks that a config claims cost no memory before the weights have them") {
  const TemporaryDirectory dir;
  Net net = base();
  trained::inject(LoraConfig{.r = 2, .target_modules = {"p"}}, net, "default");
  (void)graft::save_pretrained(net, dir.path());
  std::string config = read_text(dir / "adapter_config.json");
  config.replace(config.find("\"r\": 2"), 6, "\"r\": 2147483647");
  write_text(dir / "adapter_config.json", config);
  CHECK(has(refused<graft::StateDictError>(dir.path()), "expected (2147483647, 3)"));
}

TEST_CASE("tensors at odd addresses are copied where they cannot be taken over") {
  const TemporaryDirectory dir;
  const Net net = trained_net();
  (void)graft::save_pretrained(net, dir.path());
  std::string bytes = read_text(dir / "adapter_model.safetensors");
  for (int shift = 1; shift < 8; ++shift) {  // a header of any length is legal
    bytes.insert(bytes.find('{') + 1, " ");
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    ++length;
    std::memcpy(bytes.data(), &length, 8);
    write_text(dir / "adapter_model.safetensors", bytes);
    for (const bool mapped : {false, true}) {
      Net fresh = base();
      (void)graft::load_adapter(fresh, dir.path(), "mine", {.mapped = mapped});
      CHECK(same_bits(fresh(x), net(x)));
    }
  }
}

TEST_CASE("a PEFT file whose target is saved whole loads, with a warning") {
  const TemporaryDirectory dir;
  Net net = base();
  trained::inject(LoraConfig{.r = 2, .target_modules = {"p"}, .modules_to_save = {"head"}}, net, "default");
  (void)graft::save_pretrained(net, dir.path());
  std::string config = read_text(dir / "adapter_config.json");
  config.replace(config.find("\"p\""), 3, "\"p\", \"head\"");
  write_text(dir / "adapter_config.json", config);
  Net fresh = base();
  const auto report = graft::load_adapter(fresh, dir.path());
  REQUIRE(report.warnings.size() == 1);
  CHECK(has(report.warnings.front(), "'head' is a target and a module to save"));
  CHECK(same_bits(fresh(x), net(x)));
}
