// Loads a Llama and its PEFT adapters and prints the perplexity of texts with each of them and with none.
// Without options: the model that comes with graft, where the figures must be those of transformers + peft.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <graft/graft.hpp>
#include <memory>
#include <string>
#include <vector>

#include "adapter_facts.hpp"
#include "checkpoint.hpp"
#include "engine.hpp"
#include "heat_map.hpp"
#include "hf_config.hpp"
#include "left_out.hpp"
#include "options.hpp"
#include "perplexity.hpp"
#include "progress.hpp"
#include "prose.hpp"
#include "reference.hpp"
#include "table.hpp"
#include "terminal.hpp"
#include "tokenizer.hpp"

namespace tales {
namespace {

constexpr double tolerance = 1e-4;  // of a perplexity, relative to that of transformers + peft

struct Text {
  std::string name, key;  // key: its name in reference.json
  std::vector<int> ids;
  std::size_t windows = 0, all_windows = 0;  // scored, and there are
};

/// A line of the table: a configuration and the losses of each window of each text.
struct Result {
  std::string label, key;  // key: its name in reference.json
  std::size_t parameters = 0;
  std::vector<std::vector<double>> losses{};
};

void check_ids(const std::string& name, std::span<const int> ids, const LlamaConfig& config) {
  for (const int id : ids)
    if (id >= config.vocab_size)
      graft::fail<graft::ShapeError>(name + " holds the token id " + std::to_string(id),
                                     "the model has ids below " + std::to_string(config.vocab_size),
                                     "tokenise it with the model's own tokenizer");
}

Text prepare(std::string name, std::string key, std::vector<int> ids, const Options& options,
             const LlamaConfig& config) {
  check_ids(name, ids, config);
  std::size_t windows = whole_windows(ids.size());
  if (windows == 0)
    graft::fail<graft::ShapeError>(name + " has " + std::to_string(ids.size()) + " tokens",
                                   "a window of 128 and the token behind it are needed",
                                   "give a longer text");
  const std::size_t scored = options.windows ? std::min(windows, options.windows) : windows;
  return {std::move(name), std::move(key), std::move(ids), scored, windows};
}

std::vector<Text> read_texts(const Options& options, const std::filesystem::path& base,
                             const LlamaConfig& config) {
  std::vector<Text> texts;
  if (!options.texts.empty() || options.ids.empty()) {
    const Tokenizer tokenizer(base);
    const auto add = [&](const std::string& name, const std::string& key, const std::filesystem::path& path) {
      texts.push_back(prepare(name, key, tokenizer.encode(read_text(path)), options, config));
    };
    for (const auto& path : options.texts) add(path.stem().string(), "", path);
    if (options.texts.empty()) {
      add("Austen", "austen", shipped() / "text" / "austen.test.txt");
      add("Opticks", "opticks", shipped() / "text" / "opticks.test.txt");
    }
  }
  for (const auto& path : options.ids)
    texts.push_back(prepare(path.stem().string(), "", read_ids(path), options, config));
  return texts;
}

void evaluate(Result& result, const Engine& engine, const Use& use, const std::vector<Text>& texts,
              unsigned threads) {
  std::size_t windows = 0;
  for (const Text& text : texts) windows += text.windows;
  Progress progress(stderr, result.label, windows, window_length);
  for (const Text& text : texts)
    result.losses.push_back(engine.window_losses(text.ids, text.windows, use, threads,
                                                 [&](std::size_t done) { progress.advance(done); }));
}

template <class T>
bool same_bytes(const T* a, const T* b, std::size_t count) {
  return std::memcmp(a, b, count * sizeof(T)) == 0;
}

/// Whether the disabled engine computes the base's very bits: all losses, and all logits of some windows.
bool is_base(const Engine& base, const Engine& disabled, const Result& base_result,
             const Result& disabled_result, const std::vector<Text>& texts) {
  for (std::size_t t = 0; t < texts.size(); ++t) {
    if (!same_bytes(base_result.losses[t].data(), disabled_result.losses[t].data(), texts[t].windows))
      return false;
    for (std::size_t window = 0; window < std::min(texts[t].windows, quick_windows); ++window) {
      const auto ids = std::span<const int>(texts[t].ids).subspan(window * window_length, window_length);
      const auto expected = base.logits(ids, {}), got = disabled.logits(ids, {});
      if (expected.size() != got.size() || !same_bytes(expected.data(), got.data(), std::size_t(got.size())))
        return false;
    }
  }
  return true;
}

/// Whether one pass over sequences of other lengths, each with another adapter and one with none, has the very bits of
/// a pass for each of them.
bool mixed_is_each_alone(const Engine& base, const Engine& adapted, const std::vector<AdapterFacts>& adapters,
                         const Text& text) {
  std::vector<Use> uses{{"", true}};
  for (const AdapterFacts& adapter : adapters) uses.push_back({adapter.name});
  uses.push_back({"", true});
  std::vector<std::span<const int>> sequences;
  for (std::size_t i = 0; i < uses.size(); ++i)
    sequences.push_back(std::span<const int>(text.ids).subspan(i, window_length - 23 * (i % 4)));
  const auto mixed = adapted.mixed_logits(sequences, uses);
  for (std::size_t i = 0; i < uses.size(); ++i) {
    const auto alone = uses[i].base_only ? base.logits(sequences[i], {}) : adapted.logits(sequences[i], uses[i]);
    if (alone.size() != mixed[i].size() || !same_bytes(alone.data(), mixed[i].data(), std::size_t(alone.size()))) return false;
  }
  return true;
}

/// Draws the perplexities, "adapters off" left out.
void draw(const std::filesystem::path& path, const std::vector<Result>& results, const std::vector<Text>& texts) {
  HeatMap map{"Perplexity of texts (columns) with adapters (rows): dark is likely", {}, {}, {}};
  for (const Text& text : texts) map.columns.push_back(text.name);
  for (const Result& result : results) {
    if (result.key == "disabled") continue;
    map.rows.push_back(result.label);
    map.values.emplace_back();
    for (const auto& losses : result.losses) map.values.back().push_back(perplexity(losses));
  }
  write_svg(path, map);
}

/// Prints the table; with a reference, its figures too. Whether all of ours are within the tolerance of them.
bool print_table(const std::vector<Result>& results, const std::vector<Text>& texts,
                 const Reference* reference, bool quick) {
  Table table;
  std::vector<std::string> head{"perplexity", "parameters"};
  for (const Text& text : texts) {
    head.push_back(text.name);
    if (reference) head.push_back("peft");
  }
  if (reference) head.push_back("off by");
  table.add(head);
  bool all_within = true;
  for (const Result& result : results) {
    std::vector<std::string> line{result.label, result.parameters ? grouped(result.parameters) : "-"};
    double worst = 0;
    for (std::size_t t = 0; t < texts.size(); ++t) {
      line.push_back(format("%.4f", perplexity(result.losses[t])));
      if (!reference) continue;
      const double theirs = reference->perplexity(result.key, texts[t].key, quick);
      const double distance = std::abs(perplexity(result.losses[t]) / theirs - 1);
      line.push_back(format("%.4f", theirs));
      if (!(distance <= worst)) worst = distance;
    }
    if (reference) line.push_back(format("%.1e", worst));
    all_within = all_within && worst <= tolerance;
    table.add(std::move(line));
  }
  std::fputs(table.text().c_str(), stdout);
  return all_within;
}

void print_continuations(const Options& options, const std::filesystem::path& folder,
                         const LlamaConfig& config, const Engine& base, const Engine& adapted,
                         const std::vector<AdapterFacts>& adapters, std::size_t columns) {
  if (options.tokens == 0) return;
  std::unique_ptr<Tokenizer> tokenizer;
  try {
    tokenizer = std::make_unique<Tokenizer>(folder);
  } catch (const graft::FileError& error) {  // only --ids can have come so far
    std::printf("\nno continuation: %s (%s)\n", error.problem.c_str(), error.why.c_str());
    return;
  }
  const std::vector<int> prompt = tokenizer->encode(options.prompt);
  check_ids("the prompt", prompt, config);
  if (prompt.empty()) return;
  const std::vector<int> stop = end_of_text_ids(folder);
  std::printf("\n\"%s\" and the %zu likeliest tokens, one by one\n", printable(options.prompt).c_str(),
              options.tokens);
  const auto print = [&](const std::string& label, const Engine& engine, const Use& use) {
    const auto ids = engine.generate(prompt, options.tokens, stop, use);
    const std::string text = printable(options.prompt + tokenizer->decode(ids));
    std::printf("  %-16s %s\n", label.c_str(), wrapped(text, 19, columns).c_str());
  };
  print("base", base, {});
  if (!adapters.empty()) print(adapters.front().label, adapted, {adapters.front().name});
}

std::string plural(std::size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

void print_base(const Options& options, const LlamaConfig& config, const Checkpoint& checkpoint) {
  std::printf("graft %s, %s\n", GRAFT_VERSION, plural(options.threads, "thread").c_str());
  std::printf("base %s: %s parameters, %s, %.2f MB mapped from %s",
              options.base.empty() ? "tales" : options.base.string().c_str(),
              grouped(checkpoint.parameters).c_str(), std::string(graft::tag_of(checkpoint.dtype)).c_str(),
              double(checkpoint.bytes) / 1e6, plural(checkpoint.files, "file").c_str());
  if (checkpoint.copied > 0)
    std::printf(", copied to F32: %.2f MB", double(checkpoint.copied) / 1e6);
  std::printf("\n");
  if (config.tie_word_embeddings && !checkpoint.tied)
    std::printf("  note: its lm_head is not its embedding, though config.json ties them\n");
}

void load_adapters(Engine& engine, const std::vector<AdapterFacts>& adapters) {
  if (!adapters.empty()) std::printf("injected on meta, then loaded:\n");
  for (const AdapterFacts& adapter : adapters) {
    const auto report = engine.load_adapter(adapter.folder, adapter.name);
    std::printf("  %-16s %s, %s parameters, as '%s'\n", adapter.label.c_str(),
                plural(report.loaded.size(), "tensor").c_str(), grouped(adapter.parameters).c_str(),
                adapter.name.c_str());
    const auto note = [](const std::vector<std::string>& list, const std::string& what) {
      if (list.empty()) return;
      std::printf("    %s%s", what.c_str(), list.front().c_str());
      if (list.size() > 1) std::printf(" and %zu more", list.size() - 1);
      std::printf("\n");
    };
    note(report.warnings, "note: ");
    note(report.cast_keys, "cast to the dtype they are computed in: ");
  }
}

void print_left_out(const Options& options, const std::vector<Text>& texts, std::size_t columns) {
  std::vector<Share> shares;
  for (const Text& text : texts) shares.push_back({"windows of " + text.name, text.windows, text.all_windows});
  shares.push_back({"tokens of a continuation", options.tokens, options.all_tokens});
  const std::string line = left_out(shares);
  if (!line.empty()) std::printf("%s\n\n", wrapped(line, 0, columns).c_str());
}

int run(const Options& options) {
  const auto started = std::chrono::steady_clock::now();
  const Terminal terminal = Terminal::of(stdout);
  const auto folder = options.base.empty() ? shipped() / "base" : options.base;
  const LlamaConfig config = read_llama_config(folder);
  Checkpoint checkpoint = open_checkpoint(folder, config.tie_word_embeddings);
  const std::vector<Text> texts = read_texts(options, folder, config);
  std::vector<std::filesystem::path> adapter_folders = options.adapters;
  if (options.base.empty() && options.adapters.empty())
    for (const char* name : {"lora", "adalora", "ia3"})
      adapter_folders.push_back(shipped() / "adapters" / name);
  const std::vector<AdapterFacts> adapters = read_adapter_facts(adapter_folders);

  if (needs_wide_layers(adapters, config)) widen(checkpoint);

  // Two models on the same mapped bytes: one that never has adapters, one that gets them all.
  const auto base = make_engine(config, checkpoint);
  const auto adapted = make_engine(config, checkpoint);
  print_base(options, config, checkpoint);
  load_adapters(*adapted, adapters);
  std::printf("\n%s, one of %s\n%s\n\n", terminal.bold("model.layers.0").c_str(),
              std::to_string(config.num_hidden_layers).c_str(), adapted->tree(0).c_str());
  print_left_out(options, texts, terminal.columns);
  std::fflush(stdout);

  std::vector<Result> results;
  results.push_back({"base", "base"});
  evaluate(results.back(), *base, {}, texts, options.threads);
  for (const AdapterFacts& adapter : adapters) {
    results.push_back({adapter.label, adapter.name, adapter.parameters});
    evaluate(results.back(), *adapted, {adapter.name}, texts, options.threads);
  }
  bool off_is_base = true;
  if (!adapters.empty()) {
    results.push_back({"adapters off", "disabled"});
    adapted->while_disabled([&] {
      evaluate(results.back(), *adapted, {}, texts, options.threads);
      off_is_base = is_base(*base, *adapted, results.front(), results.back(), texts);
    });
  }

  const bool first_windows = options.windows == quick_windows;
  const bool known = options.is_shipped() && (options.windows == 0 || first_windows);
  const auto reference = known ? std::make_unique<Reference>(shipped() / "reference.json") : nullptr;
  const bool within = print_table(results, texts, reference.get(), first_windows);
  std::printf("\n");
  if (reference)
    std::printf("%s\n",
                within ? terminal.good("all as transformers + peft compute them, to 1e-4").c_str()
                       : terminal.bad("NOT what transformers + peft compute: off by more than 1e-4").c_str());
  if (!adapters.empty())
    std::printf("%s\n", off_is_base ? terminal.good("adapters off is the base, bit for bit").c_str()
                                    : terminal.bad("adapters off is NOT the base, bit for bit").c_str());
  bool mixed_is_alone = true;
  if (!adapters.empty()) {
    mixed_is_alone = mixed_is_each_alone(*base, *adapted, adapters, texts.front());
    const std::string batch = "a mixed batch, base and " + plural(adapters.size(), "adapter") + ",";
    std::printf("%s\n", mixed_is_alone ? terminal.good(batch + " is each sequence alone, bit for bit").c_str()
                                       : terminal.bad(batch + " is NOT each sequence alone").c_str());
  }
  if (options.heat_map) {
    draw(*options.heat_map, results, texts);
    std::printf("the table as a heat map: %s\n", options.heat_map->string().c_str());
  }
  print_continuations(options, folder, config, *base, *adapted, adapters, terminal.columns);
  std::printf("\n%.1f s\n",
              std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
  return within && off_is_base && mixed_is_alone ? 0 : 1;
}

}  // namespace
}  // namespace tales

int main(int count, char** arguments) {
  int exit_code = 0;
  try {
    const auto options = tales::parse(count, arguments, exit_code);
    return options ? tales::run(*options) : exit_code;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
