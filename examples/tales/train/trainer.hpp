#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <exception>
#include <functional>
#include <graft/graft.hpp>
#include <graft/train.hpp>
#include <optional>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "../perplexity.hpp"
#include "recipe.hpp"

namespace tales {

/// Trains the adapter "default" of a model on a text, with steps of 8 windows of 128 tokens at random places: AdamW without
/// decay, gradients clipped to norm 1, a rate that warms up over a fifteenth of the steps and then follows a cosine to 0.
///
/// Each thread goes through its share of the windows with a batch and a tape of its own: the model is const to them.
template <class M>
class Trainer {
 public:
  Trainer(M& model, const TrainingRecipe& recipe, int steps, std::uint64_t seed, unsigned threads)
      : model_(model),
        recipe_(recipe),
        steps_(steps),
        dice_(seed),
        workers_(std::min<std::size_t>(threads, windows)),
        optimizer_(graft::trainable_parameters(model), {.lr = recipe.learning_rate, .weight_decay = 0}) {
    if (recipe.name == "adalora") allocator_.emplace(model, "default");
  }

  /// One step on windows of that text; its loss, of a token.
  double step(int number, std::span<const int> ids) {
    draw(ids);
    graft::Gradients& gradients = workers_.front().tape.gradients();
    double loss = go_through_windows(ids);
    if (allocator_) loss += graft::add_orthogonal_penalty(model_, "default", gradients);
    graft::clip_grad_norm(gradients, 1.0);
    optimizer_.set_lr(recipe_.learning_rate * rate(number));
    optimizer_.step(gradients);
    if (allocator_) allocator_->update_and_allocate(number, gradients);
    return loss;
  }

  /// Tokens that a step reads.
  static constexpr std::size_t tokens_of_step() { return windows * window_length; }

 private:
  static constexpr std::size_t windows = 8;
  struct Worker {
    graft::Batch batch{};
    graft::Tape tape{};
    std::vector<int> read{}, expected{};
    double loss = 0;
    std::exception_ptr error{};
  };

  /// Of the peak: the first step has a part of it already, and the last one is not lost.
  [[nodiscard]] double rate(int number) const {
    const int warmup = steps_ / 15;
    return graft::cosine_with_warmup(number < warmup ? number + 1 : number, warmup, steps_);
  }

  void draw(std::span<const int> ids) {
    std::uniform_int_distribution<std::size_t> place(0, ids.size() - window_length - 1);
    for (std::size_t& start : starts_) start = place(dice_);
  }

  /// The gradients of all windows are in the first worker's tape then; answers their loss.
  double go_through_windows(std::span<const int> ids) {
    const auto run = [&](Worker& worker, std::size_t first, std::size_t end) {
      try {
        go_through(worker, ids, first, end);
      } catch (...) {
        worker.error = std::current_exception();
      }
    };
    const auto begin_of = [&](std::size_t worker) { return worker * windows / workers_.size(); };
    {
      std::vector<std::jthread> others;
      for (std::size_t i = 1; i < workers_.size(); ++i)
        others.emplace_back(run, std::ref(workers_[i]), begin_of(i), begin_of(i + 1));
      run(workers_[0], 0, begin_of(1));
    }
    double loss = 0;
    for (Worker& worker : workers_) {
      if (worker.error) std::rethrow_exception(worker.error);
      if (&worker != &workers_.front()) workers_.front().tape.gradients().add(worker.tape.gradients());
      loss += worker.loss;
    }
    return loss;
  }
  void go_through(Worker& worker, std::span<const int> ids, std::size_t first, std::size_t end) {
    worker.batch.clear();
    worker.tape.clear();
    worker.tape.gradients().clear();
    worker.read.clear();
    worker.expected.clear();
    for (std::size_t i = first; i < end; ++i) {
      worker.batch.add(graft::Index(window_length));
      const auto window = ids.subspan(starts_[i], window_length + 1);
      worker.read.insert(worker.read.end(), window.begin(), window.end() - 1);
      worker.expected.insert(worker.expected.end(), window.begin() + 1, window.end());
    }
    const double share = double(end - first) / double(windows);
    const auto logits = model_(worker.tape.input(worker.batch.input(worker.read)));
    const graft::Loss loss = graft::cross_entropy(logits, worker.expected);
    worker.tape.backward(loss, share);
    worker.loss = share * loss.value();
  }

  M& model_;
  TrainingRecipe recipe_;
  int steps_;
  std::mt19937_64 dice_;
  std::array<std::size_t, windows> starts_{};
  std::vector<Worker> workers_;
  graft::AdamW optimizer_;
  std::optional<graft::RankAllocator> allocator_{};
};

}  // namespace tales
