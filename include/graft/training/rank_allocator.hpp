#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/on_demand.hpp"
#include "../tensor/convert.hpp"
#include "../tensor/gradients.hpp"
#include "../state_dict/kept_ranks.hpp"
#include "adalora_layers.hpp"

namespace graft {

/// AdaLoRA's allocator: while training goes on, it gives up the ranks of the whole adapter that matter least.
///
///     RankAllocator allocator(model, "default");
///     for (long step = 0; step < total_step; ++step) {
///       …                                    // forward, loss, backward, add_orthogonal_penalty
///       optimizer.step(gradients);
///       allocator.update_and_allocate(step, gradients);
///     }
///
/// A rank is given up by zeroing its E; until step total_step − tfinal it may come back. What is kept is written into the
/// adapter's config (`rank_pattern`), by which get_peft_model_state_dict and save_pretrained leave the others out.
/// It holds on to the model's parameters: valid until the model is injected into, loaded into with other memory or moved.
class RankAllocator {
 public:
  /// @throws AdapterError for an unknown name or another method, ConfigError for a schedule that cannot be followed,
  /// TrainingError for an adapter that is not trained, or merged.
  template <class M>
  explicit RankAllocator(M& model, std::string_view adapter_name = "default") : RankAllocator(sites_of(model), adapter_name) {}

  /// How many ranks the adapter has at a step, over all layers.
  [[nodiscard]] Index budget(long step) const {
    const AdaLoraConfig& config = all_.config();
    if (step <= config.tinit) return first_budget_;
    if (step > last_reduction()) return last_budget();
    const double rest = 1 - double(step - config.tinit) / double(last_reduction() - config.tinit);
    return Index(double(first_budget_ - last_budget()) * (rest * rest * rest) + double(last_budget()));
  }
  /// Whether ranks are given up at a step, or come back.
  [[nodiscard]] bool masks_at(long step) const {
    if (step <= all_.config().tinit) return false;
    return step >= last_reduction() || step % all_.config().deltaT == 0;
  }
  /// How much each rank of a layer matters as of the last step; empty while nothing is known, and behind the last reduction.
  [[nodiscard]] std::vector<double> scores(std::string_view path) const {
    std::vector<double> all;
    for (std::size_t i = 0; i < importance_.size(); ++i)
      for (Index k = 0; all_.layers[i].path == path && k < all_.layers[i].rank(); ++k) all.push_back(triplet_score(i, k));
    return all;
  }

  /// To be called after each step of the optimiser with the gradients of that step. `step` counts from 0 to total_step − 1.
  /// @throws TrainingError where gradients are missing or not finite, an earlier step was left out, or the adapter is merged;
  /// nothing has changed then.
  void update_and_allocate(long step, const Gradients& gradients) {
    check_not_merged();
    if (step > last_reduction()) return mask_again(step);
    check_not_resumed();
    if (step < last_reduction()) {
      check_gradients(gradients);
      for (std::size_t i = 0; i < all_.layers.size(); ++i) update_importance(gradients, i);
    }
    if (!masks_at(step)) return;
    if (importance_.empty())
      fail<TrainingError>("update_and_allocate(" + std::to_string(step) + "): nothing is known of the importance of ranks",
                          "it is gathered in the steps before total_step - tfinal, once for each", "call it for every step, each once");
    mask_to(budget(step));
    if (step == last_reduction()) importance_.clear();
  }

 private:
  /// The smoothed importance of a parameter's elements, and how much it varies.
  struct Importance {
    ParameterData mean, variation;
  };
  struct LayerImportance {
    Importance a, b, e;
  };

  template <class = OnDemand>
  RankAllocator(const ModelSites& model, std::string_view adapter_name) {
    detail::share_records(model);
    all_ = detail::adalora_layers(model, adapter_name, "RankAllocator");
    check_schedule();
    // of a pruned adapter, which is trained further, too
    first_budget_ = Index(all_.config().init_r) * Index(all_.layers.size());
  }

  [[nodiscard]] long last_reduction() const { return long(all_.config().total_step) - all_.config().tfinal; }
  [[nodiscard]] Index last_budget() const { return Index(all_.config().target_r) * Index(all_.layers.size()); }

