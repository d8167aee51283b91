#pragma once

#include <cstddef>
#include <locale>
#include <memory>
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <utility>

#include "core/compile_once.hpp"
#include "core/on_demand.hpp"
#include "adapters/pattern.hpp"

namespace graft {

namespace detail {

/// Finds what `std::regex` would read differently from Python's `re`, or might not survive, so that a pattern
/// either means the same here and there or is refused.
class RegexScan {
 public:
  static constexpr std::size_t longest_pattern = 1024, largest_expansion = 20'000;

  explicit RegexScan(std::string_view pattern) : pattern_(pattern) {}

  /// Why the pattern is refused, or nothing.
  [[nodiscard]] std::optional<std::string> complaint() {
    if (pattern_.size() > longest_pattern) return "it is longer than 1,024 characters";
    for (char c : pattern_)
      if (c < ' ' || c > '~') return "it has characters that are not printable ASCII";
    while (!problem_ && at_ < pattern_.size()) item();
    if (!problem_ && expansion_ * pattern_.size() > largest_expansion)
      return "its counted repetitions grow too large";
    return problem_;
  }
  /// Whether it asks what kind of character something is: a question that is answered for ASCII alone.
  [[nodiscard]] bool has_character_kinds() const { return has_character_kinds_; }

 private:
  static constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
  [[nodiscard]] char peek(std::size_t ahead = 0) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }
  void refuse(std::string why) {
    if (!problem_) problem_ = std::move(why);
  }

  void item() {
    const char c = pattern_[at_++];
    switch (c) {
      case '\\':
        escape(false);
        break;
      case '[':
        character_class();
        break;
      case '(':
        group();
        break;
      case '*':
      case '+':
      case '?':
        quantifier();
        break;
      case '{':
        counted();
        break;
      case '}':
      case ']':
        refuse(std::string("it has a '") + c + "' that closes nothing; write \\" + c);
        break;
      case '^':
        anchor();
        break;
      case '|':
      case '$':
        can_repeat_ = false;
        break;
      case ')':
        end_group();
        break;
      default:
        can_repeat_ = true;
    }
  }
  void group() {
    bool is_lookahead = false;
    if (peek() == '?') {
      is_lookahead = peek(1) == '=' || peek(1) == '!';
      if (!is_lookahead && peek(1) != ':')
        return refuse("'(?" + std::string(1, peek(1)) +
                      "' is not understood here: of Python's extensions there are "
                      "(?:…), (?=…) and (?!…)");
      at_ += 2;
    }
    if (depth_ == deepest) return refuse("its groups are nested more than 64 deep");
    is_lookahead_[depth_++] = is_lookahead;
    lookaheads_ += is_lookahead;
    can_repeat_ = false;
  }
  void end_group() {
    if (depth_ == 0) return refuse("it has a ')' that closes nothing; write \\)");
    can_repeat_ = !is_lookahead_[--depth_];
    lookaheads_ -= is_lookahead_[depth_];
  }
  void anchor() {
    // libstdc++ forgets what stands before a lookahead.
    if (lookaheads_ > 0) refuse("'^' and '\\b' are not understood inside a lookahead");
    can_repeat_ = false;
  }
  void quantifier() {
    if (!can_repeat_) return refuse("a repetition stands where nothing can be repeated");
    if (peek() == '?') ++at_;
    if (peek() == '+') return refuse("possessive repetitions are not understood here");
    can_repeat_ = false;
  }
  void counted() {
    std::size_t largest = 0;
    bool is_valid = is_digit(peek());
    const auto number = [&] {
      std::size_t value = 0;
      for (; is_digit(peek()); ++at_)
        value = value > longest_pattern ? value : value * 10 + std::size_t(peek() - '0');
      largest = value > largest ? value : largest;
    };
    number();
    if (peek() == ',') {
      ++at_;
      number();
    }
    is_valid = is_valid && peek() == '}';
    if (!is_valid) return refuse("'{' begins no repetition; write \\{");
    ++at_;
    expansion_ *= largest > 1 ? largest : 1;
    if (expansion_ > largest_expansion) return refuse("its counted repetitions grow too large");
    quantifier();
  }
  /// What follows a backslash; whether it stands for one character.
  bool escape(bool in_class) {
    const char c = peek();
    ++at_;
    can_repeat_ = true;
    const auto is_one_of = [c](std::string_view letters) {
      return letters.find(c) != std::string_view::npos;
    };
    if (c == '\0') {
      refuse("it ends with a backslash");
    } else if (is_one_of("dDsSwW")) {
      has_character_kinds_ = true;
    } else if (c == 'b' && !in_class) {
      has_character_kinds_ = true;
      anchor();
    } else if (is_one_of("nrtfv") || !(is_letter(c) || is_digit(c) || c == '_')) {
      return true;
    } else if (is_one_of("AZ") && !in_class) {
      refuse("'\\" + std::string(1, c) +
             "' is not understood here; leave it out, the whole path must match anyway");
    } else {
      refuse("the escape '\\" + std::string(1, c) + "' means something else in Python, or nothing");
    }
    return false;
  }
  void character_class() {
    if (peek() == '^') ++at_;
    if (peek() == ']') return refuse("an empty character class means something else in Python");
    can_repeat_ = true;
    const std::size_t first = at_;
    bool can_begin_range = false;
    while (!problem_) {
      const char c = peek();
      if (at_ >= pattern_.size()) return refuse("a character class is not closed");
      ++at_;
      if (c == ']') return;
      if (c == '[') return refuse("a '[' in a character class; write \\[");
      if (c == '-' && at_ - 1 != first && peek() != ']') {
        if (!can_begin_range) return refuse("a '-' in a character class that is no range; write \\-");
        const char end = peek();
        ++at_;
        if (end == '[' || (end == '\\' && !escape(true)))
          return refuse("a range in a character class ends with no single character");
        can_begin_range = false;
        can_repeat_ = true;
        continue;
      }
      can_begin_range = c == '\\' ? escape(true) : c != '-';
      can_repeat_ = true;
    }
  }

