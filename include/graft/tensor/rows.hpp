#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "batch.hpp"

namespace graft {

/// Token ids that know their batch: the input of an embedding.
class Tokens {
 public:
  Tokens(const Ids& ids, const Batch& batch) : batch_(&batch), scratch_(&batch.workspace(), ids.size()) {
    if (ids.size() != batch.rows()) detail::row_mismatch("token ids", ids.size(), batch.rows());
    std::int64_t* copy = scratch_.data();
    for (Index i = 0; i < ids.size(); ++i) copy[i] = ids[i];
  }
  Tokens(const Tokens& other) : Tokens(other.ids(), *other.batch_) {}
  Tokens& operator=(const Tokens&) = delete;

  [[nodiscard]] Ids ids() const { return Ids(std::span<const std::int64_t>(scratch_.data(), std::size_t(batch_->rows()))); }
  [[nodiscard]] const Batch& batch() const { return *batch_; }

 private:
  const Batch* batch_;
  Scratch<std::int64_t> scratch_;
};

/// Activations that know their batch: a matrix in its workspace. A row may have a shape, (channels, spatial…).
///
/// Copies are deep, moves are cheap, and there is no conversion to a matrix: a plain matrix forgets whose
/// rows it holds. `value()` looks at it, `with()` brings a result of the caller's back.
template <class T = float>
class Rows {
 public:
  using scalar = T;

  Rows(const Batch& batch, Index rows, const Shape& row_shape) : batch_(&batch), rows_(rows), row_shape_(row_shape) {
    if (rows != batch.rows()) detail::row_mismatch("graft::Rows", rows, batch.rows());
    data_ = reinterpret_cast<T*>(batch.workspace().take(bytes()));
  }
  Rows(const Rows& other) : Rows(*other.batch_, other.rows_, other.row_shape_) {
    std::copy_n(other.data_, rows_ * cols(), data_);
  }
  Rows(Rows&& other) noexcept
      : batch_(other.batch_), rows_(other.rows_), row_shape_(other.row_shape_), data_(std::exchange(other.data_, nullptr)) {}
  Rows& operator=(Rows other) noexcept {
    std::swap(batch_, other.batch_);
    std::swap(rows_, other.rows_);
    std::swap(row_shape_, other.row_shape_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~Rows() {
    if (data_) batch_->workspace().give(reinterpret_cast<std::byte*>(data_), bytes());
  }

  [[nodiscard]] Index rows() const { return rows_; }
  [[nodiscard]] Index cols() const { return row_shape_.size(); }
  /// (features), or (channels, spatial…) where a tensor entered.
  [[nodiscard]] const Shape& row_shape() const { return row_shape_; }
  [[nodiscard]] const Batch& batch() const { return *batch_; }
  [[nodiscard]] In<T> value() const { return graft::in<T>(data_, rows_, cols()); }
  [[nodiscard]] Out<T> value() { return graft::out<T>(data_, rows_, cols()); }
  /// The caller's own result goes on with this batch; copied. @throws ShapeError on another number of rows.
  template <class X>
  [[nodiscard]] auto with(const X& x) const {
    return batch_->input(x);
  }

 private:
  [[nodiscard]] std::size_t bytes() const { return std::size_t(rows_ * cols()) * sizeof(T); }

  const Batch* batch_;
  Index rows_;
  Shape row_shape_;
  T* data_;
};

template <class X>
inline constexpr bool is_rows = false;
template <class T>
inline constexpr bool is_rows<Rows<T>> = true;
/// `Rows` of any scalar.
template <class X>
concept RowsLike = is_rows<std::remove_cvref_t<X>>;

inline Tokens Batch::input(const IdsLike auto& ids) const {
  std::vector<std::int64_t> storage;
  return Tokens(ids_of(ids, storage), *this);
}

template <class X>
  requires((MatrixLike<X> || TensorLike<X>) && !IdsLike<X>)
inline auto Batch::input(const X& x) const {
  if constexpr (MatrixLike<X>) {
    Rows<typename X::Scalar> rows(*this, x.rows(), {x.cols()});
    rows.value() = x;
    return rows;
  } else {
    using traits = tensor_traits<X>;
    const Shape shape = traits::shape(x);
    Rows<typename traits::scalar> rows(*this, shape[0], shape.tail());
    std::copy_n(traits::data(x), shape.size(), rows.value().data());
    return rows;
  }
}

template <class T>
[[nodiscard]] inline Rows<T> eval(const Rows<T>& x) {
  return x;
}

}  // namespace graft
