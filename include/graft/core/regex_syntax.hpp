#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "regex_node.hpp"

namespace graft::detail {

/// Reads a pattern. What Python refuses is refused, and so are back references and what gives nothing back (atomic groups,
/// possessive repetitions): none of these is a question of what can match where.
class RegexParser {
 public:
  static constexpr std::size_t longest_pattern = 1024, deepest = 64, most_work = 20'000;

  explicit RegexParser(std::u32string_view text) : text_(text) {}

  [[nodiscard]] RegexNode parse() {
    if (text_.size() > longest_pattern) refuse("it is longer than 1,024 characters");
    RegexNode all = alternatives(0);
    if (!is_at_end()) refuse("it has a ')' that closes nothing; write \\)");
    return all;
  }
  /// Why the pattern is refused; empty where it is not.
  [[nodiscard]] const std::string& problem() const { return problem_; }
  /// Whether it asks what other characters than ASCII are, letters of which case, or digits: a question that is not answered here.
  [[nodiscard]] bool needs_ascii() const { return needs_ascii_; }

 private:
  using Kind = RegexNode::Kind;
  using Place = RegexNode::Place;
  struct Flags {
    bool ignores_case = false, is_multi_line = false, dot_takes_all = false, is_verbose = false, is_ascii = false;
  };

  [[nodiscard]] bool is_at_end() const { return at_ >= text_.size(); }
  [[nodiscard]] char32_t peek(std::size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : U'\0'; }
  [[nodiscard]] bool take(char32_t c) {
    const bool is_next = !is_at_end() && peek() == c;
    at_ += is_next;
    return is_next;
  }
  /// The first reason counts; nothing is read any more.
  void refuse(std::string why) {
    if (problem_.empty()) problem_ = std::move(why);
    at_ = text_.size();
  }

  [[nodiscard]] RegexNode alternatives(std::size_t depth) {
    RegexNode all{.kind = Kind::alternatives, .shortest = RegexNode::endless};
    if (depth > deepest) refuse("its groups are nested more than 64 deep");
    bool is_first = true;
    do all.parts.push_back(sequence(depth, depth == 0 && std::exchange(is_first, false)));
    while (take(U'|'));
    for (const RegexNode& part : all.parts) {
      all.shortest = std::min(all.shortest, part.shortest);
      all.longest = std::max(all.longest, part.longest);
    }
    return all;
  }
  [[nodiscard]] RegexNode sequence(std::size_t depth, bool may_set_flags) {
    RegexNode all;
    while (!is_at_end() && peek() != U'|' && peek() != U')') {
      if (flags_.is_verbose && skip_verbose()) continue;
      item(all.parts, depth, may_set_flags);
    }
    for (const RegexNode& part : all.parts) {
      all.shortest = RegexNode::plus(all.shortest, part.shortest);
      all.longest = RegexNode::plus(all.longest, part.longest);
    }
    return all;
  }
  [[nodiscard]] bool skip_verbose() {
    if (CharacterSet::is_word(peek()) || (peek() != U' ' && (peek() < U'\t' || peek() > U'\r') && peek() != U'#')) return false;
    if (text_[at_++] == U'#') skip_to(U'\n');
    return true;
  }
  /// Past that character, unless a backslash stands before it, in comments too. Whether there is one.
  bool skip_to(char32_t last) {
    while (!is_at_end())
      if (const char32_t c = text_[at_++]; c == last) return true;
      else if (c == U'\\') ++at_;
    return false;
  }

  void item(std::vector<RegexNode>& parts, std::size_t depth, bool may_set_flags) {
    const char32_t c = text_[at_++];
    switch (c) {
      case U'\\': return escape(parts);
      case U'[': return parts.push_back(character(character_class()));
      case U'.': return parts.push_back(character({.ranges = line_break(), .is_negated = true}));
      case U'^': return parts.push_back(place(flags_.is_multi_line ? Place::begin_of_line : Place::begin));
      case U'$': return parts.push_back(place(flags_.is_multi_line ? Place::end_of_line : Place::end_or_last_break));
      case U'(': return group(parts, depth, may_set_flags);
      case U'*': return repeat(parts, 0, RegexNode::endless);
      case U'+': return repeat(parts, 1, RegexNode::endless);
      case U'?': return repeat(parts, 0, 1);
      case U'{': return counted(parts);
      default: return parts.push_back(literal(c));
    }
  }
  [[nodiscard]] std::vector<std::pair<char32_t, char32_t>> line_break() const {
    return flags_.dot_takes_all ? std::vector<std::pair<char32_t, char32_t>>{} : std::vector<std::pair<char32_t, char32_t>>{{U'\n', U'\n'}};
  }
  [[nodiscard]] RegexNode literal(char32_t c) { return character({.ranges = {{c, c}}}); }
  [[nodiscard]] RegexNode character(CharacterSet set) {
    set.ignores_case = flags_.ignores_case;
    for (const auto& [first, last] : set.ranges) {
      if (!set.ignores_case || first > U'z' || last < U'A') continue;
      needs_ascii_ = needs_ascii_ || !flags_.is_ascii;
    }
    if (set.ignores_case && std::any_of(set.ranges.begin(), set.ranges.end(), [](const auto& range) { return range.second > 0x7f; }))
      refuse("it ignores the case of characters that are not ASCII");
    for (const CharacterSet::Kind& kind : set.kinds) needs_ascii_ = needs_ascii_ || !kind.is_ascii;
    return {.kind = Kind::character, .set = std::move(set), .shortest = 1, .longest = 1};
  }
  [[nodiscard]] RegexNode place(Place where) {
    if (where == Place::word_boundary || where == Place::no_word_boundary) needs_ascii_ = needs_ascii_ || !flags_.is_ascii;
    return {.kind = Kind::place, .place = where};
  }

