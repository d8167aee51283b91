#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string_view>

#include "parameter.hpp"

namespace graft {

namespace detail {
/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four random words
/// that depend only on (key, counter), whatever the order or the thread they are asked in.
[[nodiscard]] constexpr std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter, std::uint64_t stream) {
  std::array<std::uint32_t, 4> x{std::uint32_t(counter), std::uint32_t(counter >> 32), std::uint32_t(stream),
                                 std::uint32_t(stream >> 32)};
  auto k0 = std::uint32_t(key), k1 = std::uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * x[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * x[2];
    x = {std::uint32_t(p1 >> 32) ^ x[1] ^ k0, std::uint32_t(p1), std::uint32_t(p0 >> 32) ^ x[3] ^ k1, std::uint32_t(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return x;
}

/// FNV-1a: the random stream of a parameter is the hash of its name.
[[nodiscard]] constexpr std::uint64_t stream_of(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char character : name) hash = (hash ^ std::uint8_t(character)) * 0x100000001b3u;
  return hash;
}

/// 53 random bits as a number in [0, 1).
[[nodiscard]] constexpr double unit(std::uint32_t high, std::uint32_t low) {
  return double((std::uint64_t{high} << 32 | low) >> 11) * 0x1p-53;
}
}  // namespace detail

/// A place in the stream of random numbers: values depend on (seed, name, index) alone, so a parameter that is
/// initialised late, or by another thread, has the values that it would have had at once.
struct Seed {
  std::uint64_t seed = 0;
  std::string_view name;
};

namespace detail {
/// Calls write(i, u) with two uniform numbers u[0], u[1] in [0, 1) for every element of a parameter.
template <class Write>
void for_each_random(const Seed& seed, Index count, Write write) {
  const std::uint64_t stream = stream_of(seed.name);
  for (Index i = 0; i < count; ++i) {
    const auto words = philox(seed.seed, std::uint64_t(i), stream);
    write(i, std::array<double, 2>{unit(words[0], words[1]), unit(words[2], words[3])});
  }
}

/// Calls write(i, u) with one uniform number in [0, 1) for every element: two of them come from one counter.
template <class Write>
void for_each_uniform(const Seed& seed, Index count, Write write) {
  const std::uint64_t stream = stream_of(seed.name);
  for (Index i = 0; i < count; i += 2) {
    const auto words = philox(seed.seed, std::uint64_t(i) / 2, stream);
    write(i, unit(words[0], words[1]));
    if (i + 1 < count) write(i + 1, unit(words[2], words[3]));
  }
}

template <class T>
void store(ParameterData& parameter, Index i, double value) {
  if constexpr (std::is_floating_point_v<T>) reinterpret_cast<T*>(parameter.data())[i] = T(value);
  else reinterpret_cast<T*>(parameter.data())[i] = T(float(value));
}

/// Gives the parameter memory of its own and calls fill(store) with the writer for its dtype.
template <class Fill>
void fill_parameter(ParameterData& parameter, Fill fill) {
  parameter.allocate();
  const auto with = [&]<class T>(T) { fill([&](Index i, double value) { store<T>(parameter, i, value); }); };
  switch (parameter.dtype()) {
    case Dtype::f64: return with(double{});
    case Dtype::bf16: return with(bf16{});
    case Dtype::f16: return with(f16{});
    default: return with(float{});
  }
}
}  // namespace detail

/// One value everywhere.
inline void fill_constant(ParameterData& parameter, double value) {
  detail::fill_parameter(parameter, [&](auto store) {
    if (value == 0) return;  // fresh memory is zero, and zero pages cost nothing until they are touched
    for (Index i = 0; i < parameter.shape().size(); ++i) store(i, value);
  });
}

}  // namespace graft
