#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <graft/adapters/site_vjp.hpp>
#include <graft/graft.hpp>
#include <string>
#include <utility>
#include <vector>

#include "awkward_layers.hpp"
#include "trained.hpp"

/// The gradients of one site against central differences of its recorded forward.
namespace site_gradients {

using graft::Index;
using graft::Matrix;

/// What comes into a site, with memory of its own.
template <class T>
struct Input {
  Matrix<T> rows{};
  std::vector<int> ids{};
  graft::Shape row_shape{};
  std::vector<std::int32_t> experts{};

  [[nodiscard]] graft::SiteInput<T> view() const {
    graft::SiteInput<T> x{.row_shape = row_shape};
    if (rows.size()) new (&x.rows) graft::In<T>(graft::in<T>(rows));
    x.ids = graft::Ids(std::span<const int>(ids));
    if (!experts.empty()) x.experts = graft::ExpertIds(experts);
    return x;
  }
  [[nodiscard]] Input part(Index begin, Index count) const {
    Input some{.row_shape = row_shape};
    if (rows.size()) some.rows = rows.middleRows(begin, count);
    if (!ids.empty()) some.ids.assign(ids.begin() + begin, ids.begin() + begin + count);
    if (!experts.empty()) some.experts.assign(experts.begin() + begin, experts.begin() + begin + count);
    return some;
  }
};
template <class T, class X>
Input<T> input_of(const X& x) {
  if constexpr (graft::MatrixLike<X>) {
    return {.rows = x};
  } else if constexpr (requires { x.dimension(0); }) {
    const graft::Shape shape = graft::tensor_traits<X>::shape(x);
    Input<T> all{.rows = graft::detail::tensor_rows(x)};
    all.row_shape = shape.tail();
    return all;
  } else {
    return {.ids = x};
  }
}

/// Numbers of a model, and the gradient that a backward pass gave them: null where it gave none.
template <class T>
struct Values {
  std::string name;
  T* data;
  Index size;
  const T* gradient = nullptr;
};

/// A site in a module of a model, beside one that adapters of copies alone may have as their target.
template <class Case>
struct Model {
  awkward::Net<Case> inner{};
  graft::Adaptable<graft::Linear<>> other{2, 2};
  GRAFT_MODULE(inner, other)
};

template <class Case>
struct Probe {
  using T = typename Case::Scalar;
  using Layer = typename Case::Layer;
  using Vjp = graft::SiteVjp<Layer, graft::Lora, graft::AdaLora, graft::Ia3>;
  using Site = graft::Adaptable<Layer>;

  Model<Case> net{};
  Input<T> x = input_of<T>(Case::input(5));
  graft::Batch batch{};
  graft::DropoutStream dropout{};
  graft::Gradients gradients{};
  Matrix<T> dy{}, dx{};
  std::vector<T> kept{};  // by the last forward
  std::vector<std::pair<Index, graft::AdapterSelection>> rows{{5, {}}};  // of the batch
  double step = 1.0 / 32, tolerance = 1e-11;                              // of differences; of a layer that is not linear others
  std::function<void()> settle = [] {};                                   // after a number was changed

  void compose() {
    batch.clear();
    for (const auto& [count, selection] : rows) batch.add(count, selection);
  }
  [[nodiscard]] const graft::SiteTable* table() const {
    return graft::SiteAccess<Site>::table(std::as_const(net.inner.site));
  }
  [[nodiscard]] Vjp vjp() const { return {net.inner.site.base_layer(), table(), batch.view(), dropout}; }
  [[nodiscard]] graft::detail::SiteDoor<Layer> door() const { return {net.inner.site.base_layer(), table()}; }
  [[nodiscard]] Index width() const {
    const graft::LayerFacts facts = graft::detail::facts_of(net.inner.site.base_layer());
    if constexpr (graft::detail::traits_of<Layer>::kind == graft::LayerKind::conv)
      return graft::detail::conv_row_shape(facts.conv, x.row_shape).size();
    else if constexpr (graft::detail::traits_of<Layer>::kind == graft::LayerKind::norm)
      return x.rows.cols();
    else
      return facts.out;
  }

  [[nodiscard]] Matrix<T> forward() {
    compose();
    Matrix<T> y(batch.rows(), width());
    const Vjp site = vjp();
    kept.resize(std::size_t(site.kept_results() * y.size()));
    site.forward(x.view(), graft::out(y), kept.empty() ? nullptr : kept.data());
    return y;
  }
  void backward(bool wants_dx = true) {
    const Matrix<T> y = forward();
    if (dy.rows() != y.rows() || dy.cols() != y.cols()) {
      dy.resize(y.rows(), y.cols());
      awkward::fill(dy, 77);
    }
    Matrix<T> written = dy;
    dx.setZero(x.rows.rows(), x.rows.cols());
    gradients.clear();
    vjp().backward(x.view(), kept.data(), graft::out(written),
                   graft::out<T>(wants_dx && dx.size() ? dx.data() : nullptr, dx.rows(), dx.cols()), gradients);
  }
  [[nodiscard]] double loss() {
    settle();
    return double(forward().cwiseProduct(dy).sum());
  }

