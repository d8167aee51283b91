#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "../adapter_facts.hpp"
#include "../checkpoint.hpp"
#include "../engine.hpp"
#include "../hf_config.hpp"
#include "../options.hpp"
#include "../perplexity.hpp"
#include "../reference.hpp"
#include "../tokenizer.hpp"
#include "support.hpp"

// Expected values are those of transformers and PEFT: reference.json, and expected.json from make_llamas.py.
using tales_test::tales_folder;

namespace {
constexpr double tolerance = 1e-4;  // of a perplexity, relative

std::unique_ptr<tales::Engine> open(const std::filesystem::path& folder) {
  const auto config = tales::read_llama_config(folder);
  return tales::make_engine(config, tales::open_checkpoint(folder, config.tie_word_embeddings));
}
double perplexity(const tales::Engine& engine, std::span<const int> ids, std::size_t windows,
                  const tales::Use& use, unsigned threads = 2) {
  return tales::perplexity(engine.window_losses(ids, windows, use, threads, [](std::size_t) {}));
}
bool same_bits(const graft::Matrix<float>& a, const graft::Matrix<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), std::size_t(a.size()) * sizeof(float)) == 0;
}
bool is_close(double ours, double theirs) { return std::abs(ours / theirs - 1) <= tolerance; }
}  // namespace

TEST_CASE("tales: the shipped model and its adapters give PEFT's figures") {
  const tales::Reference reference(tales_folder / "reference.json");
  const tales::Tokenizer tokenizer(tales_folder / "base");
  const auto base = open(tales_folder / "base"), adapted = open(tales_folder / "base");
  for (const std::string name : {"lora", "adalora", "ia3"})
    adapted->load_adapter(tales_folder / "adapters" / name, name);
  const auto ids = tokenizer.encode(tales::read_text(tales_folder / "text" / "opticks.test.txt"));
  const auto austen = tokenizer.encode(tales::read_text(tales_folder / "text" / "austen.test.txt"));
  const auto window = std::span<const int>(ids).first(tales::window_length);
  const auto prompt = tokenizer.encode("The rays of light");

  const auto check = [&](const std::string& name, const tales::Engine& engine, const tales::Use& use) {
    CAPTURE(name);
    CHECK(is_close(perplexity(engine, ids, 8, use), reference.perplexity(name, "opticks", true)));
    CHECK(is_close(perplexity(engine, austen, 8, use), reference.perplexity(name, "austen", true)));
    const auto logits = engine.logits(window, use);
    const auto& samples = reference.at({"samples"});
    const auto& expected = reference.at({"float64", name, "window", "logits"});
    for (std::size_t i = 0; i < samples.size(); ++i) {
      CAPTURE(i);
      CHECK(double(logits(samples[i]["position"].get<int>(), samples[i]["token"].get<int>())) ==
            doctest::Approx(expected[i].get<double>()).epsilon(1e-4));
    }
    CHECK(engine.generate(prompt, 40, {}, use) == reference.continuation(name));
  };
  check("base", *base, {});
  for (const std::string name : {"lora", "adalora", "ia3"}) check(name, *adapted, {name});

  CHECK(!same_bits(adapted->logits(window, {"lora"}), base->logits(window, {})));
  adapted->while_disabled([&] {
    check("disabled", *adapted, {});
    CHECK(same_bits(adapted->logits(window, {}), base->logits(window, {})));
  });
  CHECK(!same_bits(adapted->logits(window, {}), base->logits(window, {})));
  CHECK_THROWS_AS((void)adapted->logits(window, {"lroa"}), graft::AdapterError);
}

TEST_CASE("tales: threads change no bit of the losses, and progress counts every window") {
  const auto engine = open(tales_folder / "base");
  const auto ids = tales::Tokenizer(tales_folder / "base")
                       .encode(tales::read_text(tales_folder / "text" / "opticks.test.txt"));
  std::atomic<std::size_t> windows{0};
  const auto count = [&](std::size_t done) { windows += done; };
  const auto alone = engine->window_losses(ids, 19, {}, 1, count);
  CHECK(windows == 19);
  CHECK(engine->window_losses(ids, 19, {}, 3, count) == alone);
  CHECK(windows == 38);
}

