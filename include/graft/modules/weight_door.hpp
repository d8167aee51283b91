#pragma once

#include <cmath>
#include <type_traits>

#include "base_weight.hpp"
#include "parameters.hpp"
#include "visit.hpp"

namespace graft {

/// What quantising cost: over all elements of the weight.
struct QuantizeReport {
  double max_error = 0;       ///< the largest |w - stored|
  double rms_error = 0;       ///< √ of the mean of (w - stored)²
  double relative_error = 0;  ///< rms_error over the weight's own root mean square
};

}  // namespace graft

namespace graft::detail {

/// A layer's weight and bias, to be changed: what merging needs of a layer, whatever holds them.
class AnyWeightDoor {
 public:
  virtual ~AnyWeightDoor() = default;
  /// Whether the layer's traits show its weight, and let it be written.
  [[nodiscard]] virtual bool is_readable() const = 0;
  [[nodiscard]] virtual bool is_writable() const = 0;
  [[nodiscard]] virtual bool has_bias() const = 0;
  [[nodiscard]] virtual bool is_bias_writable() const = 0;
  /// Whether every write rounds to few bits; `report` then says what the writes through this door cost.
  [[nodiscard]] virtual bool is_quantized() const { return false; }
  [[nodiscard]] virtual QuantizeReport report() const { return {}; }
  /// The weight's, as it is stored.
  [[nodiscard]] virtual Dtype dtype() const = 0;
  /// The parameter that holds the weight, or the bias, or would hold one; null where none does.
  [[nodiscard]] virtual ParameterData* parameter() = 0;
  [[nodiscard]] virtual ParameterData* bias_parameter() = 0;
  /// Where the elements are: equal for weights that are tied. Null where they are computed.
  [[nodiscard]] virtual const void* storage() = 0;
  [[nodiscard]] virtual const void* bias_storage() = 0;
  /// The elements as they are stored, in memory of their own, and back.
  [[nodiscard]] virtual ParameterData save() = 0;
  virtual void restore(const ParameterData& saved) = 0;
  [[nodiscard]] virtual ParameterData save_bias() = 0;
  virtual void restore_bias(const ParameterData& saved) = 0;
};

/// The same in the activations' scalar.
template <class T>
class WeightDoor : public AnyWeightDoor {
 public:
  [[nodiscard]] virtual BaseWeight<T> base() const = 0;
  /// All rows where they lie as `base` shows them, to be written; else null.
  [[nodiscard]] virtual T* data() = 0;
  /// Rows from `begin` on, each element rounded once.
  virtual void write_rows(Index begin, const In<T>& rows) = 0;
  virtual void write_bias(const T* values) = 0;
  /// Whether these values are finite, once they are rounded to what the layer stores.
  [[nodiscard]] virtual bool stay_finite(const T* values, Index count) const = 0;
};

/// The parameter of a layer whose memory begins there.
template <class L>
[[nodiscard]] ParameterData* parameter_at(L& layer, const void* data) {
  ParameterData* found = nullptr;
  if constexpr (is_parameter<std::remove_const_t<L>>) return &layer.untyped();
  else if constexpr (Module<std::remove_const_t<L>>)
    visit(layer, [&](std::string_view, auto& part) {
      if constexpr (is_parameter<std::remove_cvref_t<decltype(part)>>)
        if (part.size() && part.untyped().data() == data) found = &part.untyped();
    });
  return found;
}

template <class L, class T = layer_scalar<L>>
class LayerDoor : public WeightDoor<T> {
  using traits = traits_of<L>;
  static constexpr bool readable = has_weight<const L> && has_weight<L>;
  static constexpr bool writable = [] {
    if constexpr (readable) return WritableView<decltype(weight_of(std::declval<L&>()))>;
    else return false;
  }();
  static constexpr bool bias_writable = [] {
    if constexpr (has_bias_access<L>) return WritableView<decltype(bias_of(std::declval<L&>()))>;
    else return false;
  }();

 public:
  explicit LayerDoor(L& layer) : layer_(layer) {}

  [[nodiscard]] bool is_readable() const override { return readable; }
  [[nodiscard]] bool is_writable() const override { return writable; }
  [[nodiscard]] bool has_bias() const override { return base().has_bias(); }
  [[nodiscard]] bool is_bias_writable() const override { return bias_writable; }
  [[nodiscard]] BaseWeight<T> base() const override { return base_weight_of(std::as_const(layer_)); }

