#include <doctest/doctest.h>

#include <vector>

#include "checkpoint.hpp"
#include "hf_config.hpp"
#include "llama.hpp"
#include "support.hpp"
#include "tokenizer.hpp"
#include "train/trainer.hpp"

namespace {
using Model = tales::LlamaForCausalLM<float>;

struct Trained {
  std::vector<double> losses;
  graft::StateDict adapter;
};

/// Some first steps of a recipe.
Trained train(const std::string& method, unsigned threads, std::uint64_t seed, int steps) {
  const auto folder = std::filesystem::path(GRAFT_SOURCE_DIR) / "examples" / "tales";
  const tales::LlamaConfig config = tales::read_llama_config(folder / "base");
  tales::Checkpoint checkpoint = tales::open_checkpoint(folder / "base", config.tie_word_embeddings);
  tales::widen(checkpoint);
  const std::vector<int> ids = tales::Tokenizer(folder / "base").encode(tales::read_text(folder / "text" / "opticks.train.txt"));
  Model model(config);
  graft::set_base_model_state_dict(model, checkpoint.tensors, {.low_cpu_mem_usage = true});
  const tales::TrainingRecipe recipe = tales::training_recipe(method);
  graft::inject_adapter_in_model(recipe.config(steps), model, "default", {.seed = seed});
  tales::Trainer<Model> trainer(model, recipe, steps, seed, threads);
  Trained trained;
  for (int step = 0; step < steps; ++step) trained.losses.push_back(trainer.step(step, ids));
  trained.adapter = graft::get_peft_model_state_dict(model).clone();
  return trained;
}

double distance(const graft::StateDict& a, const graft::StateDict& b) {
  REQUIRE(a.keys() == b.keys());
  double worst = 0;
  for (const auto& [key, view] : a)
    for (std::size_t i = 0; i < std::size_t(view.size()); ++i)
      worst = std::max(worst, std::abs(graft::element_as<double>(view.dtype, view.data, i) -
                                       graft::element_as<double>(b.at(key).dtype, b.at(key).data, i)));
  return worst;
}
}  // namespace

TEST_CASE("training learns, and the same seed on as many threads learns the same bits") {
  const Trained first = train("lora", 2, 1, 12), again = train("lora", 2, 1, 12), other = train("lora", 2, 2, 12);
  CHECK(first.losses.back() < first.losses.front() - 0.2);
  CHECK(first.losses == again.losses);
  CHECK(distance(first.adapter, again.adapter) == 0);
  CHECK(distance(first.adapter, other.adapter) > 0.01);
}

TEST_CASE("windows may be shared out over any number of threads") {
  const Trained one = train("ia3", 1, 1, 2), three = train("ia3", 3, 1, 2);
  // sums in another order; Adam's first steps are of one size whatever the gradient's, so only its sign must agree
  CHECK(one.losses[0] == doctest::Approx(three.losses[0]).epsilon(1e-5));
  CHECK(one.losses[1] == doctest::Approx(three.losses[1]).epsilon(1e-3));
}

TEST_CASE("AdaLoRA's recipe gives ranks up and trains on") {
  const Trained trained = train("adalora", 2, 1, 12);
  CHECK(trained.losses.back() < trained.losses.front());
  std::size_t rows = 0;
  for (const auto& [key, view] : trained.adapter)
    if (key.ends_with("lora_E")) rows += std::size_t(view.shape[0]);
  CHECK(rows == 8 * 28);
}

TEST_CASE("an unknown method is refused with the known ones") {
  CHECK_THROWS_AS((void)tales::training_recipe("prefix"), graft::ConfigError);
}
