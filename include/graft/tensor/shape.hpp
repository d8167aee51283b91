#pragma once

#include <array>
#include <cstddef>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "../core/error.hpp"

namespace graft {

/// Eigen's index type, spelled without Eigen.
using Index = std::ptrdiff_t;

/// The dimensions of a tensor, outermost first, without an allocation. At most six.
class Shape {
 public:
  static constexpr std::size_t max_rank = 6;

  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<Index> dimensions) { assign(dimensions.begin(), dimensions.size()); }
  explicit Shape(const std::vector<Index>& dimensions) { assign(dimensions.data(), dimensions.size()); }

  [[nodiscard]] constexpr std::size_t rank() const { return rank_; }
  [[nodiscard]] constexpr Index operator[](std::size_t axis) const { return dimensions_[axis]; }
  [[nodiscard]] constexpr Index& operator[](std::size_t axis) { return dimensions_[axis]; }
  [[nodiscard]] constexpr const Index* begin() const { return dimensions_.data(); }
  [[nodiscard]] constexpr const Index* end() const { return dimensions_.data() + rank_; }
  [[nodiscard]] constexpr Index back() const { return dimensions_[rank_ - 1]; }

  /// The number of elements; 1 for a scalar.
  [[nodiscard]] constexpr Index size() const {
    Index product = 1;
    for (Index dimension : *this) product *= dimension;
    return product;
  }
  /// The first dimension; 1 for vectors and scalars, which are one row.
  [[nodiscard]] constexpr Index rows() const { return rank_ > 1 ? dimensions_[0] : 1; }
  /// The product of all dimensions but the first; of a vector its length.
  [[nodiscard]] constexpr Index cols() const {
    Index product = 1;
    for (std::size_t axis = rank_ > 1 ? 1 : 0; axis < rank_; ++axis) product *= dimensions_[axis];
    return product;
  }
  /// All dimensions but the first: the shape of one row of a batch.
  [[nodiscard]] constexpr Shape tail() const {
    Shape rest;
    if (rank_ > 1) rest.assign(dimensions_.data() + 1, rank_ - 1);
    return rest;
  }
  constexpr void push_back(Index dimension) {
    if (rank_ == max_rank)
      fail<ShapeError>("a tensor has more than six dimensions", "graft keeps shapes in place", "collapse some");
    dimensions_[rank_++] = dimension;
  }
  [[nodiscard]] std::vector<Index> to_vector() const { return {begin(), end()}; }

  friend constexpr bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (std::size_t axis = 0; axis < a.rank_; ++axis)
      if (a.dimensions_[axis] != b.dimensions_[axis]) return false;
    return true;
  }

 private:
  constexpr void assign(const Index* first, std::size_t count) {
    for (std::size_t axis = 0; axis < count; ++axis) push_back(first[axis]);
  }

  std::array<Index, max_rank> dimensions_{};
  std::size_t rank_ = 0;
};

/// "(64, 10)": how shapes stand in messages.
[[nodiscard]] inline std::string to_string(std::span<const Index> dimensions) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < dimensions.size(); ++axis)
    text += (axis ? ", " : "") + std::to_string(dimensions[axis]);
  return text + (dimensions.size() == 1 ? ",)" : ")");
}
[[nodiscard]] inline std::string to_string(const Shape& shape) {
  return to_string(std::span<const Index>(shape.begin(), shape.rank()));
}

}  // namespace graft
