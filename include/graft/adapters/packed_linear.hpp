#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "../core/fixed_string.hpp"
#include "../modules/linear.hpp"
#include "../modules/linear_slice.hpp"
#include "../modules/ops.hpp"
#include "adapted.hpp"

namespace graft {

namespace ops {
/// The product of a packed layer, and its sites' adapters.
template <class P>
struct PackedProduct {
  const P& layer;

  [[nodiscard]] Index cols(const auto& x) const {
    using traits = detail::traits_of<typename P::layer_type>;
    return Linear<typename traits::scalar>{nullptr, traits::out_features(layer.base_layer()), traits::in_features(layer.base_layer())}.cols(x);
  }
  template <class T>
  void forward(const BatchView& batch, Out<T> y, std::span<const In<T>> x) const {
    layer.run(batch, x[0], y);
  }
};
}  // namespace ops

namespace detail {
/// The site of one slice. A base by its name: a member that a description can point to.
template <class L, fixed_string Name>
struct SliceSite {
  Adaptable<slices::Linear<L>> site;
};
}  // namespace detail

/// Several linear layers over one input that are computed by one matrix, each of them a site under its own name: queries,
/// keys and values; gate and up. Models whose Python twins have separate layers load, adapt, merge and save as those do,
/// with the twins' paths and files, while the product stays one. `L` is the layer that holds the matrix (out, in), the
/// caller's own or a `Linear`; the first slice has its first rows.
///
/// It is a module: a base class puts the slices beside the derived class's other members (GRAFT_MODULE_FROM), a member puts
/// them below its own name.
template <class L, fixed_string... Names>
class PackedLinear : public detail::SliceSite<L, Names>... {
  static_assert(detail::has_layer_traits<L>,
                "graft: no graft::layer_traits for this layer: specialise it with kind, scalar, in_features and out_features");
  static_assert(detail::traits_of<L>::kind == LayerKind::linear, "graft: only a linear layer has slices");
  static_assert(sizeof...(Names) > 0, "graft: a packed layer has a name for each of its slices: PackedLinear<L, \"q_proj\", …>");
  static constexpr std::size_t count = sizeof...(Names);
  static constexpr std::make_index_sequence<count> all_slices{};
  using Sizes = std::array<Index, count>;
  using T = detail::layer_scalar<L>;

 public:
  using layer_type = L;

  /// `layer` with the number of its outputs that belong to each name, in their order.
  /// @throws ShapeError unless these are all of the layer's outputs.
  PackedLinear(L layer, const Sizes& outputs)
      : PackedLinear(std::make_unique<L>(std::move(layer)), outputs, all_slices) {}
  PackedLinear(const PackedLinear& other)
    requires std::copy_constructible<L>
      : PackedLinear(std::make_unique<L>(*other.layer_), other.outputs(), all_slices) {
    (copy_table<Names>(other), ...);
  }
  PackedLinear(PackedLinear&&) noexcept = default;
  PackedLinear& operator=(const PackedLinear& other)
    requires std::copy_constructible<L>
  {
    if (this != &other) *this = PackedLinear(other);
    return *this;
  }
  PackedLinear& operator=(PackedLinear&& other) noexcept {
    (take_slice<Names>(other), ...);
    layer_ = std::move(other.layer_);
    return *this;
  }
  ~PackedLinear() = default;

  /// The layer that holds the matrix.
  [[nodiscard]] L& base_layer() { return *layer_; }
  [[nodiscard]] const L& base_layer() const { return *layer_; }
  /// The site of a slice: site<"q_proj">(). By itself it is a linear layer with its adapters.
  template <fixed_string Name>
  [[nodiscard]] auto& site() {
    return slice<Name>(*this).site;
  }
  template <fixed_string Name>
  [[nodiscard]] const auto& site() const {
    return slice<Name>(*this).site;
  }
  /// The columns of a result (n, out) that belong to a slice, (n, its outputs).
  template <fixed_string Name>
  [[nodiscard]] auto part(const auto& y) const {
    const auto& rows = slice<Name>(*this).site.base_layer();
    return graft::slice(y, rows.begin(), rows.count());
  }

