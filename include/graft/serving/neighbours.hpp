#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <unordered_map>
#include <vector>

#include "../tensor/selection.hpp"

namespace graft {

/// The order in which requests of equal selections stand side by side, so that a batch of them has as few segments as
/// it can: `order[i]` is the request that comes i-th. Selections come in the order of their first request, requests of
/// one selection in their own.
[[nodiscard]] inline std::vector<std::size_t> neighbours(std::span<const AdapterSelection> selections) {
  const auto is_same = [](const AdapterSelection& a, const AdapterSelection& b) {
    return a.follows_active() == b.follows_active() && std::ranges::equal(a.list(), b.list());
  };
  std::unordered_multimap<std::size_t, std::size_t> places;  // a hash -> the group
  std::vector<std::vector<std::size_t>> groups;
  for (std::size_t i = 0; i < selections.size(); ++i) {
    std::size_t hash = selections[i].follows_active();
    for (const WeightedAdapter& one : selections[i].list())
      hash = (hash ^ one.id ^ std::hash<const void*>()(one.generation) ^ std::hash<double>()(one.weight)) * 0x9E3779B97F4A7C15u;
    const auto [begin, end] = places.equal_range(hash);
    const auto found = std::find_if(begin, end, [&](const auto& place) { return is_same(selections[groups[place.second].front()], selections[i]); });
    if (found != end) {
      groups[found->second].push_back(i);
      continue;
    }
    places.emplace(hash, groups.size());
    groups.push_back({i});
  }
  std::vector<std::size_t> order;
  for (const auto& group : groups) order.insert(order.end(), group.begin(), group.end());
  return order;
}

}  // namespace graft
