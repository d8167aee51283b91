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

/// Of a matrix of an adapter the rows, or columns, that belong to ranks that were kept.
struct KeptPart {
  const ParameterData* matrix;
  const std::vector<bool>* kept;  ///< of each rank
  bool of_columns;

  [[nodiscard]] Index count() const { return Index(std::count(kept->begin(), kept->end(), true)); }
  [[nodiscard]] Shape shape() const {
    return {of_columns ? matrix->shape().rows() : count(), of_columns ? count() : matrix->shape().cols()};
  }
};

/// A copy of it.
template <class = OnDemand>
[[nodiscard]] TensorView read_kept(const KeptPart& part) {
  const ParameterData& matrix = *part.matrix;
  const Index rows = matrix.shape().rows(), cols = matrix.shape().cols();
  const Shape shape = part.shape();
  const std::size_t size = size_of(matrix.dtype());
  const std::shared_ptr<std::byte> bytes = zeroed(std::size_t(shape.size()) * size);
  std::byte* next = bytes.get();
  for (Index row = 0; row < rows; ++row)
    for (Index col = 0; col < cols; ++col)
      if ((*part.kept)[std::size_t(part.of_columns ? col : row)]) {
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
  /// Null for a matrix of which everything is kept.
  [[nodiscard]] const KeptPart* find(const ParameterData* matrix) const {
    for (const KeptPart& part : pruned_)
      if (part.matrix == matrix) return &part;
    return nullptr;
  }
  [[nodiscard]] bool is_everything() const { return pruned_.empty(); }
  [[nodiscard]] TensorView read(const AdapterSlot& slot) const {
    const KeptPart* part = find(slot.parameter);
    return part ? read_kept(*part) : slot.read();
  }

 private:
  std::vector<KeptPart> pruned_;
};

}  // namespace graft::detail
