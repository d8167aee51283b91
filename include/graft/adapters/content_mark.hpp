#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../tensor/parameter.hpp"

namespace graft::detail {

/// Tells whether a parameter's values are the ones that they were: another number, but for one case in 2^64.
[[nodiscard]] inline std::uint64_t content_mark(const ParameterData& parameter) {
  constexpr std::size_t chains = 8;  // side by side, as each multiplication waits for the one before
  std::uint64_t marks[chains] = {0x9E3779B97F4A7C15u, 0xBF58476D1CE4E5B9u, 0x94D049BB133111EBu, 0xD6E8FEB86659FD93u,
                                 0xC2B2AE3D27D4EB4Fu, 0xA0761D6478BD642Fu, 0xE7037ED1A0B428DBu, 0x8EBC6AF09C88C6E3u};
  const auto mix = [](std::uint64_t& mark, std::uint64_t word) {
    mark = (mark ^ word) * 0x2545F4914F6CDD1Du;
    mark ^= mark >> 32;
  };
  const auto take = [&](std::uint64_t& mark, const std::byte* from, std::size_t count) {
    std::uint64_t word = 0;
    std::memcpy(&word, from, count);
    mix(mark, word);
  };
  const std::byte* data = parameter.data();
  const std::size_t bytes = data ? parameter.bytes() : 0;
  std::size_t i = 0;
  for (; i + 8 * chains <= bytes; i += 8 * chains)
#pragma GCC unroll 8  // in registers
    for (std::size_t chain = 0; chain < chains; ++chain) take(marks[chain], data + i + 8 * chain, 8);
  for (; i < bytes; i += 8) take(marks[0], data + i, std::min<std::size_t>(8, bytes - i));
  std::uint64_t all = bytes;
  for (const std::uint64_t mark : marks) mix(all, mark);
  return all;
}

/// A number that is another one after every write: its version, or its contents where somebody holds a view through
/// which it may be written unannounced.
[[nodiscard]] inline std::uint64_t write_mark(const ParameterData& parameter) {
  return parameter.is_viewed() ? content_mark(parameter) : parameter.version();
}

}  // namespace graft::detail
