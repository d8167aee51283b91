#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base_tensors.hpp"
#include "layer_call.hpp"
#include "random_fill.hpp"

namespace graft {

/// Parts of layers, by the names that a whole layer has in Python.
namespace slices {

/// Some rows of a linear layer's weight, and of its bias, as a linear layer of their own: what a Python model has where an
/// engine computes several layers by one matrix. It refers to the whole layer, whose memory is the only one; values that are
/// written to it are written there.
///
/// A copy is a copy of the whole layer, and sees the same rows of it.
template <class L>
class Linear {
 public:
  Linear(L& whole, Index begin, Index count) : whole_(&whole), begin_(begin), count_(count) {}
  Linear(const Linear& other)
    requires std::copy_constructible<L>
      : own_(std::make_unique<L>(*other.whole_)), whole_(own_.get()), begin_(other.begin_), count_(other.count_) {}
  Linear(Linear&&) noexcept = default;
  // no assignment: other values take the place of these in the whole layer
  Linear& operator=(const Linear&) = delete;
  ~Linear() = default;

  [[nodiscard]] L& whole() { return *whole_; }
  [[nodiscard]] const L& whole() const { return *whole_; }
  /// The rows [begin, begin + count) of the whole layer's weight.
  [[nodiscard]] Index begin() const { return begin_; }
  [[nodiscard]] Index count() const { return count_; }
  /// From now on rows of another layer.
  void refer_to(L& whole, Index begin, Index count) {
    own_.reset();
    whole_ = &whole;
    begin_ = begin;
    count_ = count;
  }

 private:
  std::unique_ptr<L> own_;
  L* whole_;
  Index begin_, count_;
};

}  // namespace slices

namespace detail {
template <class L>
inline constexpr bool is_linear_slice = false;
template <class L>
inline constexpr bool is_linear_slice<slices::Linear<L>> = true;

/// Before a part of a layer is written: memory for parameters without any, and of their own for those that borrow it.
/// Nothing for a const layer.
template <class L>
void own_memory(L& layer) {
  if constexpr (!std::is_const_v<L> && Module<L>)
    visit(layer, [](std::string_view, auto& part) {
      if constexpr (is_parameter<std::remove_cvref_t<decltype(part)>>) {
        part.materialize();
        part.untyped().detach();
      }
    });
}
template <class L>
[[nodiscard]] bool has_memory(const L& layer) {
  bool all = true;
  if constexpr (Module<L>)
    visit(layer, [&](std::string_view, const auto& part) {
      if constexpr (is_parameter<std::remove_cvref_t<decltype(part)>>) all = all && !part.is_meta();
    });
  return all;
}

/// Rows of what `weight_of` answered: a view of lasting memory where it is one, so that it is seen to lie in one piece.
template <class View>
auto rows_of_weight(View&& all, Index begin, Index count) {
  using Plain = std::remove_cvref_t<View>;
  if constexpr (!std::is_lvalue_reference_v<View> && std::is_base_of_v<Eigen::PlainObjectBase<Plain>, Plain>) {
    return Matrix<typename Plain::Scalar>(all.middleRows(begin, count));
  } else if constexpr (requires { all.data(); all.outerStride(); } && bool(Plain::IsRowMajor)) {
    using T = std::remove_pointer_t<decltype(all.data())>;
    using Rows = std::conditional_t<std::is_const_v<T>, const Matrix<std::remove_const_t<T>>, Matrix<std::remove_const_t<T>>>;
    const Index stride = all.outerStride();
    return Eigen::Map<Rows, Eigen::Unaligned, Eigen::OuterStride<>>(all.data() + begin * stride, count, all.cols(),
                                                                    Eigen::OuterStride<>(stride));
  } else {
    return all.middleRows(begin, count);
  }
}
template <class View>
auto part_of_bias(View&& all, Index begin, Index count) {
  using Plain = std::remove_cvref_t<View>;
  if constexpr (!std::is_lvalue_reference_v<View> && std::is_base_of_v<Eigen::PlainObjectBase<Plain>, Plain>)
    return Plain(all.segment(begin, count));
  else return all.segment(begin, count);
}
}  // namespace detail

template <class L>
struct layer_traits<slices::Linear<L>> {
  using Layer = slices::Linear<L>;
  using traits = detail::traits_of<L>;
  using scalar = typename traits::scalar;
  using T = compute_scalar<scalar>;
  static constexpr LayerKind kind = LayerKind::linear;
  static constexpr bool transposed = detail::is_transposed<L>;

