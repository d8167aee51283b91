#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "served_adapters.hpp"

namespace graft {

/// Many adapters over one model. Requests carry a selection that the registry made, so they keep the weights that they
/// started with, whatever becomes of the adapter meanwhile: `replace`, `remove` and eviction need not wait for them.
///
/// Every call may come from any thread, beside forwards of the model. Adapters of a registry are not injected: they
/// cost the model's own forward nothing, however many they are. An adapter is read and checked whole when it is added,
/// and gets memory when it is first selected; where the byte budget is exceeded, the least recently used lose it again
/// and are read anew from their mapped file, or from the buffer, which is kept.
///
/// The model must outlive the registry and its selections, and stay where it is; a verb on it (`unload` most of all, as
/// it takes the sites' tables away) must not run beside them. A copy of the model does not know the registry.
template <class M>
class Registry {
 public:
  /// Gives every site of the model a table, so no other thread may use it yet.
  explicit Registry(M& model, const ServeLimits& limits = {}) : served_(sites_of(model), limits) {}
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  /// Adds the adapter of a PEFT directory, whose weights stay mapped: replacing the file by a rename is safe,
  /// truncating it in place is fatal. @throws ServeError, and what reading and injecting it would: `serve_code_of`.
  ServedAdapter add(const std::string& name, const std::filesystem::path& dir) {
    return served_.add(name, detail::AdapterSource::of(dir));
  }
  ServedAdapter add(const std::string& name, const AdapterBuffer& buffer) {
    return served_.add(name, detail::AdapterSource::of(buffer));
  }

  /// Exchanges an adapter for another of the same name, of any method, if it is still of that generation. What was in
  /// memory is in memory again. @throws ServeError generation_conflict otherwise, and what `add` throws; then nothing
  /// has changed.
  ServedAdapter replace(const std::string& name, std::uint64_t expected_generation, const std::filesystem::path& dir) {
    return served_.replace(name, expected_generation, detail::AdapterSource::of(dir));
  }
  ServedAdapter replace(const std::string& name, std::uint64_t expected_generation, const AdapterBuffer& buffer) {
    return served_.replace(name, expected_generation, detail::AdapterSource::of(buffer));
  }

  /// Takes an adapter out; requests in flight go on with it. @throws ServeError unknown_adapter, generation_conflict
  void remove(std::string_view name, std::optional<std::uint64_t> expected_generation = {}) {
    served_.remove(name, expected_generation);
  }

  /// What a request carries: these adapters as they are now, read into memory if they were not.
  /// @throws ServeError unknown_adapter
  [[nodiscard]] AdapterSelection select(const std::vector<NamedWeight>& adapters) { return served_.select(adapters); }
  template <std::convertible_to<std::string_view> Name>
  [[nodiscard]] AdapterSelection select(const Name& name) {
    return served_.select({{std::string(std::string_view(name))}});
  }

  /// Gives the memory of an adapter back, as the budget would: whether it had any. Selections keep theirs.
  bool evict(std::string_view name) { return served_.evict(name); }
  /// Drops the least recently used adapters until the rest fits.
  void set_byte_budget(std::size_t bytes) { served_.set_byte_budget(bytes); }

  [[nodiscard]] std::optional<ServedAdapter> look_up(std::string_view name) const { return served_.look_up(name); }
  /// All of them, by name.
  [[nodiscard]] std::vector<ServedAdapter> list() const { return served_.list(); }
  [[nodiscard]] ServeMetrics metrics() const { return served_.metrics(); }

 private:
  detail::ServedAdapters served_;
};

}  // namespace graft
