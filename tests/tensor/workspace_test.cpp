#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <graft/tensor/workspace.hpp>
#include <set>
#include <vector>

using graft::Scratch;
using graft::Workspace;

namespace {
bool is_aligned(const void* block) { return reinterpret_cast<std::uintptr_t>(block) % 64 == 0; }
}  // namespace

TEST_CASE("blocks are 64-byte aligned, and two that are out at once differ") {
  Workspace workspace;
  std::set<std::byte*> blocks;
  const std::size_t sizes[] = {0, 1, 63, 64, 65, 1000, 1024};
  std::vector<std::byte*> taken;
  for (const std::size_t bytes : sizes) {
    std::byte* block = taken.emplace_back(workspace.take(bytes));
    CHECK(is_aligned(block));
    for (std::size_t i = 0; i < bytes; ++i) block[i] = std::byte(i);
    blocks.insert(block);
  }
  CHECK(blocks.size() == std::size(sizes));
  for (std::size_t i = 0; i < taken.size(); ++i) workspace.give(taken[i], sizes[i]);
}

TEST_CASE("what was given back is used again by requests of about that size") {
  Workspace workspace;
  std::byte* first = workspace.take(1000);
  const std::size_t reserved = workspace.reserved();
  CHECK(reserved >= 1000);
  workspace.give(first, 1000);
  CHECK(workspace.take(600) == first);
  workspace.give(first, 600);
  CHECK(workspace.reserved() == reserved);
  std::byte* larger = workspace.take(1025);
  CHECK(larger != first);
  workspace.give(larger, 1025);
}

TEST_CASE("a block that was given back is handed out once") {
  Workspace workspace;
  std::byte* a = workspace.take(100);
  std::byte* b = workspace.take(100);
  workspace.give(a, 100);
  workspace.give(b, 100);
  std::byte* c = workspace.take(100);
  std::byte* d = workspace.take(100);
  std::byte* e = workspace.take(100);
  CHECK(std::set{a, b} == std::set{c, d});
  CHECK(e != nullptr);
  CHECK(std::set{c, d, e}.size() == 3);
  for (std::byte* block : {c, d, e}) workspace.give(block, 100);
}

TEST_CASE("a pass that is repeated takes nothing more from the heap") {
  Workspace workspace;
  const auto pass = [&] {
    std::byte* a = workspace.take(100);
    std::byte* b = workspace.take(100);
    std::byte* c = workspace.take(5000);
    workspace.give(a, 100);
    std::byte* d = workspace.take(90);
    for (auto [block, bytes] : {std::pair{b, 100}, {c, 5000}, {d, 90}}) workspace.give(block, std::size_t(bytes));
  };
  pass();
  const std::size_t reserved = workspace.reserved();
  for (int i = 0; i < 5; ++i) pass();
  CHECK(workspace.reserved() == reserved);
}

TEST_CASE("scratch is returned at the end of its scope") {
  Workspace workspace;
  const double* first;
  {
    const Scratch<double> scratch(&workspace, 13);
    first = scratch.data();
    scratch.data()[12] = 1;
    CHECK(is_aligned(first));
  }
  const Scratch<double> again(&workspace, 13);
  CHECK(again.data() == first);
}

TEST_CASE("without a workspace scratch comes from the heap; none for nothing") {
  const Scratch<float> scratch(nullptr, 7);
  CHECK(is_aligned(scratch.data()));
  scratch.data()[6] = 1;
  CHECK(Scratch<float>(nullptr, 0).data() == nullptr);
}

TEST_CASE("a few elements have their place in the scratch itself") {
  Workspace workspace;
  const Scratch<double, 5> few(&workspace, 5), none(&workspace, 0);
  CHECK(workspace.reserved() == 0);
  for (const Scratch<double, 5>* scratch : {&few, &none}) {
    CHECK(is_aligned(scratch->data()));
    CHECK(reinterpret_cast<const std::byte*>(scratch->data()) >= reinterpret_cast<const std::byte*>(scratch));
    CHECK(reinterpret_cast<const std::byte*>(scratch->data() + 5) <= reinterpret_cast<const std::byte*>(scratch + 1));
  }
  {
    const Scratch<double, 5> many(&workspace, 6);
    CHECK(workspace.in_use() == 64);
    many.data()[5] = 1;
  }
  CHECK(workspace.in_use() == 0);
  const Scratch<float, 2> of_the_heap(nullptr, 3);
  CHECK(is_aligned(of_the_heap.data()));
  of_the_heap.data()[2] = 1;
  CHECK(sizeof(Scratch<double>) == 3 * sizeof(void*));
}

