#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../adapters/generation.hpp"

namespace graft {

/// What `inject_adapter_in_model` may be told.
struct InjectOptions {
  bool low_cpu_mem_usage = false;  ///< parameters stay on the meta device: no memory until they are loaded
  bool activate = true;            ///< the new adapter becomes the only active one
  bool replace = false;            ///< an adapter of that name is deleted first
  bool strict_targets = false;     ///< a target or pattern key that matches nothing is an error
  std::uint64_t seed = 0;          ///< of the initial values
  const StateDict* state_dict = nullptr;  ///< targets are the modules that its keys name
  const StateDict* file = nullptr;        ///< the weights that will be loaded: they settle what a config leaves open
  const AdapterRecord* instead_of = nullptr;  ///< an adapter that the caller takes out once this one is complete
};

/// A site that a config matched.
struct MatchedModule {
  std::string path;
  LayerKind kind = LayerKind::linear;
  Index in = 0, out = 0, r = 0;
};

/// What an injection did, and what it did not.
struct InjectReport {
  std::vector<MatchedModule> matched;
  std::vector<std::string> unmatched_targets;  ///< targets that match no module
  std::vector<std::string> near_misses;        ///< what they may have meant
  std::vector<std::string> without_room;       ///< plain layers that `all_linear` had to leave out
  std::vector<std::string> warnings;
};

}  // namespace graft
