#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "generation.hpp"

namespace graft {

/// The adapters of one model, which the tables of its sites share: a verb finds one however many there are, and
/// looks at no more of them than it changes.
class AdapterDirectory {
 public:
  /// By ascending id.
  [[nodiscard]] const std::vector<std::shared_ptr<AdapterRecord>>& records() const { return records_; }
  [[nodiscard]] std::shared_ptr<AdapterRecord> find(unsigned id) const {
    const auto place = at(id);
    return place == records_.end() || (*place)->id != id ? nullptr : *place;
  }
  [[nodiscard]] std::shared_ptr<AdapterRecord> find(std::string_view name) const {
    const auto known = names_.find(std::string(name));
    if (known != names_.end())
      if (std::shared_ptr<AdapterRecord> record = find(unsigned(known->second)); record && record->name() == name) return record;
    for (const auto& record : records_)  // renamed since
      if (record->name() == name) return record;
    return nullptr;
  }
  void add(const std::shared_ptr<AdapterRecord>& record) {
    records_.insert(at(record->id), record);
    names_.try_emplace(record->name()).first->second = record->id;
    plain_biases_ += !record->plain_biases.empty();
  }
  void remove(unsigned id) {
    const auto place = at(id);
    if (place == records_.end() || (*place)->id != id) return;
    std::erase_if(names_, [&](const auto& named) { return named.second == id; });
    plain_biases_ -= !(*place)->plain_biases.empty();
    records_.erase(place);
    set_wants_gradients(id, false);
  }

  /// Whether an adapter has biases of layers without room.
  [[nodiscard]] bool has_plain_biases() const { return plain_biases_ != 0; }
  /// The adapters with parameters that may want gradients.
  [[nodiscard]] const std::vector<unsigned>& wanting_gradients() const { return wanting_; }
  void set_wants_gradients(unsigned id, bool wants) {
    const auto place = std::find(wanting_.begin(), wanting_.end(), id);
    if (wants && place == wanting_.end()) wanting_.push_back(id);
    if (!wants && place != wanting_.end()) wanting_.erase(place);
  }

  std::size_t tables = 0;  ///< that share it: with fewer or more in the model, it is not the model's

 private:
  [[nodiscard]] std::vector<std::shared_ptr<AdapterRecord>>::const_iterator at(unsigned id) const {
    return std::lower_bound(records_.begin(), records_.end(), id, [](const auto& record, unsigned wanted) { return record->id < wanted; });
  }

  std::vector<std::shared_ptr<AdapterRecord>> records_;
  std::unordered_map<std::string, std::size_t> names_;  // their ids
  std::vector<unsigned> wanting_;
  std::size_t plain_biases_ = 0;
};

}  // namespace graft
