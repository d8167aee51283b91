#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
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
    sort_stably(tensors_, [](const Tensor& a, const Tensor& b) { return std::less<>()(a.storage, b.storage); });
  }
  /// The names of all tensors there; more than one: they are tied.
  [[nodiscard]] std::vector<std::string> names(const void* storage) const {
    std::vector<std::string> all;
    for (std::size_t i = first(storage); i < tensors_.size() && tensors_[i].storage == storage; ++i) all.push_back(tensors_[i].name);
    return all;
  }
  /// Whether one of them owns the memory, or no parameter does: then it may be written.
  [[nodiscard]] bool is_owned(const void* storage) const {
    for (std::size_t i = first(storage); i < tensors_.size() && tensors_[i].storage == storage; ++i)
      if (tensors_[i].is_owned) return true;
    return false;
  }

 private:
  struct Tensor {
    const void* storage;
    std::string name;
    bool is_owned;
  };
  void add(const BaseTensor& tensor, std::string name) {
    if (tensor.storage) tensors_.push_back({tensor.storage, std::move(name), !tensor.parameter || !tensor.parameter->is_borrowed()});
  }
  /// The place of the first one there, or of what comes after it.
  [[nodiscard]] std::size_t first(const void* storage) const {
    const auto place = std::lower_bound(tensors_.begin(), tensors_.end(), storage, [](const Tensor& one, const void* wanted) {
      return std::less<>()(one.storage, wanted);
    });
    return std::size_t(place - tensors_.begin());
  }

  std::vector<Tensor> tensors_;  // by their memory
};

}  // namespace graft::detail
