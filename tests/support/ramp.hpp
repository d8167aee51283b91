#pragma once

#include <algorithm>
#include <cmath>
#include <graft/tensor/matrix.hpp>
#include <type_traits>
#include <vector>

/// Numbers that a test and the Python beside it make alike, without a table.
namespace support {

/// Multiples of 1/8 in [-11/8, 11/8]: sums of their products are exact in float.
///
///     def ramp(*shape, salt=0):
///         i = torch.arange(math.prod(shape))
///         return (((i * 37 + salt * 11) % 23 - 11) / 8).double().reshape(shape)
inline double ramp_at(graft::Index i, int salt) { return double((i * 37 + salt * 11) % 23 - 11) / 8; }

template <class T = float>
graft::Matrix<T> ramp(graft::Index rows, graft::Index cols, int salt = 0) {
  graft::Matrix<T> values(rows, cols);
  for (graft::Index i = 0; i < values.size(); ++i) values.data()[i] = T(ramp_at(i, salt));
  return values;
}

/// Fills anything with data() and size(): parameters, tensors.
template <class Values>
void fill_ramp(Values&& values, int salt = 0) {
  using T = std::remove_cvref_t<decltype(*values.data())>;
  for (graft::Index i = 0; i < graft::Index(values.size()); ++i) values.data()[i] = T(float(ramp_at(i, salt)));
}

/// max|y − ŷ| ≤ tolerance · (1 + max|ŷ|), and the same number of elements, row by row.
template <class Y>
bool close(const Y& y, const std::vector<double>& expected, double tolerance) {
  if (y.size() != graft::Index(expected.size())) return false;
  double largest = 0, error = 0;
  for (graft::Index i = 0; i < y.size(); ++i) {
    const double value = double(y(i / y.cols(), i % y.cols())), want = expected[std::size_t(i)];
    largest = std::max(largest, std::abs(want));
    error = std::max(error, std::isnan(value) ? INFINITY : std::abs(value - want));
  }
  return error <= tolerance * (1 + largest);
}

}  // namespace support