  template <class = OnDemand>
  void check_schedule() const {
    AdaLoraConfig config = all_.config();
    if (config.total_step <= 0)
      fail<ConfigError>("RankAllocator: total_step is " + std::to_string(config.total_step), "the budget falls along the steps of a training run",
                        "inject with the number of steps that the optimiser will make as total_step");
    config.inference_mode = false;
    config.validate();
    if (config.target_r >= config.init_r)
      fail<ConfigError>("RankAllocator: target_r " + std::to_string(config.target_r) + " is not below init_r " + std::to_string(config.init_r),
                        "then no rank is to be given up", "lower target_r, raise init_r, or train without an allocator");
  }
  template <class = OnDemand>
  void check_not_merged() const {
    for (const detail::AdaLoraLayer& layer : all_.layers)
      if (std::find(layer.table->merged.begin(), layer.table->merged.end(), all_.record->id) != layer.table->merged.end())
        fail<TrainingError>("update_and_allocate: adapter '" + all_.record->name() + "' is merged at '" + layer.path + "'",
                            "the base weights hold what it adds", "unmerge_adapter() first");
  }
  /// What was loaded pruned has no rows for the ranks that were given up.
  template <class = OnDemand>
  void check_not_resumed() const {
    for (const detail::AdaLoraLayer& layer : all_.layers)
      if (layer.rank() != all_.config().init_r)
        fail<TrainingError>("update_and_allocate: '" + layer.path + "' has " + std::to_string(layer.rank()) + " ranks, init_r is " +
                                std::to_string(all_.config().init_r),
                            "the adapter was loaded pruned: what was given up cannot come back, and the importance of the others is not known",
                            "go on from a step behind total_step - tfinal, or start anew from an adapter that was not pruned");
  }

  template <class = OnDemand>
  void check_gradients(const Gradients& gradients) const {
    const auto check = [&](const detail::AdaLoraLayer& layer, const ParameterData& parameter, const char* name) {
      if (layer.rank() == 0) return;
      const auto check_as = [&]<class T>(T) {
        const Matrix<T>* gradient = gradients.find_at<T>(parameter);
        if (!gradient)
          fail<TrainingError>("update_and_allocate: " + std::string(name) + " of '" + layer.path + "' has no gradient",
                              "importance is a parameter times its gradient",
                              "call it after backward, and before the gradients are cleared; activate the adapter");
        for (Index i = 0; i < gradient->size(); ++i)
          if (!std::isfinite(gradient->data()[i]))
            fail<TrainingError>("update_and_allocate: the gradient of " + std::string(name) + " at '" + layer.path + "' is not finite",
                                "an importance that is no number would stay so", "lower the learning rate, or clip_grad_norm()");
      };
      parameter.dtype() == Dtype::f64 ? check_as(double{}) : check_as(float{});
    };
    for (const detail::AdaLoraLayer& layer : all_.layers) {
      check(layer, *layer.a, "lora_A");
      check(layer, *layer.b, "lora_B");
      check(layer, *layer.e, "lora_E");
    }
  }

  void update_importance(const Gradients& gradients, std::size_t i) {
    if (importance_.empty()) importance_.resize(all_.layers.size());
    const detail::AdaLoraLayer& layer = all_.layers[i];
    const auto update = [&](const ParameterData& parameter, Importance& importance) {
      parameter.dtype() == Dtype::f64 ? update_as<double>(gradients, parameter, importance) : update_as<float>(gradients, parameter, importance);
    };
    update(*layer.a, importance_[i].a);
    update(*layer.b, importance_[i].b);
    update(*layer.e, importance_[i].e);
  }
  /// In PEFT's order of operations.
  template <class T>
  void update_as(const Gradients& gradients, const ParameterData& parameter, Importance& importance) const {
    const Index count = parameter.shape().size();
    if (count == 0) return;
    const T beta1 = T(all_.config().beta1), new1 = T(1 - all_.config().beta1), beta2 = T(all_.config().beta2), new2 = T(1 - all_.config().beta2);
    const T* gradient = gradients.find_at<T>(parameter)->data();
    T *mean = memory_of<T>(importance.mean, parameter), *variation = memory_of<T>(importance.variation, parameter);
    for (Index i = 0; i < count; ++i) {
      const T now = std::abs(element_as<T>(parameter.dtype(), parameter.data(), std::size_t(i)) * gradient[i]);
      mean[i] = beta1 * mean[i] + new1 * now;
      variation[i] = beta2 * variation[i] + new2 * std::abs(now - mean[i]);
    }
  }
  template <class T>
  [[nodiscard]] static T* memory_of(ParameterData& data, const ParameterData& parameter) {
    if (!data.data()) {
      data = ParameterData(dtype_of<T>, parameter.shape());
      data.allocate();
    }
    return reinterpret_cast<T*>(data.data());
  }

