#include <graft/tensor/zeroed.hpp>

#include <doctest/doctest.h>

#include <algorithm>

using graft::detail::huge_page;
using graft::detail::zeroed;
using graft::detail::zeroed_in_huge_pages;

namespace {
bool is_zero(const std::byte* memory, std::size_t bytes) {
  return std::all_of(memory, memory + bytes, [](std::byte b) { return b == std::byte{0}; });
}
}  // namespace

TEST_CASE("memory is zero and can be written to its end, small or large, and is given back") {
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{4097}, std::size_t{65537}, 2 * huge_page - 1, 2 * huge_page, 2 * huge_page + 13})
    for (int round = 0; round < 3; ++round) {
      const auto memory = zeroed(bytes);
      REQUIRE(memory);
      CHECK(is_zero(memory.get(), bytes));
      CHECK(reinterpret_cast<std::uintptr_t>(memory.get()) % 64 == 0);
      std::fill(memory.get(), memory.get() + bytes, std::byte{7});
    }
}

TEST_CASE("large memory begins at a huge page, where the system has them") {
  const auto memory = zeroed_in_huge_pages(3 * huge_page + 5), other = zeroed_in_huge_pages(1);
  if (!memory || !other) return;
  for (const auto& one : {memory, other}) CHECK(reinterpret_cast<std::uintptr_t>(one.get()) % huge_page == 0);
  CHECK(memory.get() != other.get());
  std::fill(memory.get(), memory.get() + 3 * huge_page + 5, std::byte{7});
  CHECK(is_zero(other.get(), 4096));
  CHECK(reinterpret_cast<std::uintptr_t>(zeroed(2 * huge_page).get()) % huge_page == 0);
}
