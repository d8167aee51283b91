#pragma once

#include <functional>
#include <memory>
#include <optional>
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
  std::function<void(const TensorView&, bool may_borrow)> write;  ///< null: the layer only shows it
  ParameterData* parameter = nullptr;  ///< that holds it and can be written, if one does
  const void* storage = nullptr;       ///< where the elements are while the model does not change; null: unknown
  std::optional<Shape> stored{};       ///< of the layer's own matrix, if it lies there in one piece and may be written: its sizes as it lies
};

/// The sizes of values in memory, rows by rows, if they lie in one piece.
template <class Values>
[[nodiscard]] std::optional<Shape> stored_shape(const Values& values, const Shape& shape) {
  if (values.size() != shape.size()) return {};
  const bool by_rows = Values::IsRowMajor || shape.rank() < 2;
  const Index rows = Values::IsRowMajor ? values.rows() : values.cols(), cols = Values::IsRowMajor ? values.cols() : values.rows();
  if (values.innerStride() != 1 || (rows > 1 && values.outerStride() != cols)) return {};
  return by_rows ? shape : Shape{rows, cols};
}

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
  if constexpr (WritableView<decltype(get())> && requires { get().outerStride(); }) tensor.stored = stored_shape(get(), shape);
  if constexpr (WritableView<decltype(get())>)
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

/// Of a const parameter it can only be read.
template <class P>
BaseTensor tensor_of_parameter(std::string key, P& parameter) {
  if constexpr (is_parameter<std::remove_const_t<P>>) {
    auto* data = &parameter.untyped();
    BaseTensor tensor{std::move(key), data->dtype(), data->shape(), [data] { return data->view(); }, {}};
    tensor.storage = data->data();
    if constexpr (!std::is_const_v<P>) {
      tensor.parameter = data;
      tensor.write = [data](const TensorView& source, bool may_borrow) {
        constexpr bool is_dense = std::is_same_v<typename P::storage, dense>;
        constexpr bool is_mapped = std::is_same_v<typename P::storage, mapped>;
        assign(*data, source, is_mapped || (may_borrow && !is_dense));
      };
    }
    return tensor;
  } else {
    return tensor_of_expression(std::move(key), shape_of(parameter), [p = &parameter]() -> P& { return *p; });
  }
}

/// The stored weight of a layer that only its traits describe; as (in, out) where the layer is transposed.
template <class L>
void tensors_of_traits(L& layer, const std::string& prefix, std::vector<BaseTensor>& tensors) {
  const std::string own = prefix + (is_packed<L> ? "in_proj_" : "");
  if constexpr (has_weight<L>) {
    const LayerFacts facts = facts_of(std::as_const(layer));
    // torch's layout; the sizes decide, since a single row or column may be a vector to Eigen
    Shape shape = facts.kind == LayerKind::embedding ? Shape{facts.in, facts.out} : Shape{facts.out, facts.in};
    if constexpr (traits_of<L>::kind == LayerKind::conv) {
      shape[1] = facts.in / facts.conv.groups;
      for (const Index size : facts.conv.kernel) shape.push_back(size);
    }
    if constexpr (traits_of<L>::kind == LayerKind::parameter) {  // it is the tensor, and has no name below itself
      std::string key = prefix.substr(0, prefix.size() - !prefix.empty());
      tensors.push_back(tensor_of_expression(std::move(key), facts.stack.stored, [&layer]() -> decltype(auto) { return weight_of(layer); }));
    } else if constexpr (is_transposed<L>) {
      tensors.push_back(tensor_of_expression(own + "weight", Shape{shape[1], shape[0]}, [&layer] { return weight_of(layer).transpose(); }));
    } else {
      tensors.push_back(tensor_of_expression(own + "weight", shape, [&layer]() -> decltype(auto) { return weight_of(layer); }));
    }
  }
  if constexpr (has_bias_access<L>)
    if (has_bias_now(layer))
      tensors.push_back(tensor_of_expression(own + "bias", Shape{Index(bias_of(layer).size())},
                                             [&layer]() -> decltype(auto) { return bias_of(layer); }));
}

/// Every tensor of a layer or module, in the order in which torch registers them. An absent bias is none.
template <class Node>
std::vector<BaseTensor> base_tensors(Node& node) {
  std::vector<BaseTensor> tensors;
  if constexpr (requires { traits_of<Node>::tensors(node); }) {
    return traits_of<Node>::tensors(node);
  } else if constexpr (is_parameter<std::remove_const_t<Node>>) {
    tensors.push_back(tensor_of_parameter("", node));
  } else if constexpr (Module<std::remove_const_t<Node>>) {
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
