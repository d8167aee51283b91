#pragma once

#include <array>
#include <concepts>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "../core/dtype.hpp"
#include "../kernels/conv_geometry.hpp"
#include "../tensor/matrix.hpp"
#include "../tensor/tensor.hpp"
#include "describe.hpp"

namespace graft {

/// What a layer computes, and so which adapters fit it. `parameter`: a weight, or a stack of weights, that a module's own
/// forward multiplies with. `norm`: rows, or parts of them, normalised and scaled; no adapter fits it, `modules_to_save` does.
enum class LayerKind { linear, embedding, conv, parameter, norm };

/// One number per spatial axis: from one Index for all axes, from a braced list, or from an array.
class AxisList : public Shape {
 public:
  AxisList() = default;
  AxisList(Index all) : Shape{all} {}
  AxisList(std::initializer_list<Index> axes) : Shape(axes) {}
  AxisList(const Shape& axes) : Shape(axes) {}
  AxisList(const std::vector<Index>& axes) : Shape(axes) {}
  template <std::integral I, std::size_t N>
  AxisList(const std::array<I, N>& axes) {
    for (const I axis : axes) push_back(Index(axis));
  }
};

/// The geometry of a convolution, as `layer_traits<L>::conv_shape` states it.
struct ConvShape {
  Index in = 0, out = 0;
  AxisList kernel{}, stride = 1, padding = 0, dilation = 1;
  Index groups = 1;
  PaddingMode padding_mode = PaddingMode::zeros;
  bool same = false;  ///< padding keeps the input's size; `padding` is not read then

  /// Every list written out to the kernel's number of axes.
  [[nodiscard]] ConvShape completed() const {
    ConvShape full = *this;
    for (AxisList* list : {&full.stride, &full.padding, &full.dilation})
      while (list->rank() < kernel.rank()) list->push_back((*list)[list->rank() - 1]);
    return full;
  }
};

/// The sizes of a weight that a module multiplies with itself: (out, in), or a stack (experts, out, in); of one that
/// multiplies from the other side (in, out) and (experts, in, out). All zeros but `stored` where it has another rank.
struct WeightStack {
  Index experts = 0;  ///< 0: no stack but one matrix
  Index in = 0, out = 0;
  bool transposed = false;
  Shape stored{};

  WeightStack() = default;
  WeightStack(const Shape& shape, bool is_transposed) : transposed(is_transposed), stored(shape) {
    if (shape.rank() != 2 && shape.rank() != 3) return;
    experts = shape.rank() == 3 ? shape[0] : 0;
    in = is_transposed ? rows() : cols();
    out = is_transposed ? cols() : rows();
  }
  /// The matrices' number and their sizes as they are stored.
  [[nodiscard]] Index count() const { return stored.rank() == 3 ? stored[0] : 1; }
  [[nodiscard]] Index rows() const { return stored[stored.rank() - 2]; }
  [[nodiscard]] Index cols() const { return stored.back(); }
};

/// What the adapters know of a layer: everything that shapes and formulas depend on.
struct LayerFacts {
  LayerKind kind = LayerKind::linear;
  Index in = 0, out = 0;  ///< features; embedding: (num_embeddings, embedding_dim); conv: channels
  bool has_bias = false;
  bool transposed = false;  ///< the layer stores (in, out)
  bool packed = false;      ///< it is an attention's projection of queries, keys and values
  ConvShape conv{};
  std::optional<double> max_norm{};  ///< of an embedding, with norm_type
  double norm_type = 2;
  double embed_scale = 1;
  std::optional<Index> padding_idx{};  ///< whose row has no gradient
  bool scale_grad_by_freq = false;     ///< a row's gradient is the mean over those that looked it up
  WeightStack stack{};  ///< of kind parameter

