#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "version.hpp"

namespace graft {

namespace detail {
using Before = bool (*)(const void* things, std::size_t i, std::size_t j);

/// The numbers from 0 to `size` in the order that `before` says of the things with these numbers, equals as they were.
[[nodiscard]] inline std::vector<std::size_t> sorted_order(std::size_t size, const void* things, Before before) {
  std::vector<std::size_t> order(size), merged(size);
  for (std::size_t i = 0; i < size; ++i) order[i] = i;
  for (std::size_t width = 1; width < size; width *= 2) {
    for (std::size_t begin = 0; begin < size; begin += 2 * width) {
      const std::size_t middle = std::min(begin + width, size), end = std::min(middle + width, size);
      std::size_t left = begin, right = middle;
      for (std::size_t place = begin; place < end; ++place) {
        const bool is_right = left == middle || (right < end && before(things, order[right], order[left]));
        merged[place] = is_right ? order[right++] : order[left++];
      }
    }
    std::swap(order, merged);
  }
  return order;
}
}  // namespace detail

/// What `std::stable_sort` does, where speed does not matter: that is compiled anew for every type that is sorted, this is
/// compiled once.
template <class T, class Before>
void sort_stably(std::vector<T>& things, const Before& before) {
  struct Things {
    const std::vector<T>& all;
    const Before& before;
  };
  const Things unsorted{things, before};
  const std::vector<std::size_t> order =
      detail::sorted_order(things.size(), &unsorted, [](const void* context, std::size_t i, std::size_t j) -> bool {
        const Things& those = *static_cast<const Things*>(context);
        return those.before(those.all[i], those.all[j]);
      });
  std::vector<T> sorted;
  sorted.reserve(things.size());
  for (const std::size_t i : order) sorted.push_back(std::move(things[i]));
  things.swap(sorted);
}

}  // namespace graft