  void repeat(std::vector<RegexNode>& parts, std::size_t least, std::size_t most) {
    if (parts.empty() || parts.back().kind == Kind::place || parts.back().kind == Kind::repeat)
      return refuse("a repetition stands where nothing can be repeated");
    if (peek() == U'+') return refuse("possessive repetitions are not understood here");
    (void)take(U'?');  // lazy or not, the same can match
    RegexNode all{.kind = Kind::repeat, .least = least, .most = most};
    const RegexNode& one = parts.back();
    all.shortest = RegexNode::times(one.shortest, least);
    all.longest = RegexNode::times(one.longest, most);
    all.parts.push_back(std::move(parts.back()));
    parts.back() = std::move(all);
  }
  /// What follows a '{', which is itself where no count does.
  void counted(std::vector<RegexNode>& parts) {
    const std::size_t begin = at_;
    const auto number = [&](std::size_t missing) {
      if (!CharacterSet::is_digit(peek())) return missing;
      std::size_t value = 0;
      while (CharacterSet::is_digit(peek())) value = std::min(value * 10 + (text_[at_++] - U'0'), most_work);
      return value;
    };
    const bool has_least = CharacterSet::is_digit(peek());
    const std::size_t least = number(0);
    const std::size_t most = take(U',') ? number(RegexNode::endless) : has_least ? least : 0;
    if (peek() != U'}' || at_ == begin) {
      at_ = begin;
      return parts.push_back(literal(U'{'));
    }
    ++at_;
    if (least >= most_work || (most != RegexNode::endless && most >= most_work)) return refuse("its counted repetitions grow too large");
    if (most < least) return refuse("a repetition has a largest count below its least");
    repeat(parts, least, most);
  }

  void group(std::vector<RegexNode>& parts, std::size_t depth, bool may_set_flags) {
    const Flags outside = flags_;
    RegexNode look{.kind = Kind::look};
    bool is_look = false;
    if (take(U'?')) {
      const char32_t c = peek();
      if (c == U'#') return comment();
      if (c == U'P') name();
      else if (c == U'=' || c == U'!' || (c == U'<' && (peek(1) == U'=' || peek(1) == U'!'))) {
        is_look = true;
        look.is_behind = take(U'<');
        look.is_negative = text_[at_++] == U'!';
      } else if (c == U'-' || CharacterSet::is_letter(c)) {
        if (!flags(parts.empty() && may_set_flags)) return;  // they hold for all that follows
      } else if (!take(U':')) {
        return refuse("'(?" + ascii(c) + "' is not understood here");
      }
    }
    RegexNode inner = alternatives(depth + 1);
    if (!take(U')')) return refuse("a '(' is not closed");
    flags_ = outside;
    if (!is_look) return parts.push_back(std::move(inner));
    if (look.is_behind && (inner.shortest != inner.longest || inner.longest == RegexNode::endless))
      return refuse("what a '(?<' looks back at has no fixed length");
    look.parts.push_back(std::move(inner));
    parts.push_back(std::move(look));
  }
  void comment() {
    if (!skip_to(U')')) refuse("a comment is not closed");
  }
  void name() {
    ++at_;
    if (!take(U'<')) return refuse("'(?P" + ascii(peek()) + "' is not understood here: what a group matched cannot be asked for");
    const std::size_t begin = at_;
    while (CharacterSet::is_word(peek())) ++at_;
    const std::u32string_view own = text_.substr(begin, at_ - begin);
    if (own.empty() || CharacterSet::is_digit(own.front()) || !take(U'>'))
      return refuse("a group has a name that is not one of ASCII letters, digits and '_'");
    if (std::find(names_.begin(), names_.end(), own) != names_.end()) return refuse("two groups have one name");
    names_.push_back(own);
  }
  /// "i)" or "i-s:". Whether a group follows, for which alone they hold.
  [[nodiscard]] bool flags(bool may_be_global) {
    std::string seen;
    bool value = true;
    for (; !is_at_end() && peek() != U':' && peek() != U')'; ++at_) {
      const char letter = ascii(peek())[0];
      if (letter == '-' && value) {
        value = false;
      } else if (!set_flag(letter, value) || seen.find(letter) != seen.npos || (!value && (letter == 'a' || letter == 'u'))) {
        refuse("it has a flag '" + ascii(peek()) + "' that is not understood here");
        return false;
      }
      seen += letter;
    }
    const bool is_contrary = seen.find('a') != seen.npos && seen.find('u') != seen.npos;
    if (seen.empty() || seen.back() == '-' || is_contrary || is_at_end()) refuse("its flags are none of Python's");
    if (take(U':')) return true;
    if (!may_be_global || !value) refuse("flags for all of it stand at its start alone");
    (void)take(U')');
    return false;
  }
  [[nodiscard]] bool set_flag(char letter, bool value) {
    switch (letter) {
      case 'a': flags_.is_ascii = value; return true;
      case 'u': flags_.is_ascii = !value; return true;
      case 'i': flags_.ignores_case = value; return true;
      case 'm': flags_.is_multi_line = value; return true;
      case 's': flags_.dot_takes_all = value; return true;
      case 'x': flags_.is_verbose = value; return true;
      default: return false;
    }
  }
  [[nodiscard]] static std::string ascii(char32_t c) { return c > U' ' && c <= U'~' ? std::string(1, char(c)) : std::string("…"); }

