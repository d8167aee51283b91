#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "../core/dtype.hpp"
#include "matrix.hpp"
#include "state_dict.hpp"
#include "zeroed.hpp"

namespace graft {

/// Storage policies of a parameter.
struct dense {};   ///< owns its memory from the start
struct mapped {};  ///< borrows somebody else's: a mapped file, an engine's buffer. Bind it before use
struct lazy {};    ///< the meta placeholder: shape and dtype now, memory when it is loaded or initialised

namespace detail {
/// A counter of writes, which parameters on one memory share.
class WriteStamp {
 public:
  WriteStamp() = default;
  WriteStamp(const WriteStamp& other) : count_(other.value()) {}  // a copy of a parameter has memory of its own
  WriteStamp(WriteStamp&& other) noexcept : count_(other.whole()) {
    other.count_.store(other.whole(), std::memory_order_relaxed);
    shared_ = std::move(other.shared_);
  }
  WriteStamp& operator=(const WriteStamp& other) {
    if (this != &other) replace(nullptr, value() + other.value() + 1);
    return *this;
  }
  WriteStamp& operator=(WriteStamp&& other) noexcept {
    // differs from both: what was cached of either is outdated
    const std::uint64_t count = (value() + other.value() + 1) | (other.whole() & viewed);
    if (this != &other) replace(std::move(other.shared_), count);
    return *this;
  }
  [[nodiscard]] std::uint64_t value() const { return whole() & ~viewed; }
  void bump() const { counter().fetch_add(1, std::memory_order_relaxed); }
  /// Whether somebody holds a view that may be written through at any time.
  [[nodiscard]] bool is_viewed() const { return whole() & viewed; }
  void set_viewed() const { counter().fetch_or(viewed, std::memory_order_relaxed); }
  void clear_viewed() const { counter().fetch_and(~viewed, std::memory_order_relaxed); }
  /// A stamp that counts along with this one.
  [[nodiscard]] WriteStamp share() const {
    if (!shared_) shared_ = std::make_shared<std::atomic<std::uint64_t>>(whole());
    WriteStamp same;
    same.shared_ = shared_;
    return same;
  }

 private:
  static constexpr std::uint64_t viewed = std::uint64_t{1} << 63;

  [[nodiscard]] std::uint64_t whole() const { return counter().load(std::memory_order_relaxed); }
  void replace(std::shared_ptr<std::atomic<std::uint64_t>> shared, std::uint64_t count) {
    shared_ = std::move(shared);
    counter().store(count, std::memory_order_relaxed);
  }
  [[nodiscard]] std::atomic<std::uint64_t>& counter() const { return shared_ ? *shared_ : count_; }

  mutable std::shared_ptr<std::atomic<std::uint64_t>> shared_;
  mutable std::atomic<std::uint64_t> count_{0};
};
}  // namespace detail

/// A parameter without its scalar type: shape, dtype, where its bytes are, and who keeps them alive.
///
/// Copies own their bytes when the original does, and share them when they are borrowed.
class ParameterData {
 public:
  ParameterData() = default;
  ParameterData(Dtype dtype, const Shape& shape) : shape_(shape), dtype_(dtype) {}
  ParameterData(const ParameterData& other) { *this = other; }
  ParameterData(ParameterData&&) noexcept = default;
  ParameterData& operator=(ParameterData&&) noexcept = default;
  ParameterData& operator=(const ParameterData& other) {
    if (this == &other) return *this;
    shape_ = other.shape_;
    dtype_ = other.dtype_;
    requires_grad_ = other.requires_grad_;
    borrowed_ = other.borrowed_;
    owner_ = other.owner_;
    data_ = other.data_;
    stamp_ = other.stamp_;
    if (data_ && !borrowed_) own_copy();
    if (!data_) owner_ = nullptr;  // what was set aside is the other's
    return *this;
  }

  [[nodiscard]] const Shape& shape() const { return shape_; }
  [[nodiscard]] Dtype dtype() const { return dtype_; }
  [[nodiscard]] std::size_t bytes() const { return std::size_t(shape_.size()) * size_of(dtype_); }
  [[nodiscard]] bool is_meta() const { return !data_ && shape_.size() != 0; }
  [[nodiscard]] Device device() const { return is_meta() ? Device::meta : Device::cpu; }
  [[nodiscard]] bool is_borrowed() const { return borrowed_; }
  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] bool requires_grad() const { return requires_grad_; }
  void set_requires_grad(bool value) { requires_grad_ = value; }

