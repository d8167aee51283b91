#include <graft/core/sort.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

TEST_CASE("sort_stably: sorts as the standard library does, at every length, and keeps equals in their order") {
  unsigned state = 1;
  for (std::size_t size = 0; size < 70; ++size) {
    std::vector<std::pair<int, std::size_t>> things;
    for (std::size_t i = 0; i < size; ++i) {
      state = state * 1664525u + 1013904223u;
      things.emplace_back(int(state >> 24) % 9, i);
    }
    const auto by_first = [](const auto& a, const auto& b) { return a.first < b.first; };
    auto expected = things;
    std::stable_sort(expected.begin(), expected.end(), by_first);
    graft::sort_stably(things, by_first);
    CHECK(things == expected);
  }
}

TEST_CASE("sort_stably: things that can only be moved") {
  std::vector<std::unique_ptr<std::string>> texts;
  for (const char* text : {"c", "a", "b"}) texts.push_back(std::make_unique<std::string>(text));
  graft::sort_stably(texts, [](const auto& a, const auto& b) { return *a < *b; });
  CHECK(*texts[0] == "a");
  CHECK(*texts[1] == "b");
  CHECK(*texts[2] == "c");
}