TEST_CASE("tales: f16 in shards, f32 tied and bf16 untied Llamas give PEFT's figures") {
  for (const std::string name : {"half_shards", "single_tied", "brain_untied"}) {
    CAPTURE(name);
    const auto folder = tales_folder / "tests" / "llamas" / name;
    const auto expected = tales_test::read_json(folder / "expected.json");
    const auto ids = tales::read_ids(folder / "ids.txt");
    const auto prompt = std::span<const int>(ids).first(5);
    const auto engine = open(folder);
    const auto check = [&](const char* which, const tales::Use& use) {
      CAPTURE(which);
      CHECK(is_close(perplexity(*engine, ids, 2, use), expected[which]["perplexity"].get<double>()));
      CHECK(engine->generate(prompt, 12, {}, use) == expected[which]["continuation"].get<std::vector<int>>());
    };
    check("base", {});
    const auto before = engine->logits(prompt, {});
    engine->load_adapter(folder / "adapter", "mine");
    check("adapter", {"mine"});
    engine->while_disabled([&] { CHECK(same_bits(engine->logits(prompt, {}), before)); });
  }
}

TEST_CASE("tales: a whole module and biases that PEFT trained on a bf16 Llama are not rounded") {
  const auto folder = tales_folder / "tests" / "llamas" / "brain_saved";
  const auto expected = tales_test::read_json(folder / "expected.json");
  const auto ids = tales::read_ids(folder / "ids.txt");
  const auto config = tales::read_llama_config(folder);
  const auto facts = tales::read_adapter_facts({folder / "adapter"});
  CHECK(tales::needs_wide_layers(facts, config));
  CHECK(!tales::needs_wide_layers(tales::read_adapter_facts({tales_folder / "adapters" / "lora"}), config));
  auto checkpoint = tales::open_checkpoint(folder, false);
  tales::widen(checkpoint);
  const auto engine = tales::make_engine(config, checkpoint);
  const auto measured = [&](const tales::Use& use) { return perplexity(*engine, ids, 2, use); };
  CHECK(is_close(measured({}), expected["base"]["perplexity"].get<double>()));
  engine->load_adapter(folder / "adapter", "mine");
  CHECK(std::abs(measured({"mine"}) / expected["adapter"]["perplexity"].get<double>() - 1) < 2e-6);  // rounded: 1e-3
}

TEST_CASE("tales: generation ends after an end-of-text id") {
  const tales::Reference reference(tales_folder / "reference.json");
  const auto expected = reference.continuation("base");
  const std::vector<int> stop{expected[2]};
  const auto ids = open(tales_folder / "base")
                       ->generate(reference.at({"prompt", "ids"}).get<std::vector<int>>(), 40, stop, {});
  CHECK(ids.size() <= 3);
  CHECK(ids.back() == expected[2]);
}

TEST_CASE("tales: a checkpoint or an adapter that does not fit is an error") {
  auto config = tales::read_llama_config(tales_folder / "base");
  const auto checkpoint = tales::open_checkpoint(tales_folder / "base", true);
  config.num_hidden_layers = 5;
  CHECK_THROWS_AS((void)tales::make_engine(config, checkpoint), graft::StateDictError);
  config.num_hidden_layers = 3;
  CHECK_THROWS_AS((void)tales::make_engine(config, checkpoint), graft::StateDictError);
  config.num_hidden_layers = 4;
  config.intermediate_size = 128;
  CHECK_THROWS_AS((void)tales::make_engine(config, checkpoint), graft::StateDictError);
  const auto tiny = open(tales_folder / "tests" / "llamas" / "single_tied");
  const auto before = tiny->logits(std::vector<int>{1, 2, 3}, {});
  CHECK_THROWS_AS(tiny->load_adapter(tales_folder / "adapters" / "lora", "lora"), graft::Error);
  CHECK(same_bits(tiny->logits(std::vector<int>{1, 2, 3}, {}), before));
}
