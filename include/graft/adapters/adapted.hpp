#pragma once

#include <concepts>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "../core/compile_once.hpp"
#include "adalora.hpp"
#include "ia3.hpp"
#include "lora.hpp"
#include "site_door.hpp"

namespace graft {

struct AttendOptions;
template <class T>
struct SiteAccess;
template <class L, class... As>
class Adapted;

/// What a site permits, as a type: what takes recorded values apart is given it.
template <class... As>
struct AdapterList {};

namespace detail {
/// What a site holds, and the part of it that its adapters see: the layer; of an attention its packed projection, while the
/// output projection inside of it becomes a site too.
template <class L, class... As>
struct SiteLayer {
  using held = L;
  using adapted = L;
};
template <class L, class... As>
  requires(is_attention<L> && sizeof...(As) > 0)
struct SiteLayer<L, As...> {
  using held = typename traits_of<L>::template with_out_projection<Adapted<typename traits_of<L>::out_projection, As...>>;
  using adapted = typename traits_of<L>::packed_projection;
};

/// What a site's adapters make of x, of whatever kind. Values of training go to `record_site` of graft/train.hpp.
template <class... As, class L>
auto forward_site(const SiteDoor<L>& door, const auto& x) {
  if constexpr (Recorded<decltype(x)>) return record_site(AdapterList<As...>{}, door, x);
  else return door.forward(x);
}

/// Projects rows of a packed layer, with its site's adapters.
template <class P, class... As>
struct SiteProjection {
  const P& layer;
  const SiteTable* table;
  auto operator()(const auto& x, Index begin, Index count) const {
    const ProjectionSlice<P> slice{&layer, begin, count};
    return forward_site<As...>(SiteDoor<ProjectionSlice<P>>{slice, table}, x);
  }
};
template <class A>
inline constexpr bool supports_packed = requires { requires A::supports_packed; };
}  // namespace detail

/// A layer with room for adapters: the only wrapper in graft. `As…` is the closed list of what it permits;
/// an empty list is exactly the layer. Nothing injected costs one pointer and one test of it.
///
/// It holds the layer and never is one: `site->weight` reaches it, and there is no conversion through which an
/// adapter could be lost.
template <class L, class... As>
class Adapted {
  static_assert(detail::has_layer_traits<L>,
                "graft: no graft::layer_traits for this layer: specialise it with kind, scalar and its sizes "
                "(linear: in_features, out_features)");
  static_assert(!detail::has_layer_traits<L> || detail::has_whole_layer_traits<L>,
                "graft: the graft::layer_traits of this layer lack `using scalar = …`, or the sizes of its kind (linear: in_features, "
                "out_features; embedding: num_embeddings, embedding_dim; conv: conv_shape; parameter: shape; norm: features)");
  static_assert(!detail::is_attention<L> || sizeof...(As) > 0, "graft: an attention without room for adapters is declared as itself");
  using Held = typename detail::SiteLayer<L, As...>::held;

 public:
  using layer_type = L;
  using held_type = Held;

  /// Builds the layer from its own arguments.
  template <class... Arguments>
    requires(std::constructible_from<Held, Arguments...> &&
             !(sizeof...(Arguments) == 1 && (std::same_as<std::remove_cvref_t<Arguments>, Adapted> && ...)))
  Adapted(Arguments&&... arguments) : base_layer_(std::forward<Arguments>(arguments)...) {}

  Adapted(const Adapted& other)
    requires std::copy_constructible<Held>
      : base_layer_(other.base_layer_), table_(other.copy_of_table()) {}
  Adapted& operator=(const Adapted& other)
    requires std::copy_constructible<Held>
  {
    if (this != &other) *this = Adapted(other);
    return *this;
  }
  Adapted(Adapted&&) noexcept = default;
  Adapted& operator=(Adapted&&) noexcept = default;
  ~Adapted() = default;

  /// The layer; of an attention with the output projection as a site of its own.
  [[nodiscard]] Held& base_layer() { return base_layer_; }
  [[nodiscard]] const Held& base_layer() const { return base_layer_; }
  Held* operator->() { return &base_layer_; }
  const Held* operator->() const { return &base_layer_; }

  /// Whether an adapter of this kind may be injected here.
  template <class A>
  static constexpr bool permits = (std::same_as<A, As> || ...) && A::supports(detail::traits_of<L>::kind) &&
                                  (!detail::is_attention<L> || detail::supports_packed<A>);

  /// The layer with the active adapters; with the batch's own where Rows or Tokens come in.
  auto operator()(const auto& x) const {
    if constexpr (detail::is_attention<L>) return base_layer_.attend(projection(), x);
    else return detail::forward_site<As...>(door(), x);
  }
  /// An attention's other calls: its `attend` with the same arguments.
  auto operator()(const auto& x, const AttendOptions& options) const
    requires detail::is_attention<L>
  {
    return base_layer_.attend(projection(), x, options);
  }
  auto operator()(const auto& query, const auto& key, const auto& value) const
    requires detail::is_attention<L>
  {
    return base_layer_.attend(projection(), query, key, value);
  }
  /// At a stack of weights: every row by the matrix of its expert, one for all rows or a number for each.
  auto operator()(const auto& x, const ExpertIds& experts) const
    requires(!detail::is_attention<L>)
  {
    return detail::forward_site<As...>(door(experts), x);
  }
  /// The engine's door: plain x, the batch's selections; a matrix (a tensor at a convolution) comes out.
  auto operator()(const auto& x, const Batch& batch) const
    requires(!detail::is_attention<L>)
  {
    return door().forward_with(x, batch);
  }
  /// The same into y, a matrix of (batch.rows(), out); allocates nothing once warm. At a stack, experts in the place of y
  /// say so, and a matrix comes out.
  auto operator()(const auto& x, const Batch& batch, auto&& y) const
    requires(!detail::is_attention<L>)
  {
    if constexpr (std::convertible_to<decltype(y), ExpertIds>) return door(y).forward_with(x, batch);
    else door().forward_into(x, batch, y);
  }
  void operator()(const auto& x, const Batch& batch, const ExpertIds& experts, auto&& y) const { door(experts).forward_into(x, batch, y); }
  /// y holds the engine's own base product, bias included: adds the adapters. Where one acts before the product
  /// or replaces it, its rows are computed anew.
  void update(const Batch& batch, const auto& x_or_ids, auto&& y) const
    requires(!detail::is_attention<L>)
  {
    door().update(batch, x_or_ids, y);
  }
  void update(const Batch& batch, const auto& x, const ExpertIds& experts, auto&& y) const { door(experts).update(batch, x, y); }

