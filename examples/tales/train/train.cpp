// Trains an adapter of the shipped language model on Newton's Opticks, as ../recipe/adapters.py does with PEFT, and saves it as a
// PEFT folder: the same text, configs, steps and rates; other random numbers.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <graft/graft.hpp>
#include <graft/io.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "../checkpoint.hpp"
#include "../hf_config.hpp"
#include "../llama.hpp"
#include "../options.hpp"
#include "../perplexity.hpp"
#include "../prose.hpp"
#include "../reference.hpp"
#include "../table.hpp"
#include "../terminal.hpp"
#include "../tokenizer.hpp"
#include "../window_losses.hpp"
#include "trainer.hpp"

namespace tales {
namespace {

using Model = LlamaForCausalLM<float>;
using Clock = std::chrono::steady_clock;

struct TrainingOptions {
  std::vector<std::string> methods{};
  int steps = 0;  ///< 0: the recipe's
  std::uint64_t seed = 0;
  unsigned threads = 2;
  bool quick = false;
  std::filesystem::path out{};
};

std::optional<TrainingOptions> parse_training(int count, char** arguments, int& exit_code) {
  TrainingOptions options;
  options.threads = std::clamp(std::thread::hardware_concurrency(), 1u, 8u);
  options.out = std::filesystem::path(GRAFT_SOURCE_DIR) / "build" / "trained";
  CLI::App app{
      "Trains LoRA, DoRA, AdaLoRA and IA3 of the model that comes with graft on Newton's Opticks, and saves them for PEFT.\n"
      "Exits with 1 if one does not learn what PEFT's recipe reaches."};
  std::string known;
  for (const TrainingRecipe& recipe : training_recipes()) known += (known.empty() ? "" : ", ") + recipe.name;
  app.add_option("methods", options.methods, known + "; by default all of them");
  app.add_option("--steps", options.steps, "in place of the recipe's 200 (IA3 100)")->check(CLI::Range(2, 1000000));
  app.add_option("--seed", options.seed, "of the adapter and of the windows")->capture_default_str();
  app.add_option("--threads", options.threads, "each takes its share of the 8 windows of a step")->check(CLI::Range(1u, 8u))->capture_default_str();
  app.add_option("--out", options.out, "where a PEFT folder is written for each method")->capture_default_str();
  app.add_flag("--quick", options.quick, "LoRA alone, 40 steps");
  try {
    app.parse(count, arguments);
  } catch (const CLI::ParseError& error) {
    exit_code = app.exit(error) ? 2 : 0;
    return std::nullopt;
  }
  if (options.quick && options.steps == 0) options.steps = 40;
  if (options.methods.empty() && options.quick) options.methods = {"lora"};
  if (options.methods.empty())
    for (const TrainingRecipe& recipe : training_recipes()) options.methods.push_back(recipe.name);
  return options;
}

struct Texts {
  std::vector<int> train, opticks, austen;
};

double perplexity_of(const Model& model, const std::vector<int>& ids, unsigned threads) {
  return perplexity(window_losses(model, ids, whole_windows(ids.size()), {}, threads, [](std::size_t) {}));
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Trains one method and saves it; its line of the table. Whether it learnt enough.
bool train_one(const std::string& name, const Checkpoint& checkpoint, const LlamaConfig& config, const Texts& texts,
               const TrainingOptions& options, Table& table) {
  const TrainingRecipe recipe = training_recipe(name);
  const int steps = options.steps ? options.steps : recipe.steps;
  Model model(config);
  graft::set_base_model_state_dict(model, checkpoint.tensors, {.low_cpu_mem_usage = true});
  graft::inject_adapter_in_model(recipe.config(steps), model, "default", {.seed = options.seed});
  const auto trainable = graft::get_nb_trainable_parameters(model).trainable;

  Trainer<Model> trainer(model, recipe, steps, options.seed, options.threads);
  const auto start = Clock::now();
  for (int step = 0; step < steps; ++step) {
    const double loss = trainer.step(step, texts.train);
    if (step == 0 || (step + 1) % std::max(1, steps / 4) == 0)
      std::printf("  %-14s step %4d   loss %.3f   %6.0f tokens/s\n", recipe.label.c_str(), step + 1, loss,
                  double(step + 1) * double(trainer.tokens_of_step()) / seconds_since(start));
    std::fflush(stdout);
  }
  const double seconds = seconds_since(start);

  const auto folder = graft::save_pretrained(model, options.out / recipe.name);
  Model loaded(config);  // what is on the disk
  graft::set_base_model_state_dict(loaded, checkpoint.tensors, {.low_cpu_mem_usage = true});
  graft::load_adapter(loaded, folder);
  const double opticks = perplexity_of(loaded, texts.opticks, options.threads);
  table.add({recipe.label, std::to_string(steps), grouped(std::size_t(trainable)), format("%.2f", opticks),
             format("%.2f", perplexity_of(loaded, texts.austen, options.threads)), format("%.1f", seconds)});
  // fewer steps than the recipe's: to have learnt is enough
  const double accepted = steps >= recipe.steps ? recipe.accepted : 85;
  return opticks <= accepted;
}

int run(const TrainingOptions& options) {
  const Terminal terminal = Terminal::of(stdout);
  const auto base = shipped() / "base";
  const LlamaConfig config = read_llama_config(base);
  Checkpoint checkpoint = open_checkpoint(base, config.tie_word_embeddings);
  widen(checkpoint);
  const Tokenizer tokenizer(base);
  const auto read = [&](const char* file) { return tokenizer.encode(read_text(shipped() / "text" / file)); };
  const Texts texts{read("opticks.train.txt"), read("opticks.test.txt"), read("austen.test.txt")};
  std::printf("graft %s: training on %s tokens of Newton's Opticks, %u threads\n", GRAFT_VERSION, grouped(texts.train.size()).c_str(),
              options.threads);

  Table table;
  table.add({"perplexity, held out", "steps", "parameters", "Opticks", "Austen", "seconds"});
  Model plain(config);
  graft::set_base_model_state_dict(plain, checkpoint.tensors, {.low_cpu_mem_usage = true});
  table.add({"base", "-", "-", format("%.2f", perplexity_of(plain, texts.opticks, options.threads)),
             format("%.2f", perplexity_of(plain, texts.austen, options.threads)), "-"});
  bool all_learnt = true;
  for (const std::string& method : options.methods) all_learnt = train_one(method, checkpoint, config, texts, options, table) && all_learnt;
  std::printf("\n%s\n", table.text().c_str());
  std::printf("%s\n", all_learnt ? terminal.good("each learnt what PEFT's recipe reaches").c_str()
                                 : terminal.bad("NOT all learnt what PEFT's recipe reaches").c_str());
  std::printf("saved as PEFT folders in %s: tools/demo --adapter FOLDER, or PeftModel.from_pretrained\n", options.out.string().c_str());
  return all_learnt ? 0 : 1;
}

}  // namespace
}  // namespace tales

int main(int count, char** arguments) {
  int exit_code = 0;
  try {
    const auto options = tales::parse_training(count, arguments, exit_code);
    return options ? tales::run(*options) : exit_code;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
