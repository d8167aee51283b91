#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include <graft/training/arena.hpp>

using graft::detail::Arena;

TEST_CASE("pieces are aligned and apart") {
  Arena arena;
  std::vector<std::byte*> pieces;
  for (const std::size_t bytes : {0, 1, 63, 64, 65, 100000, 7}) {
    std::byte* piece = arena.take(bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(piece) % 64 == 0);
    std::memset(piece, int(pieces.size()), bytes);
    for (std::byte* other : pieces) CHECK(other != piece);
    pieces.push_back(piece);
  }
  CHECK(pieces[2][62] == std::byte{2});
  CHECK(pieces[5][99999] == std::byte{5});
}

TEST_CASE("after reset() the same pieces come again, and nothing is taken from the heap") {
  Arena arena;
  const auto pass = [&] {
    std::vector<std::byte*> pieces;
    for (std::size_t i = 0; i < 40; ++i) pieces.push_back(arena.take(1000 * i));
    arena.reset();
    return pieces;
  };
  const auto first = pass();
  const std::size_t reserved = arena.reserved();
  CHECK(reserved >= 780000);
  CHECK(pass() == first);
  CHECK(arena.reserved() == reserved);
}
