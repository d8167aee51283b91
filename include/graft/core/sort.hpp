#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "version.hpp"

namespace graft {

namespace detail {
[[nodiscard]] inline std::vector<std::size_t> merge_order(std::size_t size, const void* context,
                                                          bool (*before)(const void* context, std::size_t i, std::size_t j)) {
  std::vector<std::size_t> order(size), merged(size);
  for (std::size_t i = 0; i < size; ++i) order[i] = i;
  for (std::size_t width = 1; width < size; width *= 2) {
    for (std::size_t begin = 0; begin < size; begin += 2 * width) {
      const std::size_t middle = std::min(begin + width, size), end = std::min(middle + width, size);
      std::size_t left = begin, right = middle;
      for (std::size_t place = begin; place < end; ++place) {
        const bool is_right = left == middle || (right < end && before(context, order[right], order[left]));
        merged[place] = is_right ? order[right++] : order[left++];
      }
    }
    std::swap(order, merged);
  }
  return order;
}
}  // namespace detail

/// The numbers from 0 to `size` in the order that `before(i, j)` says of what has these numbers, equals as they were. The
/// standard library's sorts are compiled anew for every type that is sorted; this is compiled once.
template <class Before>
[[nodiscard]] std::vector<std::size_t> sorted_order(std::size_t size, const Before& before) {
  return detail::merge_order(size, &before, [](const void* it, std::size_t i, std::size_t j) -> bool {
    return (*static_cast<const Before*>(it))(i, j);
  });
}

/// What `std::stable_sort` does.
template <class T, class Before>
void sort_stably(std::vector<T>& things, const Before& before) {
  std::vector<std::size_t> order =
      sorted_order(things.size(), [&](std::size_t i, std::size_t j) { return before(things[i], things[j]); });
  for (std::size_t first = 0; first < order.size(); ++first) {  // each cycle of places that exchange their things
    if (order[first] == first) continue;
    T held = std::move(things[first]);
    std::size_t place = first;
    for (std::size_t from = order[place]; from != first; from = order[place]) {
      things[place] = std::move(things[from]);
      order[place] = place;
      place = from;
    }
    things[place] = std::move(held);
    order[place] = place;
  }
}

}  // namespace graft
