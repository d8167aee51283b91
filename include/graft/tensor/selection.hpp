#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../core/version.hpp"

namespace graft {

/// An adapter by name, with a strength.
struct NamedWeight {
  std::string name;
  double weight = 1;
};

/// An adapter by its number on one model. Numbers are never used again.
struct WeightedAdapter {
  unsigned id = 0;
  double weight = 1;
  friend bool operator==(const WeightedAdapter&, const WeightedAdapter&) = default;
};

/// Which adapters some rows want, names already resolved. Default: what `set_adapter` made active.
class AdapterSelection {
 public:
  AdapterSelection() = default;
  explicit AdapterSelection(std::vector<WeightedAdapter> adapters)
      : adapters_(std::move(adapters)), follows_active_(false) {}

  [[nodiscard]] bool follows_active() const { return follows_active_; }
  [[nodiscard]] std::span<const WeightedAdapter> list() const { return adapters_; }

 private:
  std::vector<WeightedAdapter> adapters_;
  bool follows_active_ = true;
};

/// The selection of rows that want the base model alone.
[[nodiscard]] inline AdapterSelection base_only() { return AdapterSelection(std::vector<WeightedAdapter>{}); }

}  // namespace graft
