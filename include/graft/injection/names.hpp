#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace graft {

namespace detail {
/// What PEFT calls having no adapter, among the names for the rows of a batch.
inline constexpr std::string_view base_name = "__base__";
}  // namespace detail

/// One name, a list or a vector of names; `{}` means whatever the verb says of it.
class Names {
 public:
  Names() = default;
  Names(const char* name) : names_{name}, is_given_(true) {}
  Names(std::string_view name) : names_{std::string(name)}, is_given_(true) {}
  Names(std::string name) : names_{std::move(name)}, is_given_(true) {}
  Names(std::initializer_list<std::string> names) : names_(names), is_given_(true) {}
  Names(std::vector<std::string> names) : names_(std::move(names)), is_given_(true) {}

  /// False for `{}` only: an empty vector was given, and is none.
  [[nodiscard]] bool is_given() const { return is_given_; }
  [[nodiscard]] const std::vector<std::string>& list() const { return names_; }

 private:
  std::vector<std::string> names_;
  bool is_given_ = false;
};

}  // namespace graft
