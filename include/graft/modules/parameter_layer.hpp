#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "base_weight.hpp"
#include "expert_ids.hpp"
#include "linear.hpp"
#include "parallel_product.hpp"

namespace graft {

/// A weight that multiplies rows from the left: x·W with W (in, out), or a stack (experts, in, out), as the experts of
/// gpt-oss and Llama 4 store it. It is what PEFT knows by a module's `is_transposed`.
template <class T = float, class Storage = dense>
class TransposedParameter : public Parameter<T, Storage> {
 public:
  using Parameter<T, Storage>::Parameter;
};

template <class T, class Storage>
inline constexpr bool enable_parameter<TransposedParameter<T, Storage>> = true;
namespace detail {
template <class T, class Storage>
inline constexpr bool is_parameter<TransposedParameter<T, Storage>> = true;

/// What both have in common. `weight` answers all matrices of a stack one below the other.
template <class P>
struct ParameterTraits {
  using scalar = typename P::scalar;
  static constexpr LayerKind kind = LayerKind::parameter;
  static Shape shape(const P& parameter) { return parameter.untyped().shape(); }
  static auto weight(P& parameter) { return typename P::View(parameter.view().data(), rows(parameter), cols(parameter)); }
  static auto weight(const P& parameter) { return typename P::ConstView(parameter.view().data(), rows(parameter), cols(parameter)); }
  static std::uint64_t weight_version(const P& parameter) { return parameter.version(); }

 private:
  static Index cols(const P& parameter) { return parameter.untyped().shape().rank() ? parameter.untyped().shape().back() : 1; }
  static Index rows(const P& parameter) { return cols(parameter) ? parameter.size() / cols(parameter) : 0; }
};
}  // namespace detail

/// In an `Adaptable<…>`, a parameter of a module of yours has room for adapters: `LoraConfig::target_parameters`.
template <class T, class Storage>
struct layer_traits<Parameter<T, Storage>> : detail::ParameterTraits<Parameter<T, Storage>> {};
template <class T, class Storage>
struct layer_traits<TransposedParameter<T, Storage>> : detail::ParameterTraits<TransposedParameter<T, Storage>> {
  static constexpr bool transposed = true;
};

namespace ops {
/// Every row of x times the matrix of its expert. `weight`: all of them, rows `ld` apart.
template <class W>
struct ExpertLinear {
  const W* weight;
  Index ld;
  WeightStack stack;
  ExpertIds experts{};
  Trained trained{};

  [[nodiscard]] Index cols(const auto& x) const {
    if (stack.stored.rank() != 2 && stack.stored.rank() != 3)
      fail<ShapeError>("a weight of shape " + to_string(stack.stored), "rows are multiplied by a matrix, or by one of a stack",
                       "give it the shape (out, in) or (experts, out, in)");
    if (x[0].cols() != stack.in)
      fail<ShapeError>("a weight of shape " + to_string(stack.stored) + " got rows of " + std::to_string(x[0].cols()) + " features",
                       "it takes " + std::to_string(stack.in),
                       "check what feeds it; a weight that stores (in, out) is a graft::TransposedParameter");
    detail::check_experts(experts, stack.experts, x[0].rows());
    return stack.out;
  }
  template <class T>
  void forward(const BatchView& batch, Out<T> y, std::span<const In<T>> x) const {
    static_assert(std::is_same_v<T, compute_scalar<W>>,
                  "graft: this weight's activations have another scalar: double for a double weight, else float");
    detail::for_each_expert(experts, stack.experts, x[0], y, false, batch.workspace, [&](Index e, const In<T>& rows, Out<T> to) {
      const W* w = weight + e * stack.rows() * ld;
      if (stack.transposed) detail::parallel_product_nn<T>(w, ld, rows, to, batch.workspace);
      else detail::parallel_product<T>(w, ld, rows, static_cast<const T*>(nullptr), to, batch.workspace);
    });
  }
  [[nodiscard]] bool trainable(const BatchView&) const { return trained.weight; }
  /// @throws TrainingError for a weight that is trained and has gaps between its rows
  template <class T>
  void vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& y, std::span<const In<T>> x,
           std::span<const Out<T>> dx) const;
};
}  // namespace ops

namespace detail {
/// The base product of a layer of kind parameter, as its traits show the weight.
template <class L>
[[nodiscard]] auto expert_op(const L& layer, const ExpertIds& experts) {
  static_assert(has_weight<const L>, "graft: the layer_traits of a parameter need a weight(layer)");
  static_assert(is_lasting_view<decltype(weight_of(layer))>,
                "graft: weight(layer) of a parameter answers a map of its memory, row-major, (experts * rows, cols)");
  const auto& weight = weight_of(layer);
  using View = std::remove_cvref_t<decltype(weight)>;
  static_assert(View::IsRowMajor, "graft: a parameter is row-major");
  Trained trained;
  if constexpr (is_parameter<L>) trained.weight = layer.requires_grad();
  using W = std::remove_const_t<typename View::Scalar>;
  return ops::ExpertLinear<W>{weight.data(), weight.outerStride(), stack_of(layer), experts, trained};
}
template <class L, class T>
void call_parameter(const L& layer, const In<T>& x, const ExpertIds& experts, Out<T> y, Workspace* workspace) {
  run_op<T>(expert_op(layer, experts), x, y, workspace);
}
}  // namespace detail

/// Every row of x times the matrix of its expert in a stack (experts, out, in), of a TransposedParameter (experts, in, out).
/// @throws ShapeError for an expert that is none of the stack's
template <class W>
  requires detail::is_parameter<W>
auto expert_linear(const auto& x, const W& stack, const ExpertIds& experts) {
  const auto op = detail::expert_op(stack, experts);
  if constexpr (Recorded<decltype(x)>) {
    using Kept = std::vector<std::int32_t>;
    detail::Keeping<std::remove_const_t<decltype(op)>, Kept> keeping{op, nullptr};
    if (experts.is_by_row()) {  // they are read again when the caller's are gone
      keeping.kept = std::make_shared<const Kept>(experts.of_rows().begin(), experts.of_rows().end());
      keeping.experts = ExpertIds(*keeping.kept);
    }
    return detail::custom_linear(keeping, x);
  } else {
    return detail::custom_linear(op, x);
  }
}
/// x·W for a TransposedParameter (in, out).
template <class T, class Storage>
auto linear(const auto& x, const TransposedParameter<T, Storage>& weight) {
  return detail::custom_linear(detail::expert_op(weight, {}), x);
}

}  // namespace graft