  /// A number that is another one after every write: what is computed from the values and kept is kept with it.
  [[nodiscard]] std::uint64_t version() const { return stamp_.value(); }
  /// To be called by whoever writes through `data()`.
  void touch() const { stamp_.bump(); }
  /// To be called by whoever hands out a view that others may write through later, unannounced.
  void set_viewed() const {
    touch();
    stamp_.set_viewed();
  }
  /// Whether such a view may exist: `version()` then does not tell of every write.
  [[nodiscard]] bool is_viewed() const { return stamp_.is_viewed(); }

  /// Lets the next `allocate` take this memory, which is zeroed and large enough. For parameters without memory.
  void set_aside(std::shared_ptr<void> memory) {
    if (!data_) owner_ = std::move(memory);
  }
  /// Zeroed memory of its own; what it held is gone.
  void allocate() {
    touch();
    stamp_.clear_viewed();
    if (data_ || !owner_) owner_ = detail::zeroed(bytes());
    data_ = static_cast<std::byte*>(owner_.get());
    borrowed_ = false;
  }
  /// Memory of its own with the same values, if it is borrowed: to be called before writing.
  void detach() {
    if (data_ && borrowed_) own_copy();
  }
  /// Uses somebody's memory; `owner` keeps it alive (null: the caller does).
  void borrow(std::byte* data, std::shared_ptr<void> owner) {
    touch();
    stamp_.clear_viewed();
    data_ = data;
    owner_ = data ? std::move(owner) : nullptr;
    borrowed_ = true;
  }
  /// The same memory under another parameter: a write through one is seen by the other.
  [[nodiscard]] ParameterData share() const {
    ParameterData same(dtype_, shape_);
    same.data_ = data_;
    if (data_) same.owner_ = owner_;
    same.borrowed_ = borrowed_;  // owned by both: a copy of either owns its bytes, a load writes in place
    same.requires_grad_ = requires_grad_;
    same.stamp_ = stamp_.share();
    return same;
  }
  /// Changes the shape and gives the memory up: meta afterwards.
  void reset(const Shape& shape) { reset(shape, dtype_); }
  void reset(const Shape& shape, Dtype dtype) {
    touch();
    shape_ = shape;
    dtype_ = dtype;
    data_ = nullptr;
    owner_.reset();
    borrowed_ = false;
  }
  /// What a state dict shows of it. Valid until the parameter changes.
  [[nodiscard]] TensorView view() const { return {dtype_, shape_.to_vector(), data_, nullptr}; }

 private:
  void own_copy() {
    const std::byte* source = data_;
    const std::shared_ptr<void> keep = std::move(owner_);
    allocate();
    if (bytes()) std::memcpy(data_, source, bytes());
  }

  std::byte* data_ = nullptr;
  std::shared_ptr<void> owner_;
  Shape shape_;
  Dtype dtype_ = Dtype::f32;
  detail::WriteStamp stamp_;
  bool borrowed_ = false;
  bool requires_grad_ = false;
};

/// A weight, bias or adapter matrix with elements T, and the policy that says whose its memory is.
template <class T = float, class Storage = dense>
class Parameter {
 public:
  using scalar = T;
  using storage = Storage;
  using View = Eigen::Map<Matrix<T>>;
  using ConstView = Eigen::Map<const Matrix<T>>;

  Parameter() : Parameter(Shape{0}) {}
  /// Zeros for `dense`; no memory for `mapped` and `lazy`.
  explicit Parameter(const Shape& shape) : data_(dtype_of<T>, shape) {
    if constexpr (std::is_same_v<Storage, dense>) data_.allocate();
  }

