#pragma once

#include <algorithm>
#include <string>
#include <type_traits>

#include "../core/type_name.hpp"
#include "../kernels/column_sums.hpp"
#include "../tensor/gradients.hpp"
#include "base_weight.hpp"
#include "op.hpp"
#include "parallel_backward.hpp"

// The gradients of a layer of which only its layer_traits are known.

namespace graft::detail {

/// Whether an expression shows memory that outlives it: a reference, a map, a block or transpose of these.
template <class View>
inline constexpr bool shows_memory = [] {
  using Plain = std::remove_cvref_t<View>;
  if constexpr (!requires(const Plain& view) { view.data(); view.outerStride(); }) return false;
  else if constexpr (std::is_reference_v<View>) return true;
  else return !std::is_base_of_v<Eigen::PlainObjectBase<Plain>, Plain>;
}();

/// Where a weight or a bias lies, as the layer stores it: what its gradient is known by.
struct StoredValues {
  const void* data = nullptr;  ///< null: it does not lie in one piece, or is computed
  Index rows = 0, cols = 0;
  bool is_turned = false;  ///< the layer stores (in, out)
};
template <class L>
[[nodiscard]] StoredValues stored_weight(const L& layer) {
  if constexpr (has_weight<const L>) {
    using View = decltype(weight_of(layer));
    if constexpr (shows_memory<View>) {
      constexpr bool turned = !std::remove_cvref_t<View>::IsRowMajor;
      const auto& weight = weight_of(layer);
      const Index rows = turned ? weight.cols() : weight.rows(), cols = turned ? weight.rows() : weight.cols();
      if (weight.innerStride() == 1 && (rows < 2 || weight.outerStride() == cols)) return {weight.data(), rows, cols, turned};
    }
  }
  return {};
}
template <class L>
[[nodiscard]] StoredValues stored_bias(const L& layer) {
  if constexpr (has_bias_access<const L>) {
    if constexpr (shows_memory<decltype(bias_of(layer))>) {
      if (!has_bias_now(layer)) return {};
      const auto& bias = bias_of(layer);
      if (bias.innerStride() == 1) return {bias.data(), 1, Index(bias.size())};
    }
  }
  return {};
}

template <class L>
[[noreturn]] void cannot_train(const char* what) {
  fail<TrainingError>(std::string("the ") + what + " of a " + std::string(type_name<L>()) + " is to be trained, and cannot be",
                      "its layer_traits do not show it as memory in one piece, row-major or column-major",
                      std::string("let layer_traits::") + what + " answer a reference to the layer's own matrix or a map of it, or set "
                      "its requires_grad to false");
}
template <class L>
[[noreturn]] void no_backward() {
  fail<TrainingError>("nobody knows the gradient of a " + std::string(type_name<L>()) + " by its input",
                      "its layer_traits have neither a vjp nor a weight",
                      "add static void vjp(const L& layer, const In<T>& dy, const In<T>& x, Out<T> dx) to them, which adds to dx; to "
                      "those of a linear layer, weight(layer) as (out, in) is enough");
}

template <class L, class T>
concept HasVjp = requires(const L& layer, const In<T>& dy, const In<T>& x, Out<T> dx) { traits_of<L>::vjp(layer, dy, x, dx); };
template <class L, class T>
concept DequantizesRows = requires(const L& layer, Out<T> rows) { traits_of<L>::dequantize_rows(layer, Index(0), rows); };

/// dx += dy·W for rows [begin, begin + dy.cols()) of a weight that is written block by block: write(begin, rows).
template <class T, class Write>
void add_backward_by_blocks(Index begin, const In<T>& dy, Out<T> dx, Workspace* workspace, Write write) {
  const Index most = std::min<Index>(dy.cols(), 64), in = dx.cols();
  const Scratch<T> scratch(workspace, most * in);
  for (Index o = 0; o < dy.cols(); o += most) {
    const Index count = std::min(most, dy.cols() - o);
    write(begin + o, graft::out<T>(scratch.data(), count, in));
    const T* const rows = scratch.data();
    parallel_product_backward<T>(rows, in, graft::in<T>(dy.data() + o, dy.rows(), count, dy.outerStride()), dx, workspace);
  }
}
/// The same for the weight that the traits show.
template <class L, class T>
void add_weight_backward(const L& layer, Index begin, const In<T>& dy, Out<T> dx, Workspace* workspace) {
  if constexpr (has_weight<const L>) {
    decltype(auto) weight = weight_of(layer);
    using View = std::remove_cvref_t<decltype(weight)>;
    using W = std::remove_const_t<typename View::Scalar>;
    if constexpr (requires { weight.data(); weight.outerStride(); } && kernels::fits<T, W>) {
      const W* const data = weight.data();
      const Index stride = weight.outerStride();
      if (weight.innerStride() == 1 && View::IsRowMajor)
        return parallel_product_backward<T>(data + begin * stride, stride, dy, dx, workspace);
      if (weight.innerStride() == 1)  // it lies as (in, out)
        return parallel_product<T>(data + begin, stride, dy, static_cast<const T*>(nullptr), dx, workspace, true);
    }
    add_backward_by_blocks<T>(begin, dy, dx, workspace, [&](Index row, Out<T> rows) {
      for (Index i = 0; i < rows.rows(); ++i)
        for (Index c = 0; c < rows.cols(); ++c) rows(i, c) = converted<T>(weight.coeff(row + i, c));
    });
  } else if constexpr (DequantizesRows<L, T>) {
    add_backward_by_blocks<T>(begin, dy, dx, workspace, [&](Index row, Out<T> rows) { traits_of<L>::dequantize_rows(layer, row, rows); });
  } else {
    no_backward<L>();
  }
}

/// Calls f(dy of all outputs of a layer) where `dy` is that of the outputs from `begin` on: zeros for the others.
template <class T, class F>
void with_all_outputs(Index begin, Index all, const In<T>& dy, Workspace* workspace, F f) {
  if (dy.cols() == all) return f(dy);
  const Scratch<T> scratch(workspace, dy.rows() * all);
  std::fill_n(scratch.data(), dy.rows() * all, T(0));
  const Out<T> whole = graft::out<T>(scratch.data(), dy.rows(), all);
  copy_rows(dy, graft::out<T>(scratch.data() + begin, dy.rows(), dy.cols(), all));
  f(graft::in<T>(whole));
}

/// The vjp of a user's linear layer; dy is that of the outputs from `begin` on.
template <class L, class T>
void user_linear_vjp(const L& layer, Index begin, const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& x,
                     Out<T> dx, Trained trained) {
  const StoredValues weight = trained.weight ? stored_weight(layer) : StoredValues{};
  const StoredValues bias = trained.bias ? stored_bias(layer) : StoredValues{};
  if (trained.weight && !weight.data) cannot_train<L>("weight");
  if (trained.bias && !bias.data && has_bias_now(layer)) cannot_train<L>("bias");
  if (dx.data()) {
    if constexpr (HasVjp<L, T>)
      with_all_outputs<T>(begin, traits_of<L>::out_features(layer), dy, batch.workspace,
                          [&](const In<T>& whole) { traits_of<L>::vjp(layer, whole, x, dx); });
    else add_weight_backward<L, T>(layer, begin, dy, dx, batch.workspace);
  }
  if (weight.data) {
    Out<T> dw = gradients.at<T>(weight.data, weight.rows, weight.cols);
    if (weight.is_turned)
      parallel_weight_backward<T>(x, dy, graft::out<T>(dw.data() + begin, dw.rows(), dy.cols(), dw.outerStride()), batch.workspace);
    else parallel_weight_backward<T>(dy, x, rows_of(dw, begin, dy.cols()), batch.workspace);
  }
  if (bias.data)
    kernels::add_column_sums<T>(dy.rows(), dy.cols(), dy.data(), dy.outerStride(), gradients.at<T>(bias.data, 1, bias.cols).data() + begin);
}

/// The vjp of a user's norm.
template <class L, class T>
void user_norm_vjp(const L& layer, const In<T>& dy, const In<T>& x, Out<T> dx, Trained trained) {
  if (trained.weight || trained.bias) cannot_train<L>(trained.weight ? "weight" : "bias");
  if constexpr (HasVjp<L, T>) {
    if (dx.data()) traits_of<L>::vjp(layer, dy, x, dx);
  } else if (dx.data()) {
    no_backward<L>();
  }
}

}  // namespace graft::detail
