#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <graft/graft.hpp>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint.hpp"
#include "llama_config.hpp"

namespace tales {

/// Which adapter a computation uses: one by its name or, by default, those that are active. An engine without
/// adapters, or inside while_disabled(), has none active.
struct Use {
  std::string adapter{};
  bool base_only = false;  ///< none, whatever is active
};

/// A Llama and its adapters, whatever the scalar of its weights: what the program needs of a model.
/// The template behind it is compiled once for each scalar, in engine_f32.cpp, engine_f16.cpp and
/// engine_bf16.cpp.
class Engine {
 public:
  virtual ~Engine() = default;

  /// Injects on meta and loads a PEFT folder. @throws graft::Error when it does not fit; nothing has changed
  /// then.
  virtual graft::LoadReport load_adapter(const std::filesystem::path& folder, const std::string& name) = 0;
  /// The tree of one decoder layer.
  [[nodiscard]] virtual std::string tree(std::size_t layer) const = 0;

  /// The sum of losses of each of the first `windows` windows. `advance` is told how many are done, from any
  /// thread.
  [[nodiscard]] virtual std::vector<double> window_losses(
      std::span<const int> ids, std::size_t windows, const Use& use, unsigned threads,
      const std::function<void(std::size_t)>& advance) const = 0;
  /// The logits of one sequence, (n, vocab_size).
  [[nodiscard]] virtual graft::Matrix<float> logits(std::span<const int> ids, const Use& use) const = 0;
  /// The same of several sequences, each with its own adapter, in one pass.
  [[nodiscard]] virtual std::vector<graft::Matrix<float>> mixed_logits(
      const std::vector<std::span<const int>>& sequences, const std::vector<Use>& uses) const = 0;
  /// What follows the prompt, greedily, with a KV cache; ends after one of `stop`.
  [[nodiscard]] virtual std::vector<int> generate(std::span<const int> prompt, std::size_t count,
                                                  std::span<const int> stop, const Use& use) const = 0;
  /// Runs `body` with all adapters disabled.
  virtual void while_disabled(const std::function<void()>& body) = 0;
};

/// The model on the checkpoint's bytes. @throws graft::StateDictError when keys or shapes do not fit the
/// config.
std::unique_ptr<Engine> make_engine(const LlamaConfig&, const Checkpoint&);

// One for each scalar.
std::unique_ptr<Engine> make_engine_f32(const LlamaConfig&, const Checkpoint&);
std::unique_ptr<Engine> make_engine_f16(const LlamaConfig&, const Checkpoint&);
std::unique_ptr<Engine> make_engine_bf16(const LlamaConfig&, const Checkpoint&);

inline std::unique_ptr<Engine> make_engine(const LlamaConfig& config, const Checkpoint& checkpoint) {
  switch (checkpoint.dtype) {
    case graft::Dtype::f16:
      return make_engine_f16(config, checkpoint);
    case graft::Dtype::bf16:
      return make_engine_bf16(config, checkpoint);
    default:
      return make_engine_f32(config, checkpoint);
  }
}

}  // namespace tales