  [[nodiscard]] std::vector<Index> shape() const { return data_.shape().to_vector(); }
  [[nodiscard]] Index rows() const { return data_.shape().rows(); }
  [[nodiscard]] Index cols() const { return data_.shape().cols(); }
  [[nodiscard]] Index size() const { return data_.shape().size(); }
  [[nodiscard]] bool is_meta() const { return data_.is_meta(); }
  [[nodiscard]] Device device() const { return data_.device(); }
  [[nodiscard]] Dtype dtype() const { return data_.dtype(); }
  [[nodiscard]] bool requires_grad() const { return data_.requires_grad(); }
  void set_requires_grad(bool value) { data_.set_requires_grad(value); }

  /// Another number after every write; a view that could be written through counts as one.
  [[nodiscard]] std::uint64_t version() const { return data_.version(); }

  /// (first dimension, the rest), row-major; a vector is one row. @throws MetaError without memory.
  [[nodiscard]] View view() {
    need_memory();
    data_.touch();
    return {reinterpret_cast<T*>(data_.data()), rows(), cols()};
  }
  [[nodiscard]] ConstView view() const {
    need_memory();
    return {reinterpret_cast<const T*>(data_.data()), rows(), cols()};
  }
  /// The first element; null on meta.
  [[nodiscard]] const T* data() const { return reinterpret_cast<const T*>(data_.data()); }
  [[nodiscard]] T* data() {
    data_.touch();
    return reinterpret_cast<T*>(data_.data());
  }

  /// Memory, zeroed, if there is none yet.
  void materialize() {
    if (is_meta()) data_.allocate();
  }
  /// Uses `data`, row-major of this shape, in place; `owner` keeps it alive (null: the caller does).
  void bind(const T* data, std::shared_ptr<const void> owner = nullptr) {
    static_assert(!std::is_same_v<Storage, dense>, "graft: a dense parameter owns its memory: declare it mapped or lazy");
    data_.borrow(reinterpret_cast<std::byte*>(const_cast<T*>(data)), std::const_pointer_cast<void>(std::move(owner)));
  }
  /// A parameter on the same memory: tied weights. Copying either one unties the copy.
  [[nodiscard]] Parameter share() const {
    Parameter same(Shape{0});
    same.data_ = data_.share();
    return same;
  }

  [[nodiscard]] ParameterData& untyped() { return data_; }
  [[nodiscard]] const ParameterData& untyped() const { return data_; }

 private:
  void need_memory() const {
    if (is_meta())
      fail<MetaError>("a parameter of shape " + to_string(data_.shape()) + " has no memory",
                      "its storage is lazy or mapped, and nothing was loaded or bound",
                      "load a state dict, bind() it, initialise() the model, or materialize() it");
  }

  ParameterData data_;
};

/// A parameter as an adapter's site shows it. Valid until the adapter changes.
class ParameterView {
 public:
  explicit ParameterView(const ParameterData& data) : data_(&data) {}

  [[nodiscard]] Device device() const { return data_->device(); }
  [[nodiscard]] std::vector<Index> shape() const { return data_->shape().to_vector(); }
  [[nodiscard]] Dtype dtype() const { return data_->dtype(); }
  [[nodiscard]] bool requires_grad() const { return data_->requires_grad(); }
  [[nodiscard]] const std::byte* data() const { return data_->data(); }
  /// Another number after every write; a view counts as one.
  [[nodiscard]] std::uint64_t version() const { return data_->version(); }

  /// (first dimension, the rest), row-major. @throws MetaError without memory, ShapeError for another scalar.
  template <class T>
  [[nodiscard]] Eigen::Map<Matrix<T>> view() const {
    if (dtype_of<T> != data_->dtype())
      fail<ShapeError>("a parameter of " + std::string(tag_of(data_->dtype())) + " was asked for as " +
                           std::string(tag_of(dtype_of<T>)),
                       "a view does not convert, and shows memory as it is",
                       "ask for the scalar that dtype() names (for BF16 view<graft::bf16>()); an adapter that was loaded with "
                       "AdapterDtype::compute has that of the activations");
    if (data_->is_meta())
      fail<MetaError>("an adapter's parameter of shape " + to_string(data_->shape()) + " is on the meta device",
                      "the adapter was injected with low_cpu_mem_usage and not loaded yet",
                      "load a state dict into it first");
    data_->set_viewed();
    return {reinterpret_cast<T*>(data_->data()), data_->shape().rows(), data_->shape().cols()};
  }

 private:
  const ParameterData* data_;
};

}  // namespace graft
