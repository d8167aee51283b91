#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "../core/text.hpp"
#include "config_types.hpp"

namespace graft {

namespace detail {
/// Makes a full-match regex; null until graft/regex.hpp is part of the program.
using MakeRegex = Regex (*)(std::string pattern);
inline constinit MakeRegex make_regex = nullptr;
}  // namespace detail

/// Whether a pattern is made of letters, digits, `_` and `.` alone, and so needs no regex.
[[nodiscard]] inline bool is_plain_pattern(std::string_view pattern) {
  return std::all_of(pattern.begin(), pattern.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
  });
}

namespace detail {
/// @throws ConfigError for a pattern that needs graft/regex.hpp where that is not included, or that it
/// refuses.
[[nodiscard]] inline std::optional<Regex> compile_unless_plain(const std::string& pattern,
                                                               const char* before) {
  if (is_plain_pattern(pattern)) return std::nullopt;
  if (!make_regex)
    fail<ConfigError>("the pattern '" + pattern + "' needs regular expressions",
                      "it has characters other than letters, digits, '_' and '.'",
                      "include graft/regex.hpp (or graft/io.hpp), or write the module's name in full");
  (void)make_regex(pattern);  // "q)|(k" would be one only inside of the brackets
  return make_regex(before + ("(?:" + pattern + ")"));
}
}  // namespace detail

/// A key of `rank_pattern` or `alpha_pattern`: it matches whole components at the end of a module path. In a
/// plain pattern a dot is a dot; any other is a regular expression, which PEFT anchors as
/// `(.*\.)?(pattern)$`.
class ModulePattern {
 public:
  /// @throws ConfigError for a pattern that needs graft/regex.hpp where that is not included, or that it
  /// refuses.
  ModulePattern(std::string text)
      : text_(std::move(text)), regex_(detail::compile_unless_plain(text_, "(?:.*\\.)?")) {}
  ModulePattern(const char* text) : ModulePattern(std::string(text)) {}

  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] bool matches(std::string_view path) const {
    return regex_ ? regex_->matches(path) : ends_with_segment(path, text_);
  }

 private:
  std::string text_;
  std::optional<Regex> regex_;
};

/// An entry of `layers_pattern`: the name of what holds numbered layers, plain or a regular expression.
class LayersPattern {
 public:
  /// @throws ConfigError as `ModulePattern` does.
  LayersPattern(std::string text) : text_(std::move(text)), regex_(detail::compile_unless_plain(text_, "")) {}
  LayersPattern(const char* text) : LayersPattern(std::string(text)) {}

  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] bool matches(std::string_view name) const {
    return regex_ ? regex_->matches(name) : name == text_;
  }

 private:
  std::string text_;
  std::optional<Regex> regex_;
};

/// Whether a pattern matches a path, once. For many paths make a `ModulePattern`.
/// @throws ConfigError as `ModulePattern` does.
[[nodiscard]] inline bool matches_pattern(std::string_view pattern, std::string_view path) {
  return ModulePattern(std::string(pattern)).matches(path);
}

/// The number of the layer that a module belongs to.
struct LayerIndex {
  int index = 0;
  bool peft_agrees = true;  ///< false: PEFT finds no number in this path, and would not adapt the module
  friend bool operator==(const LayerIndex&, const LayerIndex&) = default;
};

/// What `layers_to_transform` is compared with. With patterns: the number that stands directly behind the
/// first place where one of them matches, the patterns tried in order; a regular expression takes as much of
/// the path as it can, dots included, as in PEFT. Without: the first number behind two components or more, as
/// in PEFT; failing that, the one behind a container at the top level ("layers.3.q"). Nothing when there is
/// none.
[[nodiscard]] inline std::optional<LayerIndex> layer_index(
    std::string_view path, const std::vector<LayersPattern>& layers_patterns) {
  std::vector<std::size_t> components;  // where those begin that have one after them
  std::vector<std::size_t> numbers;     // which of these are numbers, the first component apart
  std::vector<int> values;              // the numbers
  for (std::size_t begin = 0;;) {
    const std::size_t dot = path.find('.', begin);
    if (dot == std::string_view::npos) break;
    int value = 0;
    const auto [end, error] = std::from_chars(path.data() + begin, path.data() + dot, value);
    if (error == std::errc{} && end == path.data() + dot && path[begin] != '-' && begin > 0) {
      numbers.push_back(components.size());
      values.push_back(value);
    }
    components.push_back(begin);
    begin = dot + 1;
  }
  for (const LayersPattern& pattern : layers_patterns)
    for (const std::size_t begin : components)
      for (std::size_t i = numbers.size(); i-- > 0 && components[numbers[i]] > begin;)
        if (pattern.matches(path.substr(begin, components[numbers[i]] - 1 - begin))) return LayerIndex{values[i]};
  if (numbers.empty() || !layers_patterns.empty()) return std::nullopt;
  for (std::size_t i = 0; i < numbers.size(); ++i)
    if (numbers[i] >= 2) return LayerIndex{values[i]};
  return LayerIndex{values.front(), false};
}

}  // namespace graft