  /// A parameter of an adapter: "lora_A", "lora_B", "lora_B.bias", "lora_E", "ia3_l", "lora_embedding_A", …
  /// @throws AdapterError for an adapter or a parameter that is not here.
  [[nodiscard]] ParameterView parameter(std::string_view adapter, std::string_view name) const {
    const SiteTable* table = site_table();
    const SiteEntry* entry = table ? table->find(adapter) : nullptr;
    if (!entry || !entry->state())
      fail<AdapterError>("no adapter '" + std::string(adapter) + "' at this site", "it was not injected here, or deleted",
                         "see the report of inject_adapter_in_model for the sites that matched");
    for (const AdapterParameter& parameter : entry->state()->parameters())
      if (name == parameter.name || name == std::string(parameter.name) + std::string(parameter.suffix))
        return ParameterView(*parameter.data);
    fail<AdapterError>("adapter '" + std::string(adapter) + "' has no parameter '" + std::string(name) + "'",
                       "its method does not have it", "LoRA has lora_A and lora_B, AdaLoRA also lora_E, IA3 ia3_l");
  }

 private:
  template <class T>
  friend struct SiteAccess;

  struct NoTable {};
  using Table = std::conditional_t<sizeof...(As) == 0, NoTable, std::unique_ptr<SiteTable>>;

  [[nodiscard]] Table copy_of_table() const {
    if constexpr (sizeof...(As) == 0) return {};
    else return table_ ? std::make_unique<SiteTable>(*table_) : nullptr;
  }
  [[nodiscard]] const SiteTable* site_table() const {
    if constexpr (sizeof...(As) == 0) return nullptr;
    else return table_.get();
  }
  [[nodiscard]] detail::SiteDoor<L> door() const { return {base_layer_, site_table()}; }
  [[nodiscard]] detail::SiteDoor<L> door(const ExpertIds& experts) const {
    static_assert(detail::traits_of<L>::kind == LayerKind::parameter, "graft: only a parameter may be a stack of experts' weights");
    return {base_layer_, site_table(), experts};
  }
  [[nodiscard]] auto projection() const {
    using P = typename detail::SiteLayer<L, As...>::adapted;
    return detail::SiteProjection<P, As...>{base_layer_, site_table()};
  }

  Held base_layer_;
  [[no_unique_address]] Table table_{};
};

/// The way to a site's table, for verbs.
template <class L, class... As>
struct SiteAccess<Adapted<L, As...>> {
  using Site = Adapted<L, As...>;
  static std::unique_ptr<SiteTable>& table(Site& site) { return site.table_; }
  static const SiteTable* table(const Site& site) { return site.table_.get(); }
};

/// A site that permits all three methods.
template <class L>
using Adaptable = Adapted<L, Lora, AdaLora, Ia3>;

template <class L, class... As>
inline constexpr bool enable_site<Adapted<L, As...>> = sizeof...(As) != 0 && detail::has_whole_layer_traits<L>;

template <class L, class... As>
inline constexpr bool has_inner_sites<Adapted<L, As...>> = sizeof...(As) != 0 && detail::is_attention<L>;

/// With an empty list it is exactly the layer, to the visitor too.
template <class L>
  requires detail::has_whole_layer_traits<L>
struct layer_traits<Adapted<L>> {
  using Layer = Adapted<L>;
  using scalar = typename detail::traits_of<L>::scalar;
  static constexpr LayerKind kind = detail::traits_of<L>::kind;
  static constexpr bool transposed = detail::is_transposed<L>;
  static Index in_features(const Layer& layer) { return detail::facts_of(layer.base_layer()).in; }
  static Index out_features(const Layer& layer) { return detail::facts_of(layer.base_layer()).out; }
  static Index features(const Layer& layer) { return in_features(layer); }
  static Index num_embeddings(const Layer& layer) { return in_features(layer); }
  static Index embedding_dim(const Layer& layer) { return out_features(layer); }
  static ConvShape conv_shape(const Layer& layer) { return detail::facts_of(layer.base_layer()).conv; }
  static Shape shape(const Layer& layer) { return detail::facts_of(layer.base_layer()).stack.stored; }
  static bool has_bias(const Layer& layer) { return detail::facts_of(layer.base_layer()).has_bias; }
  static decltype(auto) weight(auto& layer)
    requires detail::has_weight<L>
  {
    return detail::traits_of<L>::weight(layer.base_layer());
  }
  static decltype(auto) bias(auto& layer)
    requires detail::has_bias_access<L>
  {
    return detail::traits_of<L>::bias(layer.base_layer());
  }
};

GRAFT_SHARED_CLASS(detail::SiteForward<Linear<float>>)

}  // namespace graft