  static constexpr std::size_t deepest = 64;

  std::string_view pattern_;
  std::size_t at_ = 0, depth_ = 0, lookaheads_ = 0, expansion_ = 1;
  bool is_lookahead_[deepest] = {};
  bool can_repeat_ = false, has_character_kinds_ = false;
  std::optional<std::string> problem_;
};

struct CompiledRegex {
  std::regex regex;
  std::string pattern;
  bool has_character_kinds = false;
};

[[noreturn]] inline void refuse_regex(const std::string& pattern, std::string why) {
  fail<ConfigError>("the regular expression '" + pattern + "' cannot be used", std::move(why),
                    "rewrite it, or list the names of the modules");
}

inline bool regex_full_match(const void* compiled, std::string_view subject) {
  constexpr std::size_t longest_subject = 4096;
  const auto& [regex, pattern, has_character_kinds] = *static_cast<const CompiledRegex*>(compiled);
  if (subject.size() > longest_subject)
    refuse_regex(pattern, "the path it is asked about is longer than 4,096 characters");
  // Python sees code points: what is not ASCII becomes one byte that no pattern spells.
  std::string characters;
  for (char c : subject)
    if ((c & 0xc0) != 0x80) characters += c & 0x80 ? '\xff' : c;
  if (has_character_kinds && characters.find('\xff') != std::string::npos)
    refuse_regex(pattern, "of '" + std::string(subject) +
                              "', which is not ASCII, it asks what is a letter or a digit");
  return std::regex_match(characters, regex);
}

template <class = OnDemand>
[[nodiscard]] Regex compile_regex(std::string pattern) {
  RegexScan scan(pattern);
  if (const std::optional<std::string> complaint = scan.complaint()) refuse_regex(pattern, *complaint);
  auto flags = std::regex::ECMAScript | std::regex::nosubs;
#if defined(__GLIBCXX__)
  flags |=
      std::regex_constants::__polynomial;  // no backtracking: neither the stack nor the time can run away
#endif
  const auto compiled = std::make_shared<CompiledRegex>();
  compiled->pattern = pattern;
  compiled->has_character_kinds = scan.has_character_kinds();
  compiled->regex.imbue(std::locale::classic());
#if defined(__cpp_exceptions)
  try {
    compiled->regex.assign(pattern, flags);
  } catch (const std::regex_error& error) {
    refuse_regex(pattern, error.what());
  }
#else
  compiled->regex.assign(pattern, flags);
#endif
  return {std::move(pattern), compiled, &regex_full_match};
}
GRAFT_SHARED_FUNCTION(compile_regex<>)

// Including this header lets every pattern of the program be a regular expression.
inline const bool has_regex = (make_regex = &compile_regex<>, true);

}  // namespace detail

/// A regular expression that must match a whole module path, as Python's `re.fullmatch`. Patterns that
/// `std::regex` would read differently from Python are refused.
/// @throws ConfigError that says what about the pattern is not understood.
[[nodiscard]] inline Regex regex(std::string pattern) { return detail::compile_regex(std::move(pattern)); }

}  // namespace graft
