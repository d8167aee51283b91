#pragma once

#include <concepts>
#include <memory>
#include <type_traits>

#include "../modules/base_weight.hpp"
#include "../modules/layer_call.hpp"
#include "../modules/packed_projection.hpp"
#include "../modules/parameter_layer.hpp"
#include "selected.hpp"

/// What a site's steps do that is not an adapter's own: base products, copies, tokens and biases.
namespace graft::detail {

template <class L>
class ModuleCopy final : public AnyModuleCopy {
 public:
  explicit ModuleCopy(const L& original) : layer(original) {}
  [[nodiscard]] std::unique_ptr<AnyModuleCopy> clone() const override {
    if constexpr (std::copy_constructible<L>) return make_unique_as<AnyModuleCopy, ModuleCopy>(layer);
    else return nullptr;  // never made: only a layer that can be copied has copies
  }
  L layer;
};

/// The copy of a site's layer that an adapter has; of some rows of a packed one those of its copy.
template <class L>
decltype(auto) copy_of([[maybe_unused]] const L& layer, const Selected& one) {
  if constexpr (is_projection_slice<L>) {
    using P = std::remove_cvref_t<decltype(*layer.whole)>;
    return L{&static_cast<const ModuleCopy<P>&>(*one.adapter->copy).layer, layer.begin, layer.count};
  } else {
    return (static_cast<const ModuleCopy<L>&>(*one.adapter->copy).layer);
  }
}

/// The base product of any layer, from views into views. `Axes` spatial axes at a convolution, 0 where they are not known.
template <class L, class T, int Axes = 0>
void call_base(const L& layer, const SiteInput<T>& x, Out<T> y, Workspace* workspace) {
  constexpr LayerKind kind = traits_of<L>::kind;
  if constexpr (kind == LayerKind::linear || kind == LayerKind::norm) call_linear<L, T>(layer, x.rows, y, workspace);
  else if constexpr (kind == LayerKind::embedding) call_embedding<L, T>(layer, x.ids, y, workspace);
  else if constexpr (kind == LayerKind::parameter) call_parameter<L, T>(layer, x.rows, x.experts, y, workspace);
  else call_conv<L, T, Axes>(layer, x.rows, x.row_shape, y, workspace);
}

template <class L, class T>
void replace_tokens([[maybe_unused]] const L& layer, [[maybe_unused]] const TokenRows& tokens, [[maybe_unused]] const SiteInput<T>& x,
                    [[maybe_unused]] Out<T> y, [[maybe_unused]] const BaseWeight<T>& base, [[maybe_unused]] Workspace* workspace) {
  if constexpr (traits_of<L>::kind == LayerKind::embedding) replace_embedded<T>(tokens, facts_of(layer), x.ids, y);
  else if constexpr (traits_of<L>::kind == LayerKind::linear) replace_logits<T>(tokens, base, x.rows, y, workspace);
}

// The product keeps its bits and its bias; the difference is added.
template <class L, class T>
void exchange_bias(const L& layer, Out<T> rows, const ParameterData& trained) {
  with_bias(layer, [&](const auto& bias) {
    const Index channels = Index(bias.size()), positions = rows.cols() / channels;
    for (Index i = 0; i < rows.rows(); ++i)
      for (Index c = 0; c < channels; ++c) {
        const T difference = element_as<T>(trained.dtype(), trained.data(), std::size_t(c)) - converted<T>(bias.coeff(c));
        // a convolution's channels are each in one piece; a norm's features repeat with every head
        for (Index p = 0; p < positions; ++p)
          rows(i, traits_of<L>::kind == LayerKind::norm ? p * channels + c : c * positions + p) += difference;
      }
  });
}

}  // namespace graft::detail
