// Tokens a second of whole models against transformers and PEFT on the same files.
#include "../../../examples/tales/checkpoint.hpp"
#include "../../../examples/tales/engine.hpp"
#include "../../../examples/tales/hf_config.hpp"
#include "../../../examples/tales/perplexity.hpp"
#include "../../../examples/tales/tokenizer.hpp"
#include "../context.hpp"

namespace paired {
namespace {

std::filesystem::path shipped() { return std::filesystem::path(GRAFT_SOURCE_DIR) / "examples" / "tales"; }

/// A model, its adapter, and what it reads.
struct Model {
  explicit Model(const std::filesystem::path& base, const std::filesystem::path& with = {})
      : folder(base), adapter(with), config(tales::read_llama_config(base)),
        checkpoint(tales::open_checkpoint(base, config.tie_word_embeddings)), engine(tales::make_engine(config, checkpoint)) {
    if (!adapter.empty()) engine->load_adapter(adapter, "adapter");
  }
  [[nodiscard]] tales::Use use() const { return {adapter.empty() ? "" : "adapter"}; }
  [[nodiscard]] nlohmann::json job(const char* operation, const std::vector<int>& ids) const {
    nlohmann::json described{{"operation", operation}, {"base", folder.string()}, {"ids", ids}};
    if (!adapter.empty()) described["adapter"] = adapter.string();
    return described;
  }

  std::filesystem::path folder, adapter;
  tales::LlamaConfig config;
  tales::Checkpoint checkpoint;
  std::unique_ptr<tales::Engine> engine;
};

Row finished(Context& context, Row row, Race& race, const std::string& goal, double target, double tokens) {
  race.run({.seconds = context.options.quick ? 0.5 : 6, .sample = 1e-6, .least = 3, .most = 30});
  row.ours = race["ours"];
  row.beside.push_back(race.beside("transformers + peft"));
  Gate gate{.goal = goal, .what = "theirs / ours", .bound = Bound::at_least, .target = target,
            .value = race["transformers + peft"] / row.ours, .reason = race.reason("transformers + peft")};
  row.gates.push_back(gate);
  row.note = std::to_string(std::lround(tokens / row.ours.median())) + " tokens/s";
  if (race["transformers + peft"].measured())
    row.note += ", theirs " + std::to_string(std::lround(tokens / race["transformers + peft"].median()));
  return row;
}

void evaluation(Context& context, const Model& model, const std::vector<int>& ids, const std::string& name) {
  constexpr std::size_t windows = 32, together = 8;
  const std::vector<int> read(ids.begin(), ids.begin() + std::ptrdiff_t(windows * tales::window_length + 1));
  nlohmann::json job = model.job("evaluate", read);
  job["together"] = together;
  job["length"] = tales::window_length;
  Race race;
  race.add("ours", [&] { keep(model.engine->window_losses(read, windows, model.use(), 1, [](std::size_t) {})); });
  race.add("transformers + peft", context.worker("torch", job));
  context.report.row(finished(context, {.name = name}, race, "PEFT tales", 2.0, double(windows * tales::window_length)));
}

void generation(Context& context, const Model& model, const std::vector<int>& prompt, const std::string& name,
                const std::string& goal, double target) {
  const std::size_t tokens = context.options.quick ? 32 : 128;
  nlohmann::json job = model.job("generate", prompt);
  job["tokens"] = tokens;
  Race race;
  race.add("ours", [&] { keep(model.engine->generate(prompt, tokens, {}, model.use())); });
  race.add("transformers + peft", context.worker("torch", job));
  context.report.row(finished(context, {.name = name}, race, goal, target, double(tokens)));
}

void reading_a_prompt(Context& context, const Model& model, const std::vector<int>& prompt, const std::string& name) {
  Race race;
  race.add("ours", [&] { keep(model.engine->generate(prompt, 1, {}, model.use())); });
  race.add("transformers + peft", context.worker("torch", model.job("prompt", prompt)));
  context.report.row(finished(context, {.name = name}, race, "PEFT SmolLM2", 1.2, double(prompt.size())));
}

void smollm(Context& context) {
  const struct {
    const char *task, *what;
    double target;
  } rows[] = {{"generation", "base", 1.2}, {"generation with LoRA r=16", "lora", 1.3}, {"prompt of 512", "prompt", 1.2}};
  const std::filesystem::path& folder = context.options.smollm;
  for (const auto& [task, what, target] : rows) {
    const std::string name = std::string(context.options.smollm_is_random ? "SmolLM2-135M's shape" : "SmolLM2-135M") + " f32, " + task;
    std::string reason = context.options.quick ? not_quick
                         : folder.empty()      ? "no directory given (--smollm DIR), and no torch to make a model of its shape"
                                               : "";
    if (reason.empty()) {
      try {
        const bool with_lora = std::string(what) == "lora";
        const Model model(folder, with_lora ? folder / "adapter" : std::filesystem::path());
        std::vector<int> prompt;
        for (int i = 0; i < (std::string(what) == "prompt" ? 512 : 16); ++i) prompt.push_back(100 + 37 * i % 4000);
        if (std::string(what) == "prompt") reading_a_prompt(context, model, prompt, name);
        else generation(context, model, prompt, name, "PEFT SmolLM2", target);
        continue;
      } catch (const std::exception& error) {
        reason = std::string(error.what()).substr(0, std::string(error.what()).find('\n'));
      }
    }
    Row row{.name = name, .reason = reason};
    row.gates.push_back({.goal = "PEFT SmolLM2", .what = "theirs / ours", .bound = Bound::at_least, .target = target, .reason = reason});
    context.report.row(row);
  }
}

}  // namespace

void tales_tokens(Context& context) {
  context.report.area("tales", "Tokens a second of whole models, one thread");
  const tales::Tokenizer tokenizer(shipped() / "base");
  const std::vector<int> text = tokenizer.encode(tales::read_text(shipped() / "text" / "opticks.test.txt"));
  const std::vector<int> prompt = tokenizer.encode("The rays of light");
  for (const char* adapter : {"", "lora"}) {
    const Model model(shipped() / "base", *adapter ? shipped() / "adapters" / adapter : std::filesystem::path());
    const std::string suffix = *adapter ? std::string(" with ") + adapter : "";
    evaluation(context, model, text, "tales, evaluation in batches of 8 x 128" + suffix);
    generation(context, model, prompt, "tales, generation" + suffix, "PEFT tales", 10.0);
  }
  tales_training(context);
  smollm(context);
  Row other{.name = "tales in llama.cpp and openvino-genai", .reason = "the model exists in no format of theirs"};
  context.report.row(other);
}

}  // namespace paired
