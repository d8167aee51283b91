#include "llama_engine.hpp"

std::unique_ptr<tales::Engine> tales::make_engine_bf16(const LlamaConfig& config,
                                                       const Checkpoint& checkpoint) {
  return std::make_unique<LlamaEngine<graft::bf16>>(config, checkpoint);
}
