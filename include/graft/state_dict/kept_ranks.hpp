#pragma once

#include <algorithm>
#include <cstring>
#include <utility>
#include <variant>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/keys.hpp"
#include "../core/on_demand.hpp"
#include "../tensor/zeroed.hpp"
#include "slots.hpp"

namespace graft::detail {

/// Whether each of a site's ranks was kept by the adapter's rank_pattern; null where it says nothing of the site.
template <class = OnDemand>
[[nodiscard]] const std::vector<bool>* rank_pattern_at(const AdapterRecord& record, std::string_view path) {
  if (const auto* config = std::get_if<AdaLoraConfig>(&record.config()))
    for (const auto& [key, kept] : config->rank_pattern)
      if (rank_pattern_path(key, record.name()) == path) return &kept;
  return nullptr;
}

/// A copy of the kept rows of a matrix, or of its kept columns.
template <class = OnDemand>
[[nodiscard]] TensorView kept_part(const ParameterData& matrix, const std::vector<bool>& kept, bool of_columns) {
  const Index count = Index(std::count(kept.begin(), kept.end(), true)), rows = matrix.shape().rows(), cols = matrix.shape().cols();
  const Shape shape{of_columns ? rows : count, of_columns ? count : cols};
  const std::size_t size = size_of(matrix.dtype());
  const std::shared_ptr<std::byte> bytes = zeroed(std::size_t(shape.size()) * size);
  std::byte* next = bytes.get();
  for (Index row = 0; row < rows; ++row)
    for (Index col = 0; col < cols; ++col)
      if (kept[std::size_t(of_columns ? col : row)]) {
        std::memcpy(next, matrix.data() + std::size_t(row * cols + col) * size, size);
        next += size;
      }
  return {matrix.dtype(), shape.to_vector(), bytes.get(), bytes};
}

/// An AdaLoRA adapter's tensors as its file has them: without the ranks that training gave up. Until then these are masked:
/// they stand in the matrices, and their E is 0.
template <class = OnDemand>
class KeptRanks {
 public:
  KeptRanks(const ModelSites& model, const AdapterRecord& record) {
    for (const auto& site : model.sites) {
      const SiteTable* table = site->table();
      const SiteEntry* entry = table ? table->find(record.id) : nullptr;
      const std::vector<bool>* kept = entry && entry->state() ? rank_pattern_at(record, site->path()) : nullptr;
      // of an adapter that was loaded so the matrices hold no more than the kept ranks
      if (!kept || Index(kept->size()) != entry->state()->rank() || std::count(kept->begin(), kept->end(), false) == 0) continue;
      for (const AdapterParameter& parameter : entry->state()->parameters())
        if (parameter.is_saved && parameter.data->data()) pruned_.push_back({parameter.data, kept, parameter.name == "lora_B"});
    }
  }
  [[nodiscard]] TensorView read(const AdapterSlot& slot) const {
    for (const One& one : pruned_)
      if (one.data == slot.parameter) return kept_part(*one.data, *one.kept, one.of_columns);
    return slot.read();
  }

 private:
  struct One {
    const ParameterData* data;
    const std::vector<bool>* kept;
    bool of_columns;
  };
  std::vector<One> pruned_;
};

}  // namespace graft::detail
