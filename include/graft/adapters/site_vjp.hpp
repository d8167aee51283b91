#pragma once

#include <functional>
#include <type_traits>

#include "site_backward.hpp"

namespace graft {

/// The recorded forward of one site and its backward. It refers to the layer and the site's table, which outlive it; of some
/// rows of a packed layer it holds which these are. T is the scalar of the layer's activations.
template <class L, class... As>
class SiteVjp {
 public:
  using T = detail::layer_scalar<L>;

  SiteVjp(const L& layer, const SiteTable* table) : layer_(layer), table_(table) {}

  /// Whether the layer, or an adapter that the batch selects here, has parameters that want gradients.
  [[nodiscard]] bool trainable(const BatchView& batch) const {
    if (const Trained own = detail::base_trains(layer()); own.weight || own.bias) return true;
    const detail::SelectedAdapters selected(table_, batch);
    for (const detail::Selected& one : selected.all()) {
      const SiteAdapter& here = *one.adapter;
      if ((here.copy && here.copy_trains) || (here.bias && here.bias->requires_grad()) ||
          (here.tokens && here.tokens->rows().requires_grad()) || States::wants_gradients(one))
        return true;
    }
    return false;
  }

  /// y becomes the result for x: without dropout that of an inference pass, bit for bit.
  /// @throws TrainingError for an adapter of the user's whose State does not know its gradient.
  void forward(const BatchView& batch, const SiteInput<T>& x, Out<T> y, const DropoutStream& dropout) const {
    if (dropout.active && table_) return forward_dropped(batch, x, y, dropout);
    detail::SiteForward<L> site(layer(), table_, batch);
    check(batch);
    site.run(x, y);
  }

  /// Adds to dx, and to `gradients` for parameters that want one, the gradients of forward(batch, x) with the same `dropout`,
  /// given that by its result, dy. dx.data() null: nobody wants it. dy is written over.
  void backward(const BatchView& batch, const SiteInput<T>& x, Out<T> dy, Out<T> dx, Gradients& gradients,
                const DropoutStream& dropout) const {
    const detail::SelectedAdapters selected(table_, batch);
    if (selected.empty()) return detail::base_vjp<L, T>(layer(), {}, x, in<T>(dy), dx, batch.workspace, gradients);
    detail::SiteBackward<L, As...>(layer(), *table_, batch, selected, gradients, dropout).run(x, dy, dx);
  }

 private:
  using States = detail::StateVjp<L, As...>;
  using Steps = detail::RecordedSteps<L, As...>;

  [[nodiscard]] const L& layer() const { return layer_; }
  void check(const BatchView& batch) const {
    if constexpr (!States::has_others) return;
    const detail::SelectedAdapters selected(table_, batch);
    for (const detail::Selected& one : selected.all()) States::check(one, table_->path);
  }
  void forward_dropped(const BatchView& batch, const SiteInput<T>& x, Out<T> y, const DropoutStream& dropout) const {
    const Steps steps(layer(), *table_, batch, dropout);
    bool drops = false;
    {
      const detail::SelectedAdapters selected(table_, batch);
      for (const detail::Selected& one : selected.all()) drops = drops || steps.drops(one);
    }
    if (!drops) return forward(batch, x, y, {});
    detail::SiteForward<L, 0, T, Steps> site(layer(), table_, batch, steps);
    check(batch);
    site.run(x, y);
  }

  std::conditional_t<detail::is_projection_slice<L>, L, std::reference_wrapper<const L>> layer_;
  const SiteTable* table_;
};

}  // namespace graft
