#pragma once

#include <map>
#include <string>
#include <vector>

#include "../core/keys.hpp"
#include "site.hpp"

namespace graft::detail {

/// Which tensors of a model lie on the same memory.
class TiedTensors {
 public:
  explicit TiedTensors(const ModelSites& model) {
    for (const BaseTensor& tensor : model.plain) add(tensor, tensor.key);
    for (const auto& site : model.sites)
      for (const BaseTensor& tensor : site->tensors()) add(tensor, join_path(site->path(), tensor.key));
  }
  /// The names of all tensors there; more than one: they are tied.
  [[nodiscard]] std::vector<std::string> names(const void* storage) const {
    const auto place = storage ? tensors_.find(storage) : tensors_.end();
    return place == tensors_.end() ? std::vector<std::string>{} : place->second.names;
  }
  /// Whether one of them owns the memory, or no parameter does: then it may be written.
  [[nodiscard]] bool is_owned(const void* storage) const {
    const auto place = tensors_.find(storage);
    return place != tensors_.end() && place->second.is_owned;
  }

 private:
  struct Group {
    std::vector<std::string> names;
    bool is_owned = false;
  };
  void add(const BaseTensor& tensor, const std::string& name) {
    if (!tensor.storage) return;
    Group& group = tensors_[tensor.storage];
    group.names.push_back(name);
    group.is_owned = group.is_owned || !tensor.parameter || !tensor.parameter->is_borrowed();
  }
  std::map<const void*, Group> tensors_;
};

}  // namespace graft::detail
