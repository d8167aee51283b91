#pragma once

#include <algorithm>
#include <string>

#include "../modules/layer_call.hpp"
#include "site_table.hpp"

namespace graft::detail {

template <class L>
class ModuleCopy final : public AnyModuleCopy {
 public:
  explicit ModuleCopy(const L& original) : layer(original) {}
  [[nodiscard]] std::unique_ptr<AnyModuleCopy> clone() const override { return std::make_unique<ModuleCopy>(layer); }
  L layer;
};

/// The base product of any layer, from views into views.
template <class L, class T>
void call_base(const L& layer, const SiteInput<T>& x, Out<T> y, Workspace* workspace) {
  constexpr LayerKind kind = traits_of<L>::kind;
  if constexpr (kind == LayerKind::linear) call_linear<L, T>(layer, x.rows, y, workspace);
  else if constexpr (kind == LayerKind::embedding) call_embedding<L, T>(layer, x.ids, y, workspace);
  else call_conv<L, T>(layer, x.rows, x.row_shape, y, workspace);
}

/// A site's forward: four steps per segment (before, base, update, after), of which each adapter takes its own.
template <class L, class T = layer_scalar<L>>
class SiteForward {
 public:
  SiteForward(const L& layer, const SiteTable* table, const BatchView& batch) : layer_(layer), table_(table), batch_(batch) {
    if (!table_ || !table_->enabled) return;
    for (const Segment& segment : batch_.segments) inspect(segment);
  }

  /// y becomes the result for x.
  void run(const SiteInput<T>& x, Out<T> y) const {
    if (!any_selected_) return call_base<L, T>(layer_, x, y, batch_.workspace);
    const Scratch<T> memory(batch_.workspace, any_before_ ? x.rows.size() : 0);
    SiteInput<T> seen = x;
    if (any_before_) {
      Out<T> copy = out<T>(memory.data(), x.rows.rows(), x.rows.cols());
      copy = x.rows;
      for (const Segment& segment : batch_.segments) before(segment, copy);
      new (&seen.rows) In<T>(in<T>(copy));
    }
    // one product for all rows, so that base rows keep the bits that they have without adapters
    if (!(any_copy_ && batch_.segments.size() == 1)) call_base<L, T>(layer_, seen, y, batch_.workspace);
    for (const Segment& segment : batch_.segments) replace(segment, seen, y);
    finish(seen, y);
  }

  /// y holds the base product of x already: adds the adapters, anew where one acts before or replaces it.
  void update(const SiteInput<T>& x, Out<T> y) const {
    if (!any_selected_) return;
    const Scratch<T> memory(batch_.workspace, any_before_ ? x.rows.size() : 0);
    SiteInput<T> seen = x;
    if (any_before_) {
      Out<T> copy = out<T>(memory.data(), x.rows.rows(), x.rows.cols());
      copy = x.rows;
      for (const Segment& segment : batch_.segments)
        if (before(segment, copy))
          call_base<L, T>(layer_, part_of(x, copy, segment), rows_of(y, segment.begin, segment.rows), batch_.workspace);
      new (&seen.rows) In<T>(in<T>(copy));
    }
    for (const Segment& segment : batch_.segments) replace(segment, seen, y);
    finish(seen, y);
  }

 private:
  /// Calls f(entry, weight) for the adapters that a segment wants here, in their order.
  template <class F>
  void for_each_selected(const Segment& segment, F f) const {
    if (segment.active) {
      for (const unsigned id : table_->active) {
        const SiteEntry* entry = table_->find(id);
        f(*entry, entry->record->strength);
      }
      return;
    }
    for (const WeightedAdapter& wanted : batch_.adapters.subspan(segment.first, segment.count)) {
      const SiteEntry* entry = table_->find(wanted.id);
      if (!entry) continue;
      if (!entry->record) adapter_was_deleted(wanted.id, table_->path);
      f(*entry, wanted.weight * entry->record->strength);
    }
  }

  static const AdapterState<T>& state_of(const SiteEntry& entry) { return static_cast<const AdapterState<T>&>(*entry.state); }

  void inspect(const Segment& segment) {
    int copies = 0;
    for_each_selected(segment, [&](const SiteEntry& entry, double) {
      any_selected_ = true;
      copies += entry.copy != nullptr;
      if (entry.bias && entry.bias->is_meta()) adapter_is_meta(*entry.record, table_->path);
      if (!entry.state) return;
      if (entry.state->is_meta()) adapter_is_meta(*entry.record, table_->path);
      any_before_ |= state_of(entry).acts_before();
    });
    any_copy_ |= copies > 0;
    if (copies > 1)
      fail<AdapterError>("two adapters want their own copy of '" + table_->path + "' for the same rows",
                         "modules_to_save replaces a module, and it can be replaced only once",
                         "select adapters whose modules_to_save do not overlap");
  }

  bool before(const Segment& segment, const Out<T>& copy) const {
    bool has_acted = false;
    for_each_selected(segment, [&](const SiteEntry& entry, double weight) {
      if (!entry.state || !state_of(entry).acts_before()) return;
      state_of(entry).before(rows_of(copy, segment.begin, segment.rows), weight);
      has_acted = true;
    });
    return has_acted;
  }

  void replace(const Segment& segment, const SiteInput<T>& x, Out<T> y) const {
    for_each_selected(segment, [&](const SiteEntry& entry, double) {
      Out<T> rows = rows_of(y, segment.begin, segment.rows);
      if (entry.copy)
        call_base<L, T>(static_cast<const ModuleCopy<L>&>(*entry.copy).layer, x.part(segment.begin, segment.rows), rows,
                        batch_.workspace);
      if (entry.bias) exchange_bias(rows, *entry.bias);
    });
  }

  // The product keeps its bits and its bias; the difference is added.
  void exchange_bias(Out<T> rows, const ParameterData& trained) const {
    with_bias(layer_, [&](const auto& bias) {
      const Index channels = Index(bias.size()), positions = rows.cols() / channels;
      for (Index i = 0; i < rows.rows(); ++i)
        for (Index c = 0; c < channels; ++c) {
          const T difference =
              element_as<T>(trained.dtype(), trained.data(), std::size_t(c)) - T(float_or_double(bias.coeff(c)));
          for (Index p = 0; p < positions; ++p) rows(i, c * positions + p) += difference;
        }
    });
  }
  template <class S>
  static auto float_or_double(S value) {
    if constexpr (std::is_floating_point_v<S>) return value;
    else return float(value);
  }

  void finish(const SiteInput<T>& x, Out<T> y) const {
    for (const Segment& segment : batch_.segments) {
      Out<T> rows = rows_of(y, segment.begin, segment.rows);
      for_each_selected(segment, [&](const SiteEntry& entry, double weight) {
        if (entry.state) state_of(entry).update(x.part(segment.begin, segment.rows), rows, weight, batch_.workspace);
      });
      for_each_selected(segment, [&](const SiteEntry& entry, double weight) {
        if (entry.state) state_of(entry).after(rows, weight);
      });
    }
  }

  static SiteInput<T> part_of(const SiteInput<T>& x, const Out<T>& copy, const Segment& segment) {
    SiteInput<T> part = x;
    new (&part.rows) In<T>(in<T>(rows_of(copy, segment.begin, segment.rows)));
    return part;
  }

  const L& layer_;
  const SiteTable* table_;
  const BatchView& batch_;
  bool any_selected_ = false, any_before_ = false, any_copy_ = false;
};

}  // namespace graft::detail
