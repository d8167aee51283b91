#pragma once

#include <cstdint>
#include <optional>
#include <type_traits>

#include "../tensor/convert.hpp"
#include "layer_traits.hpp"

namespace graft {

/// A layer's weight and bias as adapters see them, who know nothing of layers: rows of torch's layout, (out, the rest)
/// or (num, dim), in the activations' scalar whatever the layer stores. It owns nothing and costs two pointers until
/// it is asked.
template <class T>
class BaseWeight {
 public:
  /// What one type of layer answers; null functions where its traits do not.
  struct Access {
    Shape (*shape)(const void* layer) = nullptr;
    const T* (*data)(const void* layer) = nullptr;
    void (*copy_rows)(const void* layer, Index begin, Out<T> rows) = nullptr;
    bool (*has_bias)(const void* layer) = nullptr;
    void (*copy_bias)(const void* layer, T* to) = nullptr;
    std::optional<std::uint64_t> (*version)(const void* layer) = nullptr;
  };

  BaseWeight(const void* layer, const Access& access) : layer_(layer), access_(&access) {}

  /// Whether the layer's traits show its weight at all.
  [[nodiscard]] bool is_readable() const { return access_->shape != nullptr; }
  /// (rows, width)
  [[nodiscard]] Shape shape() const { return access_->shape(layer_); }
  /// All rows, contiguous, where the layer stores them as they are shown; else null.
  [[nodiscard]] const T* data() const { return access_->data ? access_->data(layer_) : nullptr; }
  /// Rows [begin, begin + rows.rows()), converted.
  void copy_rows(Index begin, Out<T> rows) const { access_->copy_rows(layer_, begin, rows); }

  [[nodiscard]] bool has_bias() const { return trained_bias_ || (access_->has_bias && access_->has_bias(layer_)); }
  /// The bias that stands in the base product of these rows: the layer's, or the one that an adapter trained.
  void copy_bias(T* to) const {
    if (!trained_bias_) return access_->copy_bias(layer_, to);
    for (Index i = 0; i < trained_bias_->shape().size(); ++i)
      to[i] = element_as<T>(trained_bias_->dtype(), trained_bias_->data(), std::size_t(i));
  }
  [[nodiscard]] BaseWeight with_bias(const ParameterData* trained) const {
    BaseWeight other = *this;
    other.trained_bias_ = trained;
    return other;
  }

  /// The row that a result's first column belongs to, where a forward computes only some of a packed layer's.
  [[nodiscard]] Index first_row() const { return first_row_; }
  [[nodiscard]] BaseWeight from_row(Index row) const {
    BaseWeight other = *this;
    other.first_row_ = row;
    return other;
  }

  /// The same without a version: of a layer that may give its place to another one.
  [[nodiscard]] BaseWeight without_version() const {
    BaseWeight other = *this;
    other.is_versioned_ = false;
    return other;
  }

  /// Another number after every write of the weight; nothing where writes cannot be seen: then nothing that is
  /// computed from it may be kept.
  [[nodiscard]] std::optional<std::uint64_t> version() const {
    return is_versioned_ && access_->version ? access_->version(layer_) : std::nullopt;
  }
  /// Tells layers apart for whoever keeps what was computed of one.
  [[nodiscard]] const void* layer() const { return layer_; }

 private:
  const void* layer_;
  const Access* access_;
  const ParameterData* trained_bias_ = nullptr;
  bool is_versioned_ = true;
  Index first_row_ = 0;
};

namespace detail {
/// Whether an expression is memory that outlives it, row after row: not a temporary, nor what is computed.
template <class View>
inline constexpr bool is_lasting_view = std::is_reference_v<View>;
template <class Plain, int MapOptions, class Stride>
inline constexpr bool is_lasting_view<Eigen::Map<Plain, MapOptions, Stride>> = true;

template <class T, class Value>
[[nodiscard]] T converted(Value value) {
  if constexpr (std::is_floating_point_v<Value>) return T(value);
  else return T(float(value));
}

/// The answers of layer_traits<L>, once per type of layer.
template <class L, class T = layer_scalar<L>>
struct WeightAccess {
  using traits = traits_of<L>;

  static const L& of(const void* layer) { return *static_cast<const L*>(layer); }
  static constexpr typename BaseWeight<T>::Access make() {
    typename BaseWeight<T>::Access answers;
    if constexpr (has_weight<const L>) {
      answers.shape = [](const void* layer) {
        decltype(auto) weight = weight_of(of(layer));
        return Shape{weight.rows(), weight.cols()};
      };
      answers.data = [](const void* layer) -> const T* {
        decltype(auto) weight = weight_of(of(layer));
        using View = std::remove_cvref_t<decltype(weight)>;
        if constexpr (requires { weight.data(); weight.outerStride(); } && is_lasting_view<decltype(weight_of(of(layer)))> &&
                      std::is_same_v<std::remove_const_t<typename View::Scalar>, T>) {
          if (View::IsRowMajor && weight.innerStride() == 1 && weight.outerStride() == weight.cols()) return weight.data();
        }
        return nullptr;
      };
      answers.copy_rows = [](const void* layer, Index begin, Out<T> rows) {
        decltype(auto) weight = weight_of(of(layer));
        for (Index i = 0; i < rows.rows(); ++i)
          for (Index c = 0; c < rows.cols(); ++c) rows(i, c) = converted<T>(weight.coeff(begin + i, c));
      };
    }
    if constexpr (has_bias_access<const L>) {
      answers.has_bias = [](const void* layer) {
        bool has_one = false;
        with_bias(of(layer), [&](const auto&) { has_one = true; });
        return has_one;
      };
      answers.copy_bias = [](const void* layer, T* to) {
        with_bias(of(layer), [&](const auto& bias) {
          for (Index i = 0; i < Index(bias.size()); ++i) to[i] = converted<T>(bias.coeff(i));
        });
      };
    }
    if constexpr (requires(const L& layer) { traits::weight_version(layer); })
      answers.version = [](const void* layer) { return std::optional<std::uint64_t>(traits::weight_version(of(layer))); };
    return answers;
  }
  static constexpr typename BaseWeight<T>::Access access = make();
};

template <class L>
[[nodiscard]] BaseWeight<layer_scalar<L>> base_weight_of(const L& layer) {
  return {&layer, WeightAccess<L>::access};
}
}  // namespace detail

}  // namespace graft