  /// What of an adapter a file would hold, where it lies. Nothing computed of it is kept any longer.
  [[nodiscard]] std::vector<Values<T>> parameters(const std::string& name) {
    if (graft::AnyAdapterState* state = table()->find(name)->state())
      for (const graft::AdapterParameter& parameter : state->parameters()) parameter.data->set_viewed();
    std::vector<Values<T>> all;
    for (const auto& [key, view] : graft::get_peft_model_state_dict(net, name)) {
      if (key.starts_with("other")) continue;
      T* const data = reinterpret_cast<T*>(const_cast<std::byte*>(view.data));
      const graft::Shape shape(view.shape);
      graft::ParameterData named(view.dtype, shape);
      named.borrow(const_cast<std::byte*>(view.data), nullptr);
      const Matrix<T>* found = gradients.template find_at<T>(named);
      all.push_back({name + "." + key, data, shape.size(), found ? found->data() : nullptr});
    }
    return all;
  }

  /// Every step of a site is linear in each single number, so that a central difference is exact up to its rounding.
  void check(const Values<T>& values) {
    const double h = step;
    double largest = 0, error = 0;
    for (Index i = 0; i < values.size; ++i) {
      const T was = values.data[i];
      values.data[i] = T(double(was) + h);
      const double more = loss();
      values.data[i] = T(double(was) - h);
      const double less = loss();
      values.data[i] = was;
      const double want = (more - less) / (2 * h), got = values.gradient ? double(values.gradient[i]) : 0;
      largest = std::max(largest, std::abs(want));
      error = std::max(error, std::isfinite(got) ? std::abs(got - want) : 1e9);
    }
    settle();
    CAPTURE(values.name);
    REQUIRE(largest > 0.05);
    CHECK(error <= tolerance * (1 + largest));
  }
  void check_all(const std::vector<std::string>& names) {
    backward();
    for (const std::string& name : names)
      for (const Values<T>& values : parameters(name)) check(values);
    if (x.rows.size()) check({"x", x.rows.data(), x.rows.size(), dx.data()});
  }
};

/// While a number of a DoRA adapter, selected with a weight, is changed its magnitude follows the norm, which is a constant to
/// the gradient.
template <class Case>
void hold_norms(Probe<Case>& probe, const std::string& name, double weight = 1) {
  using T = typename Case::Scalar;
  graft::AnyAdapterState* const state = probe.table()->find(name)->state();
  const auto find = [](graft::AnyAdapterState& of, std::string_view wanted) {
    for (const graft::AdapterParameter& parameter : of.parameters()) {
      parameter.data->set_viewed();
      if (parameter.name.ends_with(wanted)) return std::span<T>(reinterpret_cast<T*>(parameter.data->data()), std::size_t(parameter.data->shape().size()));
    }
    return std::span<T>();
  };
  const auto norms = [state, find, weight, &layer = probe.net.inner.site.base_layer()] {
    const auto twin = state->clone();
    for (T& b : find(*twin, "_B")) b *= T(weight);
    static_cast<graft::AdapterState<T>&>(*twin).start_from(graft::detail::base_weight_of(std::as_const(layer)));
    const std::span<T> now = find(*twin, "magnitude_vector");
    return std::vector<T>(now.begin(), now.end());
  };
  probe.settle = [norms, magnitude = find(*state, "magnitude_vector"), last = norms()]() mutable {
    REQUIRE(last.size() == magnitude.size());
    const std::vector<T> now = norms();
    for (std::size_t o = 0; o < now.size(); ++o) magnitude[o] *= now[o] / last[o];
    last = now;
  };
}

/// Layers that no other test has: a norm of two heads, a stack of weights, a table without options.
template <class T>
struct NormCase {
  using Scalar = T;
  using Layer = graft::LayerNorm<T>;
  static Layer make() {
    Layer layer(7);
    awkward::fill<T>(layer.weight.untyped(), 1);
    awkward::fill<T>(layer.bias.untyped(), 2);
    return layer;
  }
  static auto input(Index n) { return awkward::rows<T>(n, 14); }
};
template <class T, template <class...> class Weight = graft::Parameter>
struct StackCase {
  using Scalar = T;
  using Layer = Weight<T>;
  static Layer make() {
    constexpr bool transposed = std::is_same_v<Layer, graft::TransposedParameter<T>>;
    Layer layer(transposed ? graft::Shape{3, 13, 7} : graft::Shape{3, 7, 13});
    awkward::fill<T>(layer.untyped(), 1);
    return layer;
  }
  static auto input(Index n) { return awkward::rows<T>(n, 13); }
};
template <class T>
struct PlainEmbeddingCase : awkward::LookupCase<T> {
  using Layer = graft::Embedding<T>;
  static Layer make() {
    Layer layer(13, 7);
    awkward::fill<T>(layer.weight.untyped(), 6);
    return layer;
  }
};

/// A second adapter of a model may train no biases.
template <class Config>
Config without_biases(Config config) {
  if constexpr (requires { config.bias; }) config.bias = graft::Bias::none;
  return config;
}
/// One adapter of a method of laws.hpp at a site: all of its gradients.
template <class Case, template <class> class Method>
void check_method() {
  Probe<Case> probe;
  trained::inject(Method<Case>::config(), probe.net, "a");
  probe.check_all({"a"});
}

/// A convolution with a kernel and a stride of its own for each axis.
struct ImageCase {
  using Scalar = double;
  using Layer = graft::Conv2d<double>;
  static constexpr int r = 3;
  static Layer make() { return Layer(4, 6, {.kernel = {3, 2}, .stride = {1, 2}, .padding = {1, 0}}); }
  static auto input(graft::Index n) { return awkward::GroupedConv2dCase<double>::input(n); }
};

}  // namespace site_gradients
