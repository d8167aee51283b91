#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "tensor.hpp"

namespace graft {

/// Token ids of either width, seen from outside.
class Ids {
 public:
  Ids() = default;
  Ids(std::span<const std::int32_t> ids) : narrow_(ids.data()), size_(Index(ids.size())) {}
  Ids(std::span<const std::int64_t> ids) : wide_(ids.data()), size_(Index(ids.size())) {}

  [[nodiscard]] Index size() const { return size_; }
  [[nodiscard]] Index operator[](Index i) const { return wide_ ? Index(wide_[i]) : Index(narrow_[i]); }
  [[nodiscard]] Ids subspan(Index begin, Index count) const {
    Ids part = *this;
    part.size_ = count;
    if (wide_) part.wide_ += begin;
    else if (narrow_) part.narrow_ += begin;
    return part;
  }

 private:
  const std::int32_t* narrow_ = nullptr;
  const std::int64_t* wide_ = nullptr;
  Index size_ = 0;
};

namespace detail {
template <class X>
concept IdTensor = TensorLike<X> && !MatrixLike<X> &&
                   std::integral<typename tensor_traits<std::remove_cvref_t<X>>::scalar>;
template <class X>
concept IdContainer = !MatrixLike<X> && !TensorLike<X> &&
                      (std::convertible_to<const X&, std::span<const std::int32_t>> ||
                       std::convertible_to<const X&, std::span<const std::int64_t>>);
template <class X>
concept IdMatrix = MatrixLike<X> && std::integral<typename std::remove_cvref_t<X>::Scalar>;
}  // namespace detail

/// Anything that holds token ids: vectors and spans of 32 or 64 bits, integer Eigen matrices and tensors.
template <class X>
concept IdsLike = std::same_as<std::remove_cvref_t<X>, Ids> || detail::IdContainer<X> || detail::IdMatrix<X> ||
                  detail::IdTensor<X>;

/// Ids of any kind as `Ids`: in place where they are contiguous, else flattened row by row into `storage`.
template <IdsLike X>
[[nodiscard]] inline Ids ids_of(const X& ids, std::vector<std::int64_t>& storage) {
  if constexpr (std::same_as<X, Ids>) {
    return ids;
  } else if constexpr (detail::IdTensor<X>) {
    const auto* data = tensor_traits<X>::data(ids);
    const auto count = std::size_t(tensor_traits<X>::shape(ids).size());
    using T = std::remove_cvref_t<decltype(*data)>;
    if constexpr (std::same_as<T, std::int32_t> || std::same_as<T, std::int64_t>) {
      return Ids(std::span(data, count));
    } else {
      storage.assign(data, data + count);
      return Ids(std::span<const std::int64_t>(storage));
    }
  } else if constexpr (std::convertible_to<const X&, std::span<const std::int32_t>> && !MatrixLike<X>) {
    return Ids(std::span<const std::int32_t>(ids));
  } else if constexpr (!MatrixLike<X>) {
    return Ids(std::span<const std::int64_t>(ids));
  } else {
    storage.resize(std::size_t(ids.size()));
    Index next = 0;
    for (Index row = 0; row < ids.rows(); ++row)
      for (Index col = 0; col < ids.cols(); ++col) storage[std::size_t(next++)] = std::int64_t(ids(row, col));
    return Ids(std::span<const std::int64_t>(storage));
  }
}

}  // namespace graft
