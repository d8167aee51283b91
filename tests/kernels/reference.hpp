#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

/// Plain loops and fixed numbers that the kernels are tested against.
namespace reference {

using Index = std::ptrdiff_t;

/// Sizes around the widths of registers, tiles and unrolled steps.
inline constexpr Index awkward[] = {1, 2, 3, 4, 5, 7, 8, 13, 16, 31, 33, 63, 65, 97};

/// Uniform values in [-1, 1), the same everywhere.
template <class T>
T value_at(std::uint64_t seed, Index i) {
  std::uint64_t z = seed * 0x9e3779b97f4a7c15u + std::uint64_t(i + 1) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 30) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  return T(float(std::int64_t(z >> 40) - (1 << 23)) / float(1 << 23));
}

/// A matrix whose rows are further apart than they are long and start at an odd address (in elements); the
/// elements in between are `gap`, and must stay so.
template <class T>
struct Matrix {
  Index rows, cols, ld;
  std::vector<T> storage;
  static constexpr float gap = 77;

  Matrix(Index r, Index c, std::uint64_t seed, Index extra = 3) : rows(r), cols(c), ld(c + extra) {
    storage.assign(std::size_t(1 + r * ld), T(gap));
    for (Index i = 0; i < r; ++i)
      for (Index j = 0; j < c; ++j) (*this)(i, j) = value_at<T>(seed, i * c + j);
  }
  T* data() { return storage.data() + 1; }
  const T* data() const { return storage.data() + 1; }
  T& operator()(Index i, Index j) { return storage[std::size_t(1 + i * ld + j)]; }
  const T& operator()(Index i, Index j) const { return storage[std::size_t(1 + i * ld + j)]; }
  double at(Index i, Index j) const {
    if constexpr (sizeof(T) == 2)
      return double(float((*this)(i, j)));
    else
      return double((*this)(i, j));
  }
  bool gaps_are_intact() const {
    for (std::size_t k = 0; k < storage.size(); ++k) {
      const Index i = Index(k) - 1;
      if ((i < 0 || i % ld >= cols) && !(storage[k] == T(gap))) return false;
    }
    return true;
  }
};

/// A sum and the sum of its terms' magnitudes, by which its error is bounded.
struct Sum {
  double value = 0, magnitude = 0;
  int terms = 0;
  void add(double term) {
    value += term;
    magnitude += std::abs(term);
    ++terms;
  }
  /// |y - value| <= terms * u * magnitude, u = epsilon / 2, holds for any order of summation; doubled for the
  /// roundings of the products and of what is done with the sum.
  template <class T>
  bool fits(T y) const {
    return std::abs(double(y) - value) <= (terms + 4) * double(std::numeric_limits<T>::epsilon()) * magnitude;
  }
};

/// The numbers of the golden snippets: v(i) = ((i * a + b) % m - m // 2) / 4, exact in every type.
template <class T>
std::vector<T> lattice(Index count, Index a = 37, Index b = 11, Index m = 17) {
  std::vector<T> values;
  for (Index i = 0; i < count; ++i) values.push_back(T(float((i * a + b) % m - m / 2) / 4));
  return values;
}

/// max |y - expected| <= tolerance * (1 + max |expected|)
template <class T>
bool close(const std::vector<T>& y, const std::vector<double>& expected, double tolerance) {
  if (y.size() != expected.size()) return false;
  double largest = 0, error = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (!(std::abs(double(y[i]) - expected[i]) <= std::numeric_limits<double>::max())) return false;  // NaN
    largest = std::max(largest, std::abs(expected[i]));
    error = std::max(error, std::abs(double(y[i]) - expected[i]));
  }
  return error <= tolerance * (1 + largest);
}
template <class T>
inline constexpr double tolerance = std::is_same_v<T, double> ? 1e-14 : 5e-7;

}  // namespace reference