  static Index in_features(const Layer& layer) { return traits::in_features(layer.whole()); }
  static Index out_features(const Layer& layer) { return layer.count(); }
  static bool has_bias(const Layer& layer) { return detail::has_bias_now(layer.whole()); }
  /// Of a layer that is not const: to be written.
  static auto weight(auto& layer)
    requires detail::has_weight<std::remove_reference_t<decltype(layer.whole())>>
  {
    detail::own_memory(layer.whole());
    return detail::rows_of_weight(detail::weight_of(layer.whole()), layer.begin(), layer.count());
  }
  static auto bias(auto& layer)
    requires detail::has_bias_access<std::remove_reference_t<decltype(layer.whole())>>
  {
    detail::own_memory(layer.whole());
    return detail::part_of_bias(detail::bias_of(layer.whole()), layer.begin(), layer.count());
  }
  static std::uint64_t weight_version(const Layer& layer)
    requires requires(const L& whole) { traits::weight_version(whole); }
  {
    return traits::weight_version(layer.whole());
  }

  static void forward_into(const Layer& layer, const In<T>& x, Out<T> y, Workspace* workspace) {
    if constexpr (requires { traits::forward_rows_into(layer.whole(), layer.begin(), x, y, workspace); }) {
      traits::forward_rows_into(layer.whole(), layer.begin(), x, y, workspace);
    } else {
      const Index all = traits::out_features(layer.whole());
      const Scratch<T> scratch(workspace, x.rows() * all);
      Out<T> whole = out<T>(scratch.data(), x.rows(), all);
      detail::call_linear<L, T>(layer.whole(), x, whole, workspace);
      y = whole.middleCols(layer.begin(), layer.count());
    }
  }

  /// The values that the layer would have by itself.
  static void initialise(Layer& layer, std::string_view path, std::uint64_t seed) {
    const Index in = in_features(layer);
    const double bound = in > 0 ? 1 / std::sqrt(double(in)) : 0;
    for (const detail::BaseTensor& tensor : tensors(layer)) {
      if (!tensor.write) continue;
      ParameterData drawn(tensor.dtype, tensor.shape);
      fill_uniform(drawn, {seed, std::string(path) + "." + tensor.key}, bound);
      tensor.write(drawn.view(), false);
    }
  }

  /// What a state dict shows: the rows as they are stored. Nothing is written, nor given memory, by looking.
  static std::vector<detail::BaseTensor> tensors(auto& layer) {
    std::vector<detail::BaseTensor> all;
    const Index in = in_features(layer), count = layer.count();
    const auto add = [&](const char* key, const Shape& shape, auto get) {
      using Written = decltype(get(layer));
      using Stored = std::remove_const_t<typename std::remove_cvref_t<Written>::Scalar>;
      detail::BaseTensor tensor{key, dtype_of<Stored>, shape, {}, {}};
      tensor.read = [&layer, get, shape] {
        if (!detail::has_memory(layer.whole())) return TensorView{dtype_of<Stored>, shape.to_vector(), nullptr, nullptr};
        return detail::tensor_of_expression("", shape, [&layer, get] { return get(std::as_const(layer)); }).read();
      };
      if constexpr (!std::is_const_v<std::remove_reference_t<decltype(layer)>> && detail::WritableView<Written>)
        tensor.write = [&layer, get, shape](const TensorView& source, bool) {
          detail::tensor_of_expression("", shape, [&layer, get] { return get(layer); }).write(source, false);
        };
      if (detail::has_memory(layer.whole()))
        tensor.storage = detail::tensor_of_expression("", shape, [&layer, get] { return get(std::as_const(layer)); }).storage;
      all.push_back(std::move(tensor));
    };
    if constexpr (detail::has_weight<const L>) {
      if constexpr (transposed) add("weight", {in, count}, [](auto& of) { return weight(of).transpose(); });
      else add("weight", {count, in}, [](auto& of) { return weight(of); });
    }
    if constexpr (detail::has_bias_access<const L>)
      if (has_bias(layer)) add("bias", {count}, [](auto& of) { return bias(of); });
    return all;
  }
};

}  // namespace graft
