#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../tensor/convert.hpp"
#include "layer_traits.hpp"
#include "parameters.hpp"
#include "visit.hpp"

namespace graft::detail {

/// One tensor of a model's own, whatever holds it: a Parameter, an Eigen matrix, or a view that traits give.
struct BaseTensor {
  std::string key;  ///< "weight", below its layer
  Dtype dtype = Dtype::f32;
  Shape shape{};
  std::function<TensorView()> read;              ///< row-major, as torch stores it
  std::function<void(const TensorView&, bool may_borrow)> write;
  ParameterData* parameter = nullptr;  ///< that holds it, if one does
  const void* storage = nullptr;       ///< where the elements are while the model does not change; null: unknown
};

template <class Eigenish>
Shape shape_of(const Eigenish& values) {
  if constexpr (Eigenish::IsVectorAtCompileTime) return Shape{values.size()};
  else return Shape{values.rows(), values.cols()};
}

inline void check_size(Index size, const Shape& shape) {
  if (size != shape.size())
    fail<ShapeError>("a layer's weight has " + std::to_string(size) + " elements, its sizes mean " + to_string(shape),
                     "layer_traits<L>::weight and the sizes in the same traits disagree",
                     "answer (out, in), (num, dim) or (out, in/groups, kernel…), as the sizes say");
}

/// Reads and writes any Eigen expression element by element: its layout is not ours to assume.
template <class Get>
BaseTensor tensor_of_expression(std::string key, const Shape& shape, Get get) {
  using View = std::remove_cvref_t<decltype(get())>;
  using T = std::remove_const_t<typename View::Scalar>;
  BaseTensor tensor{std::move(key), dtype_of<T>, shape, {}, {}};
  if constexpr (std::is_reference_v<decltype(get())> || !std::is_base_of_v<Eigen::PlainObjectBase<View>, View>)
    if constexpr (requires { get().data(); }) tensor.storage = get().data();
  tensor.read = [get, shape] {
    const auto& values = get();
    check_size(values.size(), shape);
    const std::shared_ptr<std::byte> bytes = zeroed(std::size_t(shape.size()) * sizeof(T));
    T* next = reinterpret_cast<T*>(bytes.get());
    for (Index row = 0; row < values.rows(); ++row)
      for (Index col = 0; col < values.cols(); ++col) *next++ = values.coeff(row, col);
    return TensorView{dtype_of<T>, shape.to_vector(), bytes.get(), bytes};
  };
  tensor.write = [get, shape](const TensorView& source, bool) {
    auto&& values = get();
    check_size(values.size(), shape);
    std::size_t next = 0;
    for (Index row = 0; row < values.rows(); ++row)
      for (Index col = 0; col < values.cols(); ++col) {
        if constexpr (sizeof(T) >= 4) values.coeffRef(row, col) = element_as<T>(source.dtype, source.data, next++);
        else values.coeffRef(row, col) = T(element_as<float>(source.dtype, source.data, next++));
      }
  };
  return tensor;
}

template <class P>
BaseTensor tensor_of_parameter(std::string key, P& parameter) {
  if constexpr (is_parameter<P>) {
    ParameterData* data = &parameter.untyped();
    return {std::move(key), data->dtype(), data->shape(), [data] { return data->view(); },
            [data](const TensorView& source, bool may_borrow) {
              constexpr bool is_dense = std::is_same_v<typename P::storage, dense>;
              constexpr bool is_mapped = std::is_same_v<typename P::storage, mapped>;
              assign(*data, source, is_mapped || (may_borrow && !is_dense));
            },
            data, data->data()};
  } else {
    return tensor_of_expression(std::move(key), shape_of(parameter), [p = &parameter] {
      return Eigen::Map<std::remove_const_t<P>, Eigen::Unaligned>(p->data(), p->rows(), p->cols());
    });
  }
}

/// The stored weight of a layer that only its traits describe; as (in, out) where the layer is transposed.
template <class L>
void tensors_of_traits(L& layer, const std::string& prefix, std::vector<BaseTensor>& tensors) {
  if constexpr (has_weight<L>) {
    Shape shape = shape_of(traits_of<L>::weight(layer));
    if constexpr (traits_of<L>::kind == LayerKind::conv) {
      const ConvShape conv = traits_of<L>::conv_shape(layer);
      shape = Shape{conv.out, conv.in / conv.groups};
      for (const Index size : conv.kernel) shape.push_back(size);
    }
    if constexpr (is_transposed<L>) {
      tensors.push_back(tensor_of_expression(prefix + "weight", Shape{shape[1], shape[0]},
                                             [&layer] { return traits_of<L>::weight(layer).transpose(); }));
    } else {
      tensors.push_back(tensor_of_expression(prefix + "weight", shape, [&layer]() -> decltype(auto) { return traits_of<L>::weight(layer); }));
    }
  }
  with_bias(layer, [&](auto& bias) {
    using B = std::remove_cvref_t<decltype(bias)>;
    if constexpr (requires { bias.data(); }) {
      using Plain = std::conditional_t<std::is_base_of_v<Eigen::PlainObjectBase<B>, B>, B, typename B::PlainObject>;
      auto* data = const_cast<typename Plain::Scalar*>(bias.data());
      const Index size = bias.size();
      tensors.push_back(tensor_of_expression(prefix + "bias", Shape{size}, [data, size] {
        return Eigen::Map<Eigen::Matrix<typename Plain::Scalar, Eigen::Dynamic, 1>, Eigen::Unaligned>(data, size);
      }));
    }
  });
}

/// Every tensor of a layer or module, in the order in which torch registers them. An absent bias is none.
template <class Node>
std::vector<BaseTensor> base_tensors(Node& node) {
  std::vector<BaseTensor> tensors;
  if constexpr (Module<std::remove_const_t<Node>>) {
    visit(node, [&](std::string_view path, auto& part) {
      using Part = std::remove_cvref_t<decltype(part)>;
      if constexpr (enable_parameter<Part>) {
        if (part.size()) tensors.push_back(tensor_of_parameter(std::string(path), part));
      } else if constexpr (has_layer_traits<Part> && !Module<Part>) {
        tensors_of_traits(part, path.empty() ? "" : std::string(path) + ".", tensors);
      }
    });
  } else if constexpr (has_layer_traits<std::remove_const_t<Node>>) {
    tensors_of_traits(node, "", tensors);
  }
  return tensors;
}

}  // namespace graft::detail