  /// x (n, in), N-d with features last, or Rows → (n, out): one product, and every slice's adapters on its columns.
  /// Recorded values go through one slice after the other, each of which has its gradients.
  auto operator()(const auto& x) const {
    if constexpr (Recorded<decltype(x)>) return one_by_one<Names...>(x);
    else return detail::custom_linear(ops::PackedProduct<PackedLinear>{*this}, x);
  }
  /// The engine's door: plain x, the batch's selections.
  auto operator()(const auto& x, const Batch& batch) const {
    auto y = detail::SiteDoor<L>{*layer_, nullptr}.forward_with(x, batch);
    update(batch, x, y);
    return y;
  }
  /// The same into y, a matrix of (batch.rows(), out).
  void operator()(const auto& x, const Batch& batch, auto&& y) const {
    detail::SiteDoor<L>{*layer_, nullptr}.forward_into(x, batch, y);
    update(batch, x, y);
  }
  /// y holds the engine's own product, bias included: adds every slice's adapters to its columns.
  void update(const Batch& batch, const auto& x, auto&& y) const {
    using Y = std::remove_cvref_t<decltype(y)>;
    if constexpr (TensorLike<Y> && !MatrixLike<Y>) {
      const Shape shape = tensor_traits<Y>::shape(y);
      Out<T> rows = out<T>(tensor_traits<Y>::data(y), shape.back() ? shape.size() / shape.back() : batch.rows(), shape.back());
      update(batch, x, rows);
    } else {
      const Index want = detail::traits_of<L>::out_features(*layer_);
      if (y.cols() != want)
        fail<ShapeError>("a result of " + std::to_string(y.cols()) + " columns for a packed layer of " + std::to_string(want),
                         "the slices' adapters are added to their columns of it", "pass the product of the whole layer");
      const auto add = [&](const auto& site) {
        const auto& rows = site.base_layer();
        site.update(batch, x, y.middleCols(rows.begin(), rows.count()));
      };
      (add(site<Names>()), ...);
    }
  }

 private:
  friend struct ops::PackedProduct<PackedLinear>;
  template <fixed_string Name>
  static constexpr bool is_slice = (... || (Name.view() == Names.view()));

  static Index begin_of(const Sizes& outputs, std::size_t slice) {
    Index begin = 0;
    for (std::size_t i = 0; i < slice; ++i) begin += outputs[i];
    return begin;
  }
  template <std::size_t... I>
  PackedLinear(std::unique_ptr<L> layer, const Sizes& outputs, std::index_sequence<I...>)
      : detail::SliceSite<L, Names>{slices::Linear<L>(*layer, begin_of(outputs, I), outputs[I])}..., layer_(std::move(layer)) {
    const Index has = detail::traits_of<L>::out_features(*layer_);
    bool fits = begin_of(outputs, count) == has;
    for (const Index one : outputs) fits = fits && one >= 0;
    if (!fits)
      fail<ShapeError>("slices of " + to_string(Shape{outputs[I]...}) + " outputs for a layer of " + std::to_string(has),
                       "every output of a packed layer belongs to one of its slices, in their order",
                       "state the numbers of outputs, whose sum is the layer's");
  }

  template <fixed_string Name, class Self>
  static auto& slice(Self& self) {
    static_assert(is_slice<Name>, "graft: this packed layer has no slice of that name");
    // another one, so that this is the only error
    using First = std::tuple_element_t<0, std::tuple<detail::SliceSite<L, Names>...>>;
    using Slice = std::conditional_t<is_slice<Name>, detail::SliceSite<L, Name>, First>;
    return static_cast<std::conditional_t<std::is_const_v<Self>, const Slice, Slice>&>(self);
  }
  using Access = SiteAccess<Adaptable<slices::Linear<L>>>;
  template <fixed_string Name>
  void copy_table(const PackedLinear& other) {
    if (const SiteTable* table = Access::table(other.template site<Name>()))
      Access::table(site<Name>()) = std::make_unique<SiteTable>(*table);
  }
  template <fixed_string Name>
  void take_slice(PackedLinear& other) {
    const auto& from = other.template site<Name>().base_layer();
    site<Name>().base_layer().refer_to(*other.layer_, from.begin(), from.count());
    Access::table(site<Name>()) = std::move(Access::table(other.template site<Name>()));
  }
  template <fixed_string First, fixed_string... Rest>
  auto one_by_one(const auto& x) const {
    if constexpr (sizeof...(Rest) == 0) return site<First>()(x);
    else return concat(site<First>()(x), one_by_one<Rest...>(x));
  }
  [[nodiscard]] Sizes outputs() const { return {site<Names>().base_layer().count()...}; }

  void run(const BatchView& batch, const In<T>& x, Out<T> y) const {
    detail::call_linear<L, T>(*layer_, x, y, batch.workspace);
    const auto add = [&](const auto& site) {
      const slices::Linear<L>& rows = site.base_layer();
      const SiteTable* table = Access::table(site);
      if (!table) return;
      const SiteInput<T> input{.rows = x};
      detail::SiteForward<slices::Linear<L>>(rows, {table, batch}, batch)
          .update(input, out<T>(y.data() + rows.begin(), y.rows(), rows.count(), y.outerStride()));
    };
    (add(site<Names>()), ...);
  }

  std::unique_ptr<L> layer_;  // where it is while slices refer to it
};

template <class L, fixed_string... Names>
struct describe<PackedLinear<L, Names...>> {
  template <class V>
  static constexpr void members(V& v) {
    [[maybe_unused]] const int in_order[] = {(v(Names.view(), &detail::SliceSite<L, Names>::site), 0)...};
  }
};

}  // namespace graft
