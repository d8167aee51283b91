#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "../kernels/random.hpp"
#include "../tensor/init.hpp"
#include "../tensor/matrix.hpp"

namespace graft {

/// Which elements a pass drops: they depend on seed and step, on site and adapter, and on an element's place in the batch
/// alone, so that the backward pass finds them again and nothing is kept.
struct DropoutStream {
  bool active = false;
  std::uint64_t seed = 0, step = 0;
};

namespace detail {
/// What one adapter drops of the rows that come into one site: an element with probability p; the others are 1 / (1 − p)
/// times as large.
class DropoutMask {
 public:
  DropoutMask(const DropoutStream& dropout, std::string_view path, std::string_view adapter, double p)
      : p_(p), stream_(stream_of(path) * 0x9E3779B97F4A7C15u + stream_of(adapter)) {
    const auto words = philox(dropout.seed, dropout.step, 0);
    key_ = std::uint64_t{words[0]} << 32 | words[1];
  }

  /// y = what is left of x, whose rows are those of the batch from `first` on.
  template <class T>
  void apply(const In<T>& x, Index first, Out<T> y) const {
    for_each_factor<T>(x, first, [&](Index i, Index c, T factor) { y(i, c) = factor == T(0) ? T(0) : factor * x(i, c); });
  }
  /// dx += the gradient by x, of that by what was left of it.
  template <class T>
  void add_gradient(const In<T>& g, Index first, Out<T> dx) const {
    for_each_factor<T>(g, first, [&](Index i, Index c, T factor) {
      if (factor != T(0)) dx(i, c) += factor * g(i, c);
    });
  }

 private:
  template <class T, class F>
  void for_each_factor(const In<T>& x, Index first, F f) const {
    constexpr Index most = 128;  // counters, of two numbers each
    double even[most], odd[most];
    const T kept = p_ < 1 ? T(1 / (1 - p_)) : T(0);
    for (Index i = 0; i < x.rows(); ++i)
      for (Index begin = 0; begin < x.cols(); begin += 2 * most) {
        const Index count = std::min(2 * most, x.cols() - begin);
        const std::uint64_t counter = std::uint64_t(first + i) << 32 | std::uint64_t(begin / 2);
        kernels::random_units(key_, stream_, counter, (count + 1) / 2, even, odd);
        for (Index c = 0; c < count; ++c) f(i, begin + c, (c % 2 ? odd : even)[c / 2] >= p_ ? kept : T(0));
      }
  }

  double p_;
  std::uint64_t stream_, key_ = 0;
};
}  // namespace detail

}  // namespace graft
