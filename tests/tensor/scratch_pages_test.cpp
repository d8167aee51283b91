#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <graft/tensor/scratch_pages.hpp>
#include <utility>
#include <vector>

using graft::detail::huge_page;
using graft::detail::ScratchPages;

namespace {
constexpr std::size_t quarter = huge_page / 4;
bool is_aligned(const void* block) { return reinterpret_cast<std::uintptr_t>(block) % 64 == 0; }
}  // namespace

TEST_CASE("blocks share a page until it is full, and none overlaps another") {
  ScratchPages pages;
  std::vector<std::pair<std::byte*, std::size_t>> blocks;
  for (const std::size_t size : {quarter, huge_page / 2, quarter, quarter, 2 * huge_page, huge_page / 2})
    blocks.emplace_back(pages.cut(size), size);
  CHECK(blocks[1].first == blocks[0].first + quarter);
  CHECK(blocks[2].first == blocks[1].first + huge_page / 2);
  CHECK(blocks[5].first == blocks[3].first + quarter);  // what is larger than a page stands apart
  CHECK(pages.bytes() == 4 * huge_page);
  for (std::size_t i = 0; i < blocks.size(); ++i) std::fill_n(blocks[i].first, blocks[i].second, std::byte(i + 1));
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    CHECK(is_aligned(blocks[i].first));
    CHECK(std::all_of(blocks[i].first, blocks[i].first + blocks[i].second, [&](std::byte b) { return b == std::byte(i + 1); }));
  }
  pages.clear();
  CHECK(pages.bytes() == 0);
  std::fill_n(pages.cut(quarter), quarter, std::byte{1});
  CHECK(pages.bytes() == huge_page);
}

TEST_CASE("what was moved from starts anew") {
  ScratchPages pages;
  std::byte* first = pages.cut(quarter);
  ScratchPages other = std::move(pages);
  std::byte* second = other.cut(quarter);
  CHECK(second == first + quarter);
  std::byte* third = pages.cut(quarter);
  CHECK(third != second);
  CHECK(third != first);
}