  /// The score of one element; 0 while nothing is known.
  [[nodiscard]] static double score(const Importance& importance, Index i) {
    if (!importance.mean.data()) return 0;
    const auto as = [&]<class T>(T) {
      return double(reinterpret_cast<const T*>(importance.mean.data())[i] * reinterpret_cast<const T*>(importance.variation.data())[i]);
    };
    return importance.mean.dtype() == Dtype::f64 ? as(double{}) : as(float{});
  }
  /// Of rank k with its row of A and its column of B.
  [[nodiscard]] double triplet_score(std::size_t i, Index k) const {
    const Index in = all_.layers[i].a->shape().cols(), out = all_.layers[i].b->shape().rows(), r = all_.layers[i].rank();
    double of_a = 0, of_b = 0;
    for (Index j = 0; j < in; ++j) of_a += score(importance_[i].a, k * in + j);
    for (Index o = 0; o < out; ++o) of_b += score(importance_[i].b, o * r + k);
    return score(importance_[i].e, k) + (of_a / double(in) + of_b / double(out));
  }

  /// Gives up all ranks up to the score of the last one that has to go: of equal ones more than the budget says, as in PEFT.
  template <class = OnDemand>
  void mask_to(Index budget) {
    std::vector<double> scores;
    for (std::size_t i = 0; i < all_.layers.size(); ++i)
      for (Index k = 0; k < all_.layers[i].rank(); ++k) scores.push_back(triplet_score(i, k));
    std::vector<double> sorted = scores;
    const auto last = sorted.begin() + std::ptrdiff_t(first_budget_ - budget - 1);
    std::nth_element(sorted.begin(), last, sorted.end());
    RankPattern pattern;
    std::size_t next = 0;
    for (const detail::AdaLoraLayer& layer : all_.layers) {
      std::vector<bool> kept;
      for (Index k = 0; k < layer.rank(); ++k) kept.push_back(scores[next++] > *last);
      mask(layer, kept);
      pattern.emplace_back(layer.path, std::move(kept));
    }
    std::get<AdaLoraConfig>(all_.record->generation.own()->config).rank_pattern = std::move(pattern);
  }
  /// The optimiser may have moved what was zeroed.
  template <class = OnDemand>
  void mask_again(long step) const {
    for (const detail::AdaLoraLayer& layer : all_.layers)
      if (const std::vector<bool>* kept = detail::rank_pattern_at(*all_.record, layer.path); !kept)
        fail<TrainingError>("update_and_allocate(" + std::to_string(step) + "): no ranks were chosen for '" + layer.path + "'",
                            "that is done at step total_step - tfinal = " + std::to_string(last_reduction()),
                            "call it for every step; tfinal must be above 0 for that step to come");
    for (const detail::AdaLoraLayer& layer : all_.layers)
      if (const std::vector<bool>* kept = detail::rank_pattern_at(*all_.record, layer.path); Index(kept->size()) == layer.rank())
        mask(layer, *kept);  // what was loaded pruned has only the kept ones
  }
  static void mask(const detail::AdaLoraLayer& layer, const std::vector<bool>& kept) {
    if (std::find(kept.begin(), kept.end(), false) == kept.end()) return;
    layer.e->detach();
    const std::size_t size = size_of(layer.e->dtype());
    for (std::size_t k = 0; k < kept.size(); ++k)
      if (!kept[k]) std::memset(layer.e->data() + k * size, 0, size);
    layer.e->touch();
  }

  detail::AdaLoraLayers all_;
  Index first_budget_ = 0;
  std::vector<LayerImportance> importance_;
};

}  // namespace graft