  [[nodiscard]] Dtype dtype() const override {
    if constexpr (readable) return dtype_of<Stored>;
    else return dtype_of<T>;
  }
  [[nodiscard]] ParameterData* parameter() override {
    const void* data = storage();
    return data ? parameter_at(layer_, data) : nullptr;
  }
  [[nodiscard]] ParameterData* bias_parameter() override {
    if constexpr (requires { traits::bias_parameter(layer_).untyped(); }) return &traits::bias_parameter(layer_).untyped();
    const void* data = bias_storage();
    return data ? parameter_at(layer_, data) : nullptr;
  }
  [[nodiscard]] const void* storage() override {
    if constexpr (readable) {
      decltype(auto) weight = weight_of(std::as_const(layer_));
      if constexpr (requires { weight.data(); }) return weight.data();
    }
    return nullptr;
  }
  [[nodiscard]] const void* bias_storage() override {
    const void* found = nullptr;
    with_bias(std::as_const(layer_), [&](const auto& bias) {
      if constexpr (requires { bias.data(); }) found = bias.data();
    });
    return found;
  }

  [[nodiscard]] T* data() override {
    if constexpr (writable && std::is_same_v<Stored, T>) {
      (void)weight_of(layer_);  // counts as a write, and may move the elements
      return const_cast<T*>(base().data());
    }
    return nullptr;
  }
  void write_rows(Index begin, const In<T>& rows) override {
    if constexpr (writable) {
      auto&& weight = weight_of(layer_);
      for (Index i = 0; i < rows.rows(); ++i)
        for (Index c = 0; c < rows.cols(); ++c) weight.coeffRef(begin + i, c) = rounded<Stored>(rows(i, c));
    }
  }
  void write_bias(const T* values) override {
    if constexpr (bias_writable)
      with_bias(layer_, [&](auto& bias) {
        using S = std::remove_cvref_t<decltype(bias.coeff(0))>;
        for (Index i = 0; i < Index(bias.size()); ++i) bias.coeffRef(i) = rounded<S>(values[i]);
      });
  }
  [[nodiscard]] bool stay_finite(const T* values, Index count) const override {
    if constexpr (!readable) return true;
    else if constexpr (std::is_same_v<Stored, T>) return are_finite(values, count);
    else {
      for (Index i = 0; i < count; ++i)
        if (!std::isfinite(converted<T>(rounded<Stored>(values[i])))) return false;
      return true;
    }
  }

  [[nodiscard]] ParameterData save() override {
    ParameterData saved;
    if constexpr (readable) {
      decltype(auto) weight = weight_of(std::as_const(layer_));
      saved = ParameterData(dtype_of<Stored>, Shape{weight.rows(), weight.cols()});
      saved.allocate();
      auto* next = reinterpret_cast<Stored*>(saved.data());
      for (Index i = 0; i < weight.rows(); ++i)
        for (Index c = 0; c < weight.cols(); ++c) *next++ = weight.coeff(i, c);
    }
    return saved;
  }
  void restore(const ParameterData& saved) override {
    if constexpr (writable) {
      auto&& weight = weight_of(layer_);
      const auto* next = reinterpret_cast<const Stored*>(saved.data());
      for (Index i = 0; i < weight.rows(); ++i)
        for (Index c = 0; c < weight.cols(); ++c) weight.coeffRef(i, c) = *next++;
    }
  }
  [[nodiscard]] ParameterData save_bias() override {
    ParameterData saved;
    with_bias(std::as_const(layer_), [&](const auto& bias) {
      using S = std::remove_cvref_t<decltype(bias.coeff(0))>;
      saved = ParameterData(dtype_of<S>, Shape{Index(bias.size())});
      saved.allocate();
      for (Index i = 0; i < Index(bias.size()); ++i) reinterpret_cast<S*>(saved.data())[i] = bias.coeff(i);
    });
    return saved;
  }
  void restore_bias(const ParameterData& saved) override {
    if constexpr (bias_writable)
      with_bias(layer_, [&](auto& bias) {
        using S = std::remove_cvref_t<decltype(bias.coeff(0))>;
        for (Index i = 0; i < Index(bias.size()); ++i) bias.coeffRef(i) = reinterpret_cast<const S*>(saved.data())[i];
      });
  }

 private:
  struct NoWeight {
    using Scalar = T;
  };
  static auto stored_scalar() {
    if constexpr (readable) return std::type_identity<std::remove_cvref_t<decltype(weight_of(std::declval<L&>()))>>{};
    else return std::type_identity<NoWeight>{};
  }
  using Stored = std::remove_const_t<typename decltype(stored_scalar())::type::Scalar>;

  template <class S>
  [[nodiscard]] static S rounded(T value) {
    if constexpr (std::is_floating_point_v<S>) return S(value);
    else return S(float(value));
  }

 protected:
  [[nodiscard]] static bool are_finite(const T* values, Index count) {
    for (Index i = 0; i < count; ++i)
      if (!std::isfinite(values[i])) return false;
    return true;
  }

  L& layer_;
};

/// The door of a layer's type; of a quantised one another (quantized_door.hpp).
template <class L>
struct DoorOf {
  using type = LayerDoor<L>;
};

}  // namespace graft::detail
