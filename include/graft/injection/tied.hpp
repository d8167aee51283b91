#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "../core/keys.hpp"
#include "../core/sort.hpp"
#include "site.hpp"

namespace graft::detail {

/// Which tensors of a model lie on the same memory.
class TiedTensors {
 public:
  explicit TiedTensors(const ModelSites& model) {
    for (const BaseTensor& tensor : model.plain) add(tensor, tensor.key);
    for (const auto& site : model.sites)
      for (const BaseTensor& tensor : site->tensors()) add(tensor, join_path(site->path(), tensor.key));
    order_ = sorted_order(storages_.size(), [&](std::size_t i, std::size_t j) { return std::less<>()(storages_[i], storages_[j]); });
  }
  /// The names of all tensors there; more than one: they are tied.
  [[nodiscard]] std::vector<std::string> names(const void* storage) const {
    std::vector<std::string> all;
    for (std::size_t i = first(storage); i < order_.size() && storages_[order_[i]] == storage; ++i) all.push_back(names_[order_[i]]);
    return all;
  }
  /// Whether one of them owns the memory, or no parameter does: then it may be written.
  [[nodiscard]] bool is_owned(const void* storage) const {
    for (std::size_t i = first(storage); i < order_.size() && storages_[order_[i]] == storage; ++i)
      if (is_owned_[order_[i]]) return true;
    return false;
  }

 private:
  void add(const BaseTensor& tensor, const std::string& name) {
    if (!tensor.storage) return;
    storages_.push_back(tensor.storage);
    names_.push_back(name);
    is_owned_.push_back(!tensor.parameter || !tensor.parameter->is_borrowed());
  }
  /// The place in the order of the first one there, or of what comes after it.
  [[nodiscard]] std::size_t first(const void* storage) const {
    const auto place = std::lower_bound(order_.begin(), order_.end(), storage, [&](std::size_t one, const void* wanted) {
      return std::less<>()(storages_[one], wanted);
    });
    return std::size_t(place - order_.begin());
  }

  std::vector<const void*> storages_;
  std::vector<std::string> names_;
  std::vector<bool> is_owned_;
  std::vector<std::size_t> order_;  // of all these, by their memory
};

}  // namespace graft::detail
