#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "../core/dtype.hpp"
#include "../core/error.hpp"
#include "../core/on_demand.hpp"
#include "shape.hpp"

namespace graft {

/// A tensor's bytes seen from outside: row-major, of any dtype, at any address.
struct TensorView {
  Dtype dtype = Dtype::f32;
  std::vector<Index> shape{};
  const std::byte* data = nullptr;        ///< null: on the meta device
  std::shared_ptr<const void> owner{};    ///< keeps the bytes alive; null: somebody else does

  [[nodiscard]] Index size() const {
    Index product = 1;
    for (Index dimension : shape) product *= dimension;
    return product;
  }
  [[nodiscard]] std::size_t bytes() const { return std::size_t(size()) * size_of(dtype); }
  [[nodiscard]] Device device() const { return data || size() == 0 ? Device::cpu : Device::meta; }
};

/// Tensors by key, in the order of insertion. Copies are shallow: `clone()` owns its bytes.
class StateDict {
 public:
  using value_type = std::pair<std::string, TensorView>;
  using const_iterator = std::vector<value_type>::const_iterator;

  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  [[nodiscard]] bool empty() const { return entries_.empty(); }
  [[nodiscard]] bool contains(std::string_view key) const { return find(key) != nullptr; }
  [[nodiscard]] const TensorView* find(std::string_view key) const {
    const auto place = places_.find(std::string(key));
    return place == places_.end() ? nullptr : &entries_[place->second].second;
  }
  /// @throws StateDictError for a key that is not there.
  [[nodiscard]] const TensorView& at(std::string_view key) const {
    const TensorView* view = find(key);
    if (!view)
      fail<StateDictError>("no tensor is called '" + std::string(key) + "'",
                           "the state dict has " + std::to_string(size()) + " other keys", "see keys()");
    return *view;
  }
  template <class = OnDemand>
  [[nodiscard]] std::vector<std::string> keys() const {
    std::vector<std::string> all;
    all.reserve(size());
    for (const auto& [key, view] : entries_) all.push_back(key);
    return all;
  }
  [[nodiscard]] const_iterator begin() const { return entries_.begin(); }
  [[nodiscard]] const_iterator end() const { return entries_.end(); }

  /// Adds a tensor at the end, or replaces the one of that key in its place.
  void insert(std::string key, TensorView view) {
    const auto [place, is_new] = places_.try_emplace(key, entries_.size());
    if (is_new) entries_.emplace_back(std::move(key), std::move(view));
    else entries_[place->second].second = std::move(view);
  }
  void insert(value_type entry) { insert(std::move(entry.first), std::move(entry.second)); }
  /// Removes a key; whether it was there.
  template <class = OnDemand>
  bool erase(std::string_view key) {
    const auto place = places_.find(std::string(key));
    if (place == places_.end()) return false;
    const std::size_t at = place->second;
    entries_.erase(entries_.begin() + std::ptrdiff_t(at));
    places_.erase(place);
    for (auto& [other, position] : places_) position -= position > at;
    return true;
  }
  /// The same tensors with bytes of their own, in one block. Meta tensors stay meta.
  template <class = OnDemand>
  [[nodiscard]] StateDict clone() const {
    constexpr std::size_t alignment = 64;
    const auto padded = [](std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; };
    std::size_t total = 0;
    for (const auto& [key, view] : entries_) total += view.data ? padded(view.bytes()) : 0;
    const std::shared_ptr<std::byte[]> block(new std::byte[total + alignment]);
    std::byte* next = block.get();
    StateDict copy;
    for (const auto& [key, view] : entries_) {
      TensorView own = view;
      own.owner = view.data ? std::shared_ptr<const void>(block) : nullptr;
      if (view.data) {
        own.data = next;
        if (view.bytes()) std::memcpy(next, view.data, view.bytes());
        next += padded(view.bytes());
      }
      copy.insert(key, std::move(own));
    }
    return copy;
  }

 private:
  std::vector<value_type> entries_;
  std::unordered_map<std::string, std::size_t> places_;
};

}  // namespace graft