  [[nodiscard]] std::string shape_text() const { return to_string(kind == LayerKind::parameter ? stack.stored : Shape{in, out}); }
};

namespace detail {
template <class L>
using traits_of = layer_traits<std::remove_const_t<L>>;

template <class L>
inline constexpr bool is_transposed = [] {
  if constexpr (requires { traits_of<L>::transposed; }) return bool(traits_of<L>::transposed);
  else return false;
}();
/// An attention: a site of its packed projection, in which its output projection is a site too.
template <class L>
inline constexpr bool is_attention = requires { typename traits_of<L>::packed_projection; };
template <class L>
inline constexpr bool is_packed = [] {
  if constexpr (requires { traits_of<L>::packed; }) return bool(traits_of<L>::packed);
  else return false;
}();
/// Whether a layer's traits say what every site of its kind asks for.
template <class L>
inline constexpr bool has_whole_layer_traits = [] {
  if constexpr (!has_layer_traits<L>) return false;
  else if constexpr (is_attention<L>) return true;
  else if constexpr (!requires { typename traits_of<L>::scalar; }) return false;
  else if constexpr (traits_of<L>::kind == LayerKind::linear)
    return requires(const L& layer) { traits_of<L>::in_features(layer) + traits_of<L>::out_features(layer); };
  else if constexpr (traits_of<L>::kind == LayerKind::embedding)
    return requires(const L& layer) { traits_of<L>::num_embeddings(layer) + traits_of<L>::embedding_dim(layer); };
  else if constexpr (traits_of<L>::kind == LayerKind::conv) return requires(const L& layer) { traits_of<L>::conv_shape(layer); };
  else if constexpr (traits_of<L>::kind == LayerKind::parameter) return requires(const L& layer) { traits_of<L>::shape(layer); };
  else return requires(const L& layer) { traits_of<L>::features(layer); };
}();

template <class L>
concept has_weight = requires(L& layer) { traits_of<L>::weight(layer); };
template <class L>
concept has_bias_access = requires(L& layer) { traits_of<L>::bias(layer); };

/// What `layer_traits<L>::weight` answers as a matrix (out, in · k…), or (num, dim): a tensor is seen as one.
template <class L>
  requires has_weight<L>
decltype(auto) weight_of(L& layer) {
  using W = decltype(traits_of<L>::weight(layer));
  if constexpr (TensorLike<W> && !MatrixLike<W>) {
    auto&& tensor = traits_of<L>::weight(layer);
    const Shape shape = tensor_traits<std::remove_cvref_t<W>>::shape(tensor);
    auto* data = tensor_traits<std::remove_cvref_t<W>>::data(tensor);
    using T = std::remove_pointer_t<decltype(data)>;
    using Plain = Matrix<std::remove_const_t<T>>;
    return Eigen::Map<std::conditional_t<std::is_const_v<T>, const Plain, Plain>, Eigen::Unaligned>(data, shape.rows(), shape.cols());
  } else {
    return traits_of<L>::weight(layer);
  }
}

/// The layer's bias as an Eigen vector, through the pointer where the traits answer one. Not to be called for null.
template <class L>
  requires has_bias_access<L>
decltype(auto) bias_of(L& layer) {
  if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(traits_of<L>::bias(layer))>>) return *traits_of<L>::bias(layer);
  else return traits_of<L>::bias(layer);
}

/// Whether elements of such a result of the traits can be assigned to, and are the layer's own.
template <class Result>
concept WritableView = requires(Result&& values) { values.coeffRef(0, 0) = values.coeff(0, 0); } &&
                       (std::is_reference_v<Result> ||
                        !std::is_base_of_v<Eigen::PlainObjectBase<std::remove_cvref_t<Result>>, std::remove_cvref_t<Result>>);

/// Whether the layer has a bias: its traits give access to one, and it is neither null nor empty.
template <class L>
bool has_bias_now(L& layer) {
  if constexpr (requires { traits_of<L>::has_bias(layer); })
    if (!traits_of<L>::has_bias(layer)) return false;
  if constexpr (has_bias_access<L>) {
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(traits_of<L>::bias(layer))>>)
      if (!traits_of<L>::bias(layer)) return false;
    return bias_of(layer).size() != 0;
  } else {
    return false;
  }
}

/// Calls f(bias) with the layer's bias as an Eigen vector; not at all where there is none.
template <class L, class F>
void with_bias(L& layer, F&& f) {
  if constexpr (has_bias_access<L>) {
    if (!has_bias_now(layer)) return;
    auto&& bias = bias_of(layer);
    f(bias);
  }
}

/// The sizes of a layer of kind parameter.
template <class L>
[[nodiscard]] WeightStack stack_of(const L& layer) {
  return {traits_of<L>::shape(layer), is_transposed<L>};
}

/// The scalar of activations at a layer.
template <class L>
using layer_scalar = compute_scalar<typename traits_of<L>::scalar>;

template <class L>
LayerFacts facts_of(const L& layer) {
  using traits = traits_of<L>;
  LayerFacts facts;
  facts.kind = traits::kind;
  facts.transposed = is_transposed<L>;
  facts.packed = is_packed<L>;
  if constexpr (traits::kind == LayerKind::linear) {
    facts.in = traits::in_features(layer);
    facts.out = traits::out_features(layer);
  } else if constexpr (traits::kind == LayerKind::embedding) {
    facts.in = traits::num_embeddings(layer);
    facts.out = traits::embedding_dim(layer);
    if constexpr (requires { traits::max_norm(layer); }) {
      facts.max_norm = traits::max_norm(layer);
      facts.norm_type = traits::norm_type(layer);
    }
    if constexpr (requires { traits::padding_idx(layer); }) facts.padding_idx = traits::padding_idx(layer);
    if constexpr (requires { traits::scale_grad_by_freq(layer); }) facts.scale_grad_by_freq = traits::scale_grad_by_freq(layer);
    if constexpr (requires { traits::embed_scale(layer); }) facts.embed_scale = double(traits::embed_scale(layer));
  } else if constexpr (traits::kind == LayerKind::parameter) {
    facts.stack = stack_of(layer);
    facts.in = facts.stack.in;
    facts.out = facts.stack.out;
  } else if constexpr (traits::kind == LayerKind::norm) {
    facts.in = facts.out = traits::features(layer);
  } else {
    facts.conv = ConvShape(traits::conv_shape(layer)).completed();
    facts.in = facts.conv.in;
    facts.out = facts.conv.out;
  }
  if constexpr (requires { traits::has_bias(layer); }) facts.has_bias = traits::has_bias(layer);
  else with_bias(layer, [&](const auto&) { facts.has_bias = true; });
  return facts;
}
}  // namespace detail

}  // namespace graft