TEST_CASE("it reports what is in use, and the most that was") {
  Workspace workspace;
  CHECK(workspace.in_use() == 0);
  CHECK(workspace.peak() == 0);
  std::byte* a = workspace.take(1000);
  std::byte* b = workspace.take(65);
  CHECK(workspace.in_use() == 1024 + 128);
  CHECK(workspace.reserved() == 1024 + 128);
  workspace.give(a, 1000);
  CHECK(workspace.in_use() == 128);
  CHECK(workspace.peak() == 1024 + 128);
  std::byte* c = workspace.take(513);  // the block that was free: nothing new is reserved
  CHECK(workspace.reserved() == 1024 + 128);
  CHECK(workspace.peak() == 1024 + 128);
  workspace.give(b, 65);
  workspace.reset_peak();
  CHECK(workspace.peak() == 1024);
  workspace.give(c, 513);
  CHECK(workspace.in_use() == 0);
  CHECK(workspace.peak() == 1024);
  workspace.give(workspace.take(0), 0);
  CHECK(workspace.in_use() == 0);
}

TEST_CASE("trimming gives back what is free, and nothing that is taken") {
  Workspace workspace;
  std::byte* a = workspace.take(4000);
  std::byte* b = workspace.take(4000);
  workspace.give(b, 4000);
  CHECK(workspace.reserved() == 8192);
  workspace.trim();
  CHECK(workspace.reserved() == 4096);
  CHECK(workspace.in_use() == 4096);
  for (std::size_t i = 0; i < 4000; ++i) a[i] = std::byte(i);
  workspace.give(a, 4000);
  for (int pass = 0; pass < 2; ++pass) {
    std::byte* c = workspace.take(4000);
    std::byte* d = workspace.take(4000);
    CHECK(workspace.reserved() == 8192);
    workspace.give(c, 4000);
    workspace.give(d, 4000);
  }
  workspace.trim();
  CHECK(workspace.reserved() == 0);
}

TEST_CASE("large blocks are cut from pages, and used again as small ones are") {
  constexpr std::size_t large = std::size_t{300} << 10, huge = std::size_t{5} << 20;
  Workspace workspace;
  std::vector<std::byte*> blocks;
  const auto pass = [&] {
    for (int i = 0; i < 9; ++i) blocks.push_back(workspace.take(large));
    blocks.push_back(workspace.take(huge));
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      CHECK(is_aligned(blocks[i]));
      std::fill_n(blocks[i], i < 9 ? large : huge, std::byte(i));
    }
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      CHECK(blocks[i][0] == std::byte(i));
      CHECK(blocks[i][(i < 9 ? large : huge) - 1] == std::byte(i));
    }
    CHECK(workspace.in_use() == 9 * (std::size_t{512} << 10) + (std::size_t{8} << 20));
    for (std::size_t i = 0; i < 9; ++i) workspace.give(blocks[i], large);
    workspace.give(blocks[9], huge);
    blocks.clear();
  };
  pass();
  const std::size_t reserved = workspace.reserved();
  CHECK(reserved >= 9 * large + huge);
  CHECK(reserved <= (std::size_t{14} << 20));
  for (int i = 0; i < 3; ++i) pass();
  CHECK(workspace.reserved() == reserved);
  workspace.trim();
  CHECK(workspace.reserved() == 0);
  pass();
}

TEST_CASE("trimming keeps the pages of a large block that is taken, and gives back small ones") {
  constexpr std::size_t large = std::size_t{1} << 20;
  Workspace workspace;
  std::byte* small = workspace.take(4000);
  std::byte* first = workspace.take(large);
  std::byte* second = workspace.take(large);
  std::fill_n(second, large, std::byte{7});
  workspace.give(small, 4000);
  workspace.give(first, large);
  const std::size_t reserved = workspace.reserved();
  workspace.trim();
  CHECK(workspace.reserved() <= reserved - 4096);
  CHECK(workspace.reserved() >= large);
  std::byte* again = workspace.take(large);
  std::fill_n(again, large, std::byte{8});
  CHECK(std::all_of(second, second + large, [](std::byte b) { return b == std::byte{7}; }));
  workspace.give(again, large);
  workspace.give(second, large);
  workspace.trim();
  CHECK(workspace.reserved() == 0);
}
