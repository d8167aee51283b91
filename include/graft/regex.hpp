#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "core/compile_once.hpp"
#include "core/on_demand.hpp"
#include "core/regex_match.hpp"
#include "core/regex_syntax.hpp"
#include "core/utf8.hpp"
#include "adapters/pattern.hpp"

namespace graft {

namespace detail {

struct CompiledRegex {
  std::string pattern;
  RegexNode root{};
  bool needs_ascii = false;
};

[[noreturn]] inline void refuse_regex(const std::string& pattern, std::string why) {
  fail<ConfigError>("the regular expression '" + pattern + "' cannot be used", std::move(why),
                    "rewrite it, or list the names of the modules");
}

/// The characters of a text; nothing where it is not UTF-8.
[[nodiscard]] inline std::optional<std::u32string> characters_of(std::string_view text) {
  std::u32string characters;
  for (std::size_t at = 0; at < text.size();)
    if (const auto point = next_code_point(text, at)) characters += *point;
    else return std::nullopt;
  return characters;
}

template <class = OnDemand>
bool regex_full_match(const void* compiled, std::string_view subject) {
  constexpr std::size_t longest_subject = 4096;
  const CompiledRegex& regex = *static_cast<const CompiledRegex*>(compiled);
  if (subject.size() > longest_subject)
    refuse_regex(regex.pattern, "the path it is asked about is longer than 4,096 characters");
  const std::optional<std::u32string> characters = characters_of(subject);
  if (!characters) refuse_regex(regex.pattern, "the path it is asked about is not UTF-8");
  if (regex.needs_ascii && characters->size() != subject.size())
    refuse_regex(regex.pattern, "of '" + std::string(subject) + "', which is not ASCII, it asks what is a letter or a digit");
  const std::optional<bool> answer = RegexMatcher(*characters).matches_all(regex.root);
  if (!answer) refuse_regex(regex.pattern, "it takes too long to compare it with '" + std::string(subject) + "'");
  return *answer;
}
GRAFT_SHARED_FUNCTION(regex_full_match<>)

template <class = OnDemand>
[[nodiscard]] Regex compile_regex(std::string pattern) {
  const std::optional<std::u32string> characters = characters_of(pattern);
  if (!characters) refuse_regex(pattern, "it is not UTF-8");
  RegexParser parser(*characters);
  const auto compiled = std::make_shared<CompiledRegex>();
  compiled->root = parser.parse();
  if (!parser.problem().empty()) refuse_regex(pattern, parser.problem());
  compiled->needs_ascii = parser.needs_ascii();
  compiled->pattern = pattern;
  return {std::move(pattern), compiled, &regex_full_match<>};
}
GRAFT_SHARED_FUNCTION(compile_regex<>)

// Including this header lets every pattern of the program be a regular expression.
inline const bool has_regex = (make_regex = &compile_regex<>, true);

}  // namespace detail

/// A regular expression that must match a whole module path, as Python's `re.fullmatch`. Back references, atomic groups,
/// possessive repetitions and what Python itself refuses are refused.
/// @throws ConfigError that says what about the pattern is not understood.
[[nodiscard]] inline Regex regex(std::string pattern) { return detail::compile_regex(std::move(pattern)); }

}  // namespace graft
