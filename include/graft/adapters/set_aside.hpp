#pragma once

#include <string_view>
#include <vector>

#include "../tensor/zeroed.hpp"
#include "adapter.hpp"

namespace graft::detail {

/// Sets memory aside for the parameters of a large adapter, which have none yet: one stretch of huge pages for all that
/// have the same name, so that those which stay zero at first (B) cost nothing. It is given back with the last of them.
inline void set_memory_aside(const std::vector<AnyAdapterState*>& states) {
  struct Stretch {
    std::string_view name;
    std::vector<ParameterData*> parameters;
    std::size_t bytes = 0;
  };
  constexpr std::size_t line = 64;
  const auto rounded = [](const ParameterData& parameter) { return (parameter.bytes() + line - 1) / line * line; };
  std::vector<Stretch> stretches;
  for (AnyAdapterState* state : states)
    for (const AdapterParameter& parameter : state->parameters()) {
      if (!parameter.data->is_meta()) continue;
      Stretch* found = nullptr;
      for (Stretch& stretch : stretches)
        if (stretch.name == parameter.name) found = &stretch;
      if (!found) found = &stretches.emplace_back(Stretch{parameter.name, {}, 0});
      found->parameters.push_back(parameter.data);
      found->bytes += rounded(*parameter.data);
    }
  for (const Stretch& stretch : stretches) {
    if (stretch.bytes < 2 * huge_page) continue;
    const std::shared_ptr<std::byte> memory = zeroed_in_huge_pages(stretch.bytes);
    if (!memory) continue;
    std::byte* next = memory.get();
    for (ParameterData* parameter : stretch.parameters) {
      parameter->set_aside(std::shared_ptr<void>(memory, next));
      next += rounded(*parameter);
    }
  }
}

}  // namespace graft::detail
