// Training steps of a whole model against transformers and PEFT: the same base, text, configs and optimiser.
#include "../../../examples/tales/checkpoint.hpp"
#include "../../../examples/tales/hf_config.hpp"
#include "../../../examples/tales/llama.hpp"
#include "../../../examples/tales/tokenizer.hpp"
#include "../../../examples/tales/train/trainer.hpp"
#include "../context.hpp"

namespace paired {

void tales_training(Context& context) {
  using Model = tales::LlamaForCausalLM<float>;
  const auto shipped = std::filesystem::path(GRAFT_SOURCE_DIR) / "examples" / "tales";
  const tales::LlamaConfig config = tales::read_llama_config(shipped / "base");
  tales::Checkpoint checkpoint = tales::open_checkpoint(shipped / "base", config.tie_word_embeddings);
  tales::widen(checkpoint);
  std::vector<int> ids = tales::Tokenizer(shipped / "base").encode(tales::read_text(shipped / "text" / "opticks.train.txt"));
  ids.resize(std::min<std::size_t>(ids.size(), 20000));
  for (const char* method : {"lora", "dora", "ia3"}) {
    const tales::TrainingRecipe recipe = tales::training_recipe(method);
    constexpr int steps = 1 << 20;  // so many are not made: the rate stays
    Model model(config);
    graft::set_base_model_state_dict(model, checkpoint.tensors, {.low_cpu_mem_usage = true});
    graft::inject_adapter_in_model(recipe.config(steps), model);
    tales::Trainer<Model> trainer(model, recipe, steps, 0, 1);
    int step = 0;
    Race race;
    race.add("ours", [&] { keep(trainer.step(step++, ids)); });
    race.add("transformers + peft",
             context.worker("torch", {{"operation", "fine_tune"}, {"base", (shipped / "base").string()}, {"ids", ids}, {"method", method}}));
    race.run({.seconds = context.options.quick ? 0.5 : 6, .sample = 1e-6, .least = 3, .most = 30});
    Row row{.name = std::string("tales, a training step of 8 x 128, ") + recipe.label};
    row.ours = race["ours"];
    row.beside.push_back(race.beside("transformers + peft"));
    row.note = std::to_string(std::lround(double(trainer.tokens_of_step()) / row.ours.median())) + " tokens/s";
    if (race["transformers + peft"].measured())
      row.note += ", theirs " + std::to_string(std::lround(double(trainer.tokens_of_step()) / race["transformers + peft"].median()));
    context.report.row(row);
  }
}

}  // namespace paired
