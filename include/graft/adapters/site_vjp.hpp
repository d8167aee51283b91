#pragma once

#include <algorithm>
#include <type_traits>

#include "site_backward.hpp"
#include "site_forward.hpp"

namespace graft {

/// The recorded forward of one site for a batch, and its backward. It refers to the layer, the site's table and the batch's
/// view; of some rows of a packed layer it holds which these are. T is the scalar of the layer's activations.
template <class L, class... As>
class SiteVjp {
 public:
  using T = detail::layer_scalar<L>;

  /// A backward has the `dropout` of its forward.
  SiteVjp(const L& layer, const SiteTable* table, const BatchView& batch, const DropoutStream& dropout = {})
      : layer_(layer), batch_(batch), selected_(table, batch), steps_(layer_, table, batch, dropout) {}

  /// Whether the layer, or an adapter that the batch selects here, has parameters that want gradients.
  [[nodiscard]] bool trainable() const {
    if (const Trained own = detail::base_trains(layer_); own.weight || own.bias) return true;
    for (const detail::Selected& one : selected_.all()) {
      const SiteAdapter& here = *one.adapter;
      if ((here.copy && here.copy_trains) || (here.bias && here.bias->requires_grad()) ||
          (here.tokens && here.tokens->rows().requires_grad()) || States::wants_gradients(one))
        return true;
    }
    return false;
  }
  /// How many results of the size of y the backward pass reads, as they stood before the steps of some adapters. That pass
  /// then forms no base product.
  [[nodiscard]] Index kept_results() const {
    Index most = 0;
    selected_.for_each_selection(
        [&](const Segment&, std::span<const detail::Selected> here) { most = std::max(most, steps_.count(here)); });
    return most;
  }

  /// y becomes the result for x: without dropout that of an inference pass, bit for bit. `kept` has room for kept_results(),
  /// or is null: no backward follows.
  /// @throws TrainingError for an adapter of the user's whose State does not know its gradient.
  void forward(const SiteInput<T>& x, Out<T> y, T* kept) const {
    bool drops = false;
    for (const detail::Selected& one : selected_.all()) {
      if constexpr (States::has_others) States::check(one, selected_.table()->path);
      drops = drops || steps_.drops(one);
    }
    if (!drops && !kept) return detail::SiteForward<L>(layer_, selected_, batch_).run(x, y);
    const Steps steps = steps_.keeping({kept, y.rows(), y.cols()});
    detail::SiteForward<L, 0, T, Steps>(layer_, selected_, batch_, steps).run(x, y);
  }

  /// Adds to dx, and to `gradients` for parameters that want one, the gradients of forward(x), which wrote `kept`, given that
  /// by its result, dy. dx.data() null: nobody wants it. dy is written over.
  void backward(const SiteInput<T>& x, T* kept, Out<T> dy, Out<T> dx, Gradients& gradients) const {
    if (selected_.empty()) return detail::base_vjp<L, T>(layer_, {}, x, in<T>(dy), dx, batch_.workspace, gradients);
    const Steps steps = steps_.keeping({kept, dy.rows(), dy.cols()});
    detail::SiteBackward<L, As...>(layer_, batch_, selected_, steps, gradients).run(x, dy, dx);
  }

 private:
  using States = detail::StateVjp<L, As...>;
  using Steps = detail::RecordedSteps<L, As...>;

  std::conditional_t<detail::is_projection_slice<L>, const L, const L&> layer_;
  BatchView batch_;
  detail::SelectedAdapters selected_;
  Steps steps_;
};

}  // namespace graft