  void escape(std::vector<RegexNode>& parts) {
    switch (peek()) {
      case U'A': ++at_; return parts.push_back(place(Place::begin));
      case U'Z': ++at_; return parts.push_back(place(Place::end));
      case U'b': ++at_; return parts.push_back(place(Place::word_boundary));
      case U'B': ++at_; return parts.push_back(place(Place::no_word_boundary));
      default: break;
    }
    CharacterSet set;
    (void)escaped(set);
    parts.push_back(character(std::move(set)));
  }
  /// Adds what follows a backslash to a set; whether it is one character, which may begin or end a range.
  [[nodiscard]] bool escaped(CharacterSet& set) {
    if (is_at_end()) refuse("it ends with a backslash");
    if (is_at_end()) return false;
    const char32_t c = text_[at_++];
    const bool is_kind = c < 0x80 && std::string_view("dDsSwW").find(char(c)) != std::string_view::npos;
    if (is_kind) set.kinds.push_back({char(c), flags_.is_ascii});
    else add(set, value_of_escape(c));
    return !is_kind;
  }
  [[nodiscard]] char32_t value_of_escape(char32_t c) {
    constexpr std::string_view letters = "afnrtv", meant = "\a\f\n\r\t\v";
    if (c == U'x') return hexadecimal(2);
    if (c == U'u') return hexadecimal(4);
    if (CharacterSet::is_digit(c)) refuse("the escape '\\" + ascii(c) + "' is not understood here: what a group matched cannot be asked for");
    if (!CharacterSet::is_letter(c)) return c;
    const std::size_t place = letters.find(char(c));
    if (place != letters.npos) return char32_t(meant[place]);
    refuse("the escape '\\" + ascii(c) + "' is not understood here");
    return c;
  }
  [[nodiscard]] char32_t hexadecimal(std::size_t digits) {
    char32_t value = 0;
    for (; digits > 0 && !is_at_end(); --digits, ++at_) {
      const char32_t c = peek() | 0x20;
      if (!CharacterSet::is_digit(peek()) && (c < U'a' || c > U'f')) break;
      value = value * 16 + (CharacterSet::is_digit(peek()) ? peek() - U'0' : c - U'a' + 10);
    }
    if (digits > 0) refuse("an escape by a number has too few digits");
    return value;
  }
  [[nodiscard]] CharacterSet character_class() {
    CharacterSet set;
    set.is_negated = take(U'^');
    for (bool is_first = true; is_first || !take(U']'); is_first = false) {
      if (is_at_end()) refuse("a character class is not closed");
      if (is_at_end()) break;
      const bool is_one = member(set);
      if (peek() != U'-' || peek(1) == U']' || at_ + 1 >= text_.size()) continue;
      ++at_;
      if (!is_one || !member(set)) {
        refuse("a range in a character class begins or ends with no single character");
        break;
      }
      const char32_t last = set.ranges.back().first;
      set.ranges.pop_back();
      if (last < set.ranges.back().first) refuse("a range in a character class ends before it begins");
      set.ranges.back().second = last;
    }
    return set;
  }
  [[nodiscard]] bool member(CharacterSet& set) {
    if (peek() == U'\\' && peek(1) != U'b') {
      ++at_;
      return escaped(set);
    }
    if (peek() == U'\\') add(set, U'\b');
    else add(set, peek());
    at_ += peek() == U'\\' ? 2 : 1;
    return true;
  }
  static void add(CharacterSet& set, char32_t c) { set.ranges.emplace_back(c, c); }

  std::u32string_view text_;
  std::size_t at_ = 0;
  Flags flags_{};
  std::vector<std::u32string_view> names_;
  std::string problem_;
  bool needs_ascii_ = false;
};

}  // namespace graft::detail
