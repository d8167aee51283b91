#include "llama_engine.hpp"

std::unique_ptr<tales::Engine> tales::make_engine_f32(const LlamaConfig& config,
                                                      const Checkpoint& checkpoint) {
  return std::make_unique<LlamaEngine<float>>(config, checkpoint);
}
