#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <type_traits>

#include "../adapters/adapted.hpp"
#include "../adapters/site_vjp.hpp"
#include "record.hpp"

namespace graft {

namespace detail {
[[nodiscard]] inline DropoutStream dropout_of(const Tape& tape) { return {tape.options().dropout, tape.options().seed, tape.pass()}; }

/// The caller's numbers of experts need not outlive the forward.
template <class = OnDemand>
ExpertIds kept(const ExpertIds& experts, Tape& tape) {
  if (!experts.is_by_row()) return experts;
  const std::span<const std::int32_t> rows = experts.of_rows();
  std::int32_t* const copy = tape.take<std::int32_t>(Index(rows.size()));
  std::copy(rows.begin(), rows.end(), copy);
  return ExpertIds(std::span<const std::int32_t>(copy, rows.size()));
}

/// A site, and what came into it.
template <class L, class... As>
class SiteStep final : public RecordedStep {
  using T = layer_scalar<L>;

 public:
  SiteStep(const L& layer, const SiteTable* table, const SiteInput<T>& x, const Batch* batch, RecordedValue<T>* from, RecordedValue<T>& y,
           T* kept, const DropoutStream& dropout)
      : layer_(layer), table_(table), x_(x), batch_(batch), from_(from), y_(&y), kept_(kept), dropout_(dropout) {}

  void backward(Tape& tape) override {
    if (!y_->grad) return;
    with_view(batch_, x_.count(), tape, [&](const BatchView& view) {
      const Out<T> dx = from_ ? tape.grad_of(*from_) : out<T>(nullptr, 0, 0);
      SiteVjp<L, As...>(layer_, table_, view, dropout_).backward(x_, kept_, y_->grad_out(), dx, tape.gradients());
    });
    tape.release(*y_);
  }

 private:
  // rows of a packed projection are a layer only for the call
  std::conditional_t<is_projection_slice<L>, const L, const L&> layer_;
  const SiteTable* table_;
  SiteInput<T> x_;
  const Batch* batch_;
  RecordedValue<T>* from_;  // null: ids came in
  RecordedValue<T>* y_;
  T* kept_;  // results in the middle of the site's steps, where the way back reads them
  DropoutStream dropout_;
};

template <class... As, class L>
auto record_at_site(const SiteDoor<L>& door, const SiteInput<layer_scalar<L>>& x, const Batch* batch,
                    RecordedValue<layer_scalar<L>>* from, const Shape& row_of_result, Tape& tape) {
  using T = layer_scalar<L>;
  return with_view(batch, x.count(), tape, [&](const BatchView& view) {
    const DropoutStream dropout = dropout_of(tape);
    const SiteVjp<L, As...> site(door.layer, door.table, view, dropout);
    auto& y = tape.make_value<T>(batch, x.count(), row_of_result, (from && from->needs_grad) || site.trainable());
    const Index results = y.needs_grad ? site.kept_results() : 0;
    T* const kept = results ? tape.take<T>(results * y.in().size()) : nullptr;
    site.forward(x, y.out(), kept);
    if (y.needs_grad) tape.record<SiteStep<L, As...>>(door.layer, door.table, x, batch, from, y, kept, dropout);
    return Var<T>(y);
  });
}
}  // namespace detail

/// What a site makes of recorded activations.
template <class... As, class L, class T>
auto record_site(AdapterList<As...>, const detail::SiteDoor<L>& door, const Var<T>& x) {
  static_assert(detail::SiteDoor<L>::kind != LayerKind::embedding, "graft: an embedding takes token ids, not activations");
  static_assert(std::is_same_v<T, detail::layer_scalar<L>>,
                "graft: this site's activations have another scalar: double for a double weight, else float");
  const SiteInput<T> input{.rows = x.value(), .row_shape = x.row_shape(), .experts = detail::kept(door.experts, x.tape())};
  return detail::record_at_site<As...>(door, input, x.batch(), &x.node(), door.row_of_result(x.row_shape()), x.tape());
}
/// What an embedding's site makes of recorded ids.
template <class... As, class L>
auto record_site(AdapterList<As...>, const detail::SiteDoor<L>& door, const RecordedTokens& tokens) {
  static_assert(detail::SiteDoor<L>::kind == LayerKind::embedding, "graft: token ids go to an embedding; this site takes activations");
  const SiteInput<detail::layer_scalar<L>> input{.ids = tokens.ids()};
  return detail::record_at_site<As...>(door, input, tokens.batch(), nullptr, Shape{detail::facts_of(door.layer).out}, tokens.tape());
}
/// The same without room for adapters.
template <class L>
auto record_lookup(const L& embedding, const RecordedTokens& tokens) {
  return record_site(AdapterList<>{}, detail::SiteDoor<L>{embedding, nullptr}, tokens);
}

}  // namespace graft
