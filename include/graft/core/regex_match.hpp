#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "regex_node.hpp"

namespace graft::detail {

/// Follows a pattern through a text from many places at once. What Python tries first makes no difference to what can match, so
/// nothing is tried and given back: neither the stack nor the time can run away.
class RegexMatcher {
 public:
  explicit RegexMatcher(std::u32string_view text) : text_(text) {}

  /// Whether the pattern matches all of the text; nothing where finding out takes too long.
  [[nodiscard]] std::optional<bool> matches_all(const RegexNode& pattern) {
    const Places ends = after(pattern, {0});
    if (work_ > most_work) return std::nullopt;
    return !ends.empty() && ends.back() == text_.size();
  }

 private:
  using Kind = RegexNode::Kind;
  using Place = RegexNode::Place;
  using Places = std::vector<std::size_t>;  // ascending

  static constexpr std::size_t most_work = 4'000'000;

  /// Where a match of the node may end that begins at one of these places.
  [[nodiscard]] Places after(const RegexNode& node, Places from) {
    work_ += 1 + from.size();
    if (work_ > most_work || from.empty()) return {};
    switch (node.kind) {
      case Kind::character: return after_character(node.set, std::move(from));
      case Kind::sequence:
        for (const RegexNode& part : node.parts) from = after(part, std::move(from));
        return from;
      case Kind::alternatives: return after_one_of(node.parts, from);
      case Kind::repeat: return after_repeat(node, std::move(from));
      case Kind::look:
        std::erase_if(from, [&](std::size_t at) { return sees(node, at) == node.is_negative; });
        return from;
      case Kind::place:
        std::erase_if(from, [&](std::size_t at) { return !is_at(node.place, at); });
        return from;
    }
    return {};
  }
  [[nodiscard]] Places after_character(const CharacterSet& set, Places from) const {
    std::erase_if(from, [&](std::size_t at) { return at == text_.size() || !set.contains(text_[at]); });
    for (std::size_t& at : from) ++at;
    return from;
  }
  [[nodiscard]] Places after_one_of(const std::vector<RegexNode>& parts, const Places& from) {
    Places all;
    for (const RegexNode& part : parts) all = united(all, after(part, from));
    return all;
  }
  [[nodiscard]] Places after_repeat(const RegexNode& node, Places from) {
    const RegexNode& one = node.parts.front();
    for (std::size_t count = 0; count < node.least && !from.empty(); ++count) {
      Places next = after(one, from);
      if (next == from) break;  // and so would all the others be
      from = std::move(next);
    }
    work_ += text_.size() / 8;
    std::vector<bool> seen(text_.size() + 1);
    Places all;
    for (std::size_t count = node.least;; ++count) {
      // where it was before, it had more repetitions left
      std::erase_if(from, [&](std::size_t at) {
        const bool was_here = seen[at];
        seen[at] = true;
        return was_here;
      });
      all.insert(all.end(), from.begin(), from.end());
      if (from.empty() || count == node.most) break;
      from = after(one, std::move(from));
    }
    std::sort(all.begin(), all.end());
    return all;
  }
  [[nodiscard]] static Places united(const Places& a, const Places& b) {
    Places all;
    std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(all));
    return all;
  }

  [[nodiscard]] bool sees(const RegexNode& look, std::size_t at) {
    const RegexNode& what = look.parts.front();
    if (!look.is_behind) return !after(what, {at}).empty();
    return at >= what.longest && !after(what, {at - what.longest}).empty();
  }
  [[nodiscard]] bool is_at(Place place, std::size_t at) const {
    const auto is_break = [&](std::size_t where) { return where < text_.size() && text_[where] == U'\n'; };
    const auto is_word = [&](std::size_t where) { return where < text_.size() && CharacterSet::is_word(text_[where]); };
    const bool is_end = at == text_.size(), is_boundary = is_word(at) != (at > 0 && is_word(at - 1));
    switch (place) {
      case Place::begin: return at == 0;
      case Place::begin_of_line: return at == 0 || is_break(at - 1);
      case Place::end_of_line: return is_end || is_break(at);
      case Place::end_or_last_break: return is_end || (is_break(at) && at + 1 == text_.size());
      case Place::end: return is_end;
      case Place::word_boundary: return is_boundary;
      case Place::no_word_boundary: return !is_boundary && !text_.empty();  // an empty text has none: Python below 3.14
    }
    return false;
  }

  std::u32string_view text_;
  std::size_t work_ = 0;
};

}  // namespace graft::detail
