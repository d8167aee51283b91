#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <graft/core/error.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "json_file.hpp"

#ifndef GRAFT_SOURCE_DIR
#define GRAFT_SOURCE_DIR "."
#endif

namespace tales {

/// The folder with the model, texts and adapters that come with graft.
inline std::filesystem::path shipped() {
  return std::filesystem::path(GRAFT_SOURCE_DIR) / "examples" / "tales";
}

/// What the command line asks for.
struct Options {
  std::filesystem::path base{};                   ///< empty: the shipped model
  std::vector<std::filesystem::path> adapters{};  ///< with neither base nor adapters: the three shipped ones
  std::vector<std::filesystem::path> texts{}, ids{};  ///< neither: the shipped texts
  std::string prompt = "The rays of light";
  std::size_t tokens = 40;                 ///< of the continuation
  std::size_t all_tokens = 40;             ///< that --quick cuts down to these
  std::size_t windows = 0;  ///< of each text at most; 0: all
  unsigned threads = 2;
  bool quick = false;
  std::optional<std::filesystem::path> heat_map{};  ///< where the perplexities are drawn

  /// Everything as shipped: the figures are known.
  [[nodiscard]] bool is_shipped() const {
    return base.empty() && adapters.empty() && texts.empty() && ids.empty();
  }
};

inline constexpr std::size_t quick_windows = 8, quick_tokens = 12;

/// The options, or the exit code with which to end: after --help, or after a mistake that has been explained.
inline std::optional<Options> parse(int count, char** arguments, int& exit_code) {
  Options options;
  options.threads = std::clamp(std::thread::hardware_concurrency(), 1u, 8u);
  CLI::App app{
      "Perplexity of a Llama with each of its PEFT adapters, and without.\n"
      "Without options: the model that comes with graft, checked against transformers + peft."};
  app.add_option("--base", options.base,
                 "Hugging Face folder of a Llama: config.json, *.safetensors, tokenizer.json");
  app.add_option("--adapter", options.adapters, "PEFT folder for it; may be given several times");
  app.add_option("--text", options.texts, "UTF-8 text to score; may be given several times");
  app.add_option("--ids", options.ids,
                 "token ids to score, decimal, separated by blanks or commas; several times too");
  app.add_option("--prompt", options.prompt, "what is continued, greedily")->capture_default_str();
  app.add_option("--tokens", options.tokens, "length of the continuation")->capture_default_str();
  app.add_option("--windows", options.windows, "score at most so many windows of 128 tokens of each text");
  app.add_option("--threads", options.threads, "threads of the evaluation")
      ->check(CLI::Range(1u, 256u))
      ->capture_default_str();
  app.add_option("--svg", options.heat_map,
                 "where the perplexities are drawn as a heat map; build/tales.svg of the checkout if it has a build folder");
  app.add_flag("--quick", options.quick, "the first 8 windows of each text, 12 tokens of continuation");
  try {
    app.parse(count, arguments);
  } catch (const CLI::ParseError& error) {
    exit_code = app.exit(error) ? 2 : 0;
    return std::nullopt;
  }
  options.all_tokens = options.tokens;
  const auto build = std::filesystem::path(GRAFT_SOURCE_DIR) / "build";
  std::error_code ignored;
  if (!options.heat_map && std::filesystem::is_directory(build, ignored)) options.heat_map = build / "tales.svg";
  if (options.quick) {
    options.windows = options.windows ? std::min(options.windows, quick_windows) : quick_windows;
    options.tokens = std::min(options.tokens, quick_tokens);
  }
  return options;
}

/// Token ids from a file: decimal numbers between blanks, commas or brackets (so a JSON list will do).
/// @throws graft::FileError for anything else.
inline std::vector<int> read_ids(const std::filesystem::path& path) {
  const std::string text = read_text(path);
  std::vector<int> ids;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at != end;) {
    if (std::string_view(" \t\r\n,[]").find(*at) != std::string_view::npos) {
      ++at;
      continue;
    }
    int id = 0;
    const auto [rest, error] = std::from_chars(at, end, id);
    if (error != std::errc() || id < 0)
      graft::fail<graft::FileError>("cannot read the ids of " + path.string(),
                                    "byte " + std::to_string(at - text.data()) + " begins no token id",
                                    "write decimal ids separated by blanks or commas");
    ids.push_back(id);
    at = rest;
  }
  return ids;
}

}  // namespace tales
