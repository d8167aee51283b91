#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "../tensor/ids.hpp"
#include "layer_traits.hpp"

// What a layer is called with whose forward takes `const auto&`. A template cannot be asked whether its body compiles
// with some type, so its argument is everything at once: it converts to whatever the function inside of it wants.

namespace graft::detail {

struct ForwardName {
  int forward;
};
template <class Traits>
struct WithForwardName : Traits, ForwardName {};
/// Whether traits have a member of the name `forward`, a template included: the name is then ambiguous.
template <class Traits>
inline constexpr bool has_forward = !requires { &WithForwardName<Traits>::forward; };

/// Whether a layer's forward is one function and no template: it can be asked what it takes.
template <class L>
inline constexpr bool has_plain_forward = [] {
  if constexpr (has_forward<traits_of<L>>) return requires { &traits_of<L>::forward; };
  else return requires { &L::operator(); };
}();

/// Token ids as a `std::vector<int>` that is 64 bits wide where that is wanted.
class BothIds : public std::vector<int> {
 public:
  explicit BothIds(const Ids& ids) : std::vector<int>(std::size_t(ids.size())), wide_(std::size_t(ids.size())) {
    for (Index i = 0; i < ids.size(); ++i) {
      (*this)[std::size_t(i)] = int(ids[i]);
      wide_[std::size_t(i)] = ids[i];
    }
  }
  operator const std::vector<std::int64_t>&() const { return wide_; }
  operator std::span<const std::int64_t>() const { return wide_; }
  template <class I>
    requires std::same_as<I, std::int32_t> || std::same_as<I, std::int64_t>
  operator Eigen::Matrix<I, Eigen::Dynamic, 1>() const {
    return Eigen::Map<const Eigen::Matrix<std::int64_t, Eigen::Dynamic, 1>>(wide_.data(), Index(wide_.size())).template cast<I>();
  }

 private:
  std::vector<std::int64_t> wide_;
};

/// A row-major tensor whose rank is known at run time: read like an `Eigen::Tensor`, and converted to one of any rank.
template <class T>
class AnyTensor {
 public:
  using Scalar = T;

  AnyTensor(const Shape& shape, const T* data) : shape_(shape), data_(data) {}
  /// Zeros of its own.
  explicit AnyTensor(const Shape& shape) : shape_(shape), own_(std::size_t(shape.size())), data_(own_.data()) {}
  AnyTensor(AnyTensor&&) noexcept = default;
  AnyTensor& operator=(AnyTensor&&) noexcept = default;

  [[nodiscard]] const Shape& shape() const { return shape_; }
  [[nodiscard]] int rank() const { return int(shape_.rank()); }
  [[nodiscard]] Index size() const { return shape_.size(); }
  [[nodiscard]] Index dimension(std::size_t axis) const { return shape_[axis]; }
  [[nodiscard]] const T* data() const { return data_; }
  [[nodiscard]] T* data() { return own_.data(); }

  template <std::convertible_to<Index>... I>
  [[nodiscard]] const T& operator()(I... indices) const {
    Index at = 0;
    std::size_t axis = 0;
    ((at = at * shape_[axis++] + Index(indices)), ...);
    return data_[at];
  }
  template <int N>
  operator Eigen::Tensor<T, N, Eigen::RowMajor>() const {
    return view<N>();
  }
  template <int N>
  operator Eigen::TensorMap<const Eigen::Tensor<T, N, Eigen::RowMajor>>() const {
    return view<N>();
  }

 private:
  template <int N>
  [[nodiscard]] Eigen::TensorMap<const Eigen::Tensor<T, N, Eigen::RowMajor>> view() const {
    check_rank(shape_, N);
    Eigen::array<Index, std::size_t(N)> dimensions{};
    for (std::size_t axis = 0; axis < shape_.rank(); ++axis) dimensions[axis] = shape_[axis];
    return {data_, dimensions};
  }

  Shape shape_;
  std::vector<T> own_;
  const T* data_;
};

}  // namespace graft::detail

namespace graft {

template <class T>
struct tensor_traits<detail::AnyTensor<T>> {
  using scalar = T;
  using result = detail::AnyTensor<T>;
  static Shape shape(const result& x) { return x.shape(); }
  static const T* data(const result& x) { return x.data(); }
  static T* data(result& x) { return x.data(); }
  static result make(const Shape& shape) { return result(shape); }
};

}  // namespace graft
