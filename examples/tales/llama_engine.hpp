#pragma once

#include <algorithm>
#include <graft/graft.hpp>
#include <graft/io.hpp>
#include <utility>

#include "engine.hpp"
#include "llama.hpp"
#include "window_losses.hpp"

namespace tales {

/// The engine for weights of scalar W.
template <class W>
class LlamaEngine final : public Engine {
 public:
  LlamaEngine(const LlamaConfig& config, const Checkpoint& checkpoint) : config_(config), model_(config) {
    // Layers declared `mapped` have no memory of their own: they take the checkpoint's, and keep it open.
    graft::set_base_model_state_dict(model_, checkpoint.tensors, {.low_cpu_mem_usage = true});
  }

  graft::LoadReport load_adapter(const std::filesystem::path& folder, const std::string& name) override {
    return graft::load_adapter(model_, folder, name, {.low_cpu_mem_usage = true});
  }

  std::string tree(std::size_t layer) const override { return graft::repr(model_.model.layers.at(layer)); }

  std::vector<double> window_losses(std::span<const int> ids, std::size_t windows, const Use& use,
                                    unsigned threads,
                                    const std::function<void(std::size_t)>& advance) const override {
    return tales::window_losses(model_, ids, windows, select(use), threads, advance);
  }

  graft::Matrix<float> logits(std::span<const int> ids, const Use& use) const override {
    graft::Batch batch;
    batch.add(graft::Index(ids.size()), select(use));
    return model_(batch.input(ids)).value();
  }

  std::vector<graft::Matrix<float>> mixed_logits(const std::vector<std::span<const int>>& sequences,
                                                 const std::vector<Use>& uses) const override {
    graft::Batch batch;
    std::vector<int> ids;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      batch.add(graft::Index(sequences[i].size()), select(uses[i]));
      ids.insert(ids.end(), sequences[i].begin(), sequences[i].end());
    }
    const graft::Matrix<float> all = model_(batch.input(ids)).value();
    std::vector<graft::Matrix<float>> each;
    graft::Index row = 0;
    for (const auto& sequence : sequences) {
      each.emplace_back(all.middleRows(row, graft::Index(sequence.size())));
      row += graft::Index(sequence.size());
    }
    return each;
  }

  std::vector<int> generate(std::span<const int> prompt, std::size_t count, std::span<const int> stop,
                            const Use& use) const override {
    const graft::AdapterSelection selection = select(use);
    graft::KvCache<> cache(config_.num_hidden_layers, config_.num_key_value_heads * config_.head_dim,
                           graft::Index(prompt.size() + count));
    graft::Batch batch;
    std::vector<int> read(prompt.begin(), prompt.end()), written;
    while (written.size() < count) {
      batch.clear();
      batch.add(graft::Index(read.size()), selection, &cache);
      const auto logits = model_.next(batch.input(read));
      graft::Index best = 0;
      logits.value().row(0).maxCoeff(&best);
      written.push_back(int(best));
      if (std::find(stop.begin(), stop.end(), int(best)) != stop.end()) break;
      read.assign(1, int(best));
    }
    return written;
  }

  void while_disabled(const std::function<void()>& body) override {
    const auto guard = graft::disable_adapter(model_);
    body();
  }

 private:
  graft::AdapterSelection select(const Use& use) const {
    if (use.base_only) return graft::base_only();
    return use.adapter.empty() ? graft::AdapterSelection{} : graft::select(model_, {{use.adapter}});
  }

  LlamaConfig config_;
  LlamaForCausalLM<W> model_;
};

}  // namespace tales
