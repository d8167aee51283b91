#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include "../kernels/random.hpp"
#include "../tensor/init.hpp"

namespace graft {

namespace detail {
/// Gives the parameter memory of its own and its elements draw(first, how many, to): doubles, rounded once.
template <class Draw>
void fill_drawn(ParameterData& parameter, Draw draw) {
  const Index size = parameter.shape().size();
  fill_parameter(parameter, [&](auto store) {
    constexpr Index most = 256;
    double part[most];
    for (Index begin = 0; begin < size; begin += most) {
      const Index count = std::min(most, size - begin);
      draw(begin, count, part);
      for (Index i = 0; i < count; ++i) store(begin + i, part[i]);
    }
  });
}
}  // namespace detail

/// Uniform values in [-bound, bound): torch's `kaiming_uniform_(a=√5)` for bound = 1/√fan_in.
inline void fill_uniform(ParameterData& parameter, const Seed& seed, double bound) {
  const std::uint64_t stream = detail::stream_of(seed.name);
  if (parameter.dtype() == Dtype::f32) {  // what adapters of a large model start from: without a detour
    parameter.allocate();
    return kernels::random_uniform<float>(seed.seed, stream, 0, parameter.shape().size(), bound,
                                          reinterpret_cast<float*>(parameter.data()));
  }
  detail::fill_drawn(parameter, [&](Index begin, Index count, double* to) {
    kernels::random_uniform<double>(seed.seed, stream, std::uint64_t(begin), count, bound, to);
  });
}
/// Normal values (Box and Muller, Ann. Math. Statist. 29, 1958).
inline void fill_normal(ParameterData& parameter, const Seed& seed, double deviation) {
  const std::uint64_t stream = detail::stream_of(seed.name);
  detail::fill_drawn(parameter, [&](Index begin, Index count, double* to) {
    double angles[256];
    kernels::random_units(seed.seed, stream, std::uint64_t(begin), count, to, angles);
    for (Index i = 0; i < count; ++i)
      to[i] = deviation * std::sqrt(-2 * std::log1p(-to[i])) * std::cos(2 * std::numbers::pi * angles[i]);
  });
}

}  // namespace graft
