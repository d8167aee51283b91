#pragma once

#include <algorithm>
#include <string_view>
#include <vector>

#include "../tensor/zeroed.hpp"
#include "adapter.hpp"

namespace graft::detail {

/// Sets memory aside for the parameters of a large adapter, those that have none yet: one stretch of huge pages for all that
/// have the same name, so that those which stay zero at first (B) cost nothing. It is given back with the last of them.
inline void set_memory_aside(const std::vector<AdapterParameter>& all) {
  constexpr std::size_t line = 64;
  const auto rounded = [](const ParameterData& parameter) { return (parameter.bytes() + line - 1) / line * line; };
  std::vector<std::string_view> names;
  for (const AdapterParameter& parameter : all)
    if (std::find(names.begin(), names.end(), parameter.name) == names.end()) names.push_back(parameter.name);
  for (const std::string_view name : names) {
    std::size_t bytes = 0;
    for (const AdapterParameter& parameter : all)
      if (parameter.name == name && parameter.data->is_meta()) bytes += rounded(*parameter.data);
    if (bytes < 2 * huge_page) continue;
    const std::shared_ptr<std::byte> memory = zeroed_in_huge_pages(bytes);
    if (!memory) continue;
    std::byte* next = memory.get();
    for (const AdapterParameter& parameter : all) {
      if (parameter.name != name || !parameter.data->is_meta()) continue;
      parameter.data->set_aside(std::shared_ptr<void>(memory, next));
      next += rounded(*parameter.data);
    }
  }
}

}  // namespace graft::detail
