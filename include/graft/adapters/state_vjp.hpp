#pragma once

#include <concepts>
#include <string>
#include <type_traits>
#include <utility>

#include "../modules/packed_projection.hpp"
#include "adalora_vjp.hpp"
#include "ia3_vjp.hpp"
#include "lora_vjp.hpp"
#include "parameter_lora_vjp.hpp"
#include "selected.hpp"

namespace graft::detail {

/// Whether a site makes ParameterLora of LoRA of a parameter, and not LoRA of the layer.
template <class L>
inline constexpr bool makes_parameter_lora = [] {
  if constexpr (is_projection_slice<L>) return makes_parameter_lora<std::remove_cvref_t<decltype(*std::declval<L>().whole)>>;
  else return traits_of<L>::kind != LayerKind::conv && (traits_of<L>::kind != LayerKind::linear || is_transposed<L>);
}();

/// What training asks of a site's states, told by the site's list.
template <class L, class... As>
struct StateVjp {
  using T = layer_scalar<L>;

  [[nodiscard]] static bool wants_gradients(const Selected& one) {
    bool wants = false;
    visit(one, [&](const auto& state) {
      if constexpr (requires { state.wants_gradients(); }) wants = state.wants_gradients();
      else
        for (const AdapterParameter& parameter : one.adapter->state->parameters())
          wants = wants || parameter.data->requires_grad();
    });
    return wants;
  }
  /// Whether the result before its update must be there for the backward pass, or before what it does after all updates.
  [[nodiscard]] static bool update_wants_result(const Selected& one) {
    bool wants = false;
    visit(one, [&](const auto& state) {
      if constexpr (requires { state.update_wants_result(); }) wants = state.update_wants_result();
      else wants = state.has_update();
    });
    return wants;
  }
  [[nodiscard]] static bool after_wants_result(const Selected& one) {
    bool wants = false;
    visit(one, [&](const auto& state) {
      if constexpr (requires { state.after_wants_result(); }) wants = state.after_wants_result();
      else wants = state.has_factors();
    });
    return wants;
  }

  static void update_vjp(const Selected& one, const UpdateGradient<T>& to) {
    visit(one, [&](const auto& state) {
      if constexpr (requires { state.update_vjp(to); }) state.update_vjp(to);
    });
  }
  static void before_vjp(const Selected& one, const FactorGradient<T>& to) {
    visit(one, [&](const auto& state) {
      if constexpr (requires { state.before_vjp(to); }) state.before_vjp(to);
    });
  }
  static void after_vjp(const Selected& one, const FactorGradient<T>& to) {
    visit(one, [&](const auto& state) {
      if constexpr (requires { state.after_vjp(to); }) state.after_vjp(to);
    });
  }
  /// y += the update over what dropout left of x.
  static void update_dropped(const Selected& one, const SiteInput<T>& x, const DroppedInput<T>& dropped, Out<T> y,
                             const BaseWeight<T>& base, Workspace* workspace) {
    visit(one, [&](const auto& state) {
      if constexpr (requires { state.update_dropped(x, dropped, y, one.weight, base, workspace); })
        state.update_dropped(x, dropped, y, one.weight, base, workspace);
      else state.update(dropped.x, y, one.weight, base, workspace);
    });
  }

  /// Whether the list has methods of the user's.
  static constexpr bool has_others = !((std::same_as<As, Lora> || std::same_as<As, AdaLora> || std::same_as<As, Ia3>) && ...);
  /// @throws TrainingError for an adapter of the user's that has steps and not their gradients.
  static void check(const Selected& one, const std::string& path) {
    visit(one, [&](const auto& state) {
      if constexpr (!requires(const UpdateGradient<T>& to) { state.update_vjp(to); })
        if (state.has_update()) cannot_train(one, path, "an update", "void update_vjp(const graft::UpdateGradient<T>&) const");
      if constexpr (!requires(const FactorGradient<T>& to) { state.before_vjp(to); })
        if (state.acts_before())
          cannot_train(one, path, "a step before the layer", "void before_vjp(const graft::FactorGradient<T>&) const");
      if constexpr (!requires(const FactorGradient<T>& to) { state.after_vjp(to); })
        if (state.has_factors() && !state.acts_before())
          cannot_train(one, path, "a step after all updates", "void after_vjp(const graft::FactorGradient<T>&) const");
    });
  }

 private:
  [[noreturn]] static void cannot_train(const Selected& one, const std::string& path, const std::string& what,
                                        const std::string& member) {
    fail<TrainingError>("nobody knows the gradient of adapter '" + one.identity->name + "' at '" + path + "'",
                        "its State has " + what + " and not the gradient of that",
                        "add " + member + " to it (adapters/update_gradient.hpp), or do not record rows that select it");
  }

  template <class F>
  static void visit(const Selected& one, const F& f) {
    const AnyAdapterState* any = one.adapter->state.get();
    if (!any) return;
    if constexpr (makes_parameter_lora<L> && (std::same_as<As, Lora> || ...))
      if (any->is_of_parameter()) return f(static_cast<const ParameterLora<T>&>(*any));
    if constexpr (sizeof...(As) > 0) visit_last<As...>(*any, f);
  }
  /// Of several adapters with one type the last is the site's.
  template <class A, class... Rest, class F>
  static bool visit_last(const AnyAdapterState& any, const F& f) {
    if constexpr (sizeof...(Rest) > 0)
      if (visit_last<Rest...>(any, f)) return true;
    if constexpr (A::supports(traits_of<L>::kind))
      if (any.type() == A::type) {
        f(static_cast<const typename A::template State<T>&>(any));
        return true;
      }
    return false;
  }
};

}  // namespace graft::detail
