#pragma once

#include <memory>
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

class AdapterGeneration;

/// The number of all adapters that are on no model: a registry's. Their generation alone says what they are.
inline constexpr unsigned unnumbered_adapter = unsigned(-1);

/// An adapter by its number on one model, and the generation of its weights that was current when it was selected;
/// without one, whatever is current when it is used. Numbers are never used again.
struct WeightedAdapter {
  unsigned id = 0;
  double weight = 1;
  const AdapterGeneration* generation = nullptr;
  friend bool operator==(const WeightedAdapter&, const WeightedAdapter&) = default;
};

/// Which adapters some rows want, names already resolved. Default: what `set_adapter` made active.
/// It keeps the weights that it names alive, whatever becomes of the adapters meanwhile.
class AdapterSelection {
 public:
  AdapterSelection() = default;
  /// `pins` owns the generations.
  explicit AdapterSelection(std::vector<WeightedAdapter> adapters, std::shared_ptr<const void> pins = nullptr)
      : adapters_(std::move(adapters)), pins_(std::move(pins)), follows_active_(false) {}

  [[nodiscard]] bool follows_active() const { return follows_active_; }
  [[nodiscard]] std::span<const WeightedAdapter> list() const { return adapters_; }
  [[nodiscard]] const std::shared_ptr<const void>& pins() const { return pins_; }

 private:
  std::vector<WeightedAdapter> adapters_;
  std::shared_ptr<const void> pins_;
  bool follows_active_ = true;
};

/// The selection of rows that want the base model alone.
[[nodiscard]] inline AdapterSelection base_only() { return AdapterSelection(std::vector<WeightedAdapter>{}); }

}  // namespace graft
