#include "llama_engine.hpp"

std::unique_ptr<tales::Engine> tales::make_engine_f16(const LlamaConfig& config,
                                                      const Checkpoint& checkpoint) {
  return std::make_unique<LlamaEngine<graft::f16>>(config, checkpoint);
}
