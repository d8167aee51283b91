#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "version.hpp"

namespace graft {

/// The segments of a dotted path, first to last, for a range-based loop: "layers", "0" and "q_proj" of
/// "layers.0.q_proj". The empty path, which is the model itself, has none.
class Segments {
 public:
  class iterator {
   public:
    using value_type = std::string_view;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::forward_iterator_tag;
    using pointer = const std::string_view*;
    using reference = std::string_view;

    constexpr iterator() = default;
    constexpr explicit iterator(std::string_view path) : rest_(path), at_end_(path.empty()) {}
    constexpr std::string_view operator*() const { return rest_.substr(0, rest_.find('.')); }
    constexpr iterator& operator++() {
      const std::size_t dot = rest_.find('.');
      at_end_ = dot == rest_.npos;
      rest_ = at_end_ ? std::string_view{} : rest_.substr(dot + 1);
      return *this;
    }
    constexpr iterator operator++(int) {
      iterator before = *this;
      ++*this;
      return before;
    }
    friend constexpr bool operator==(const iterator& a, const iterator& b) {
      return a.at_end_ == b.at_end_ && (a.at_end_ || a.rest_.size() == b.rest_.size());
    }

   private:
    std::string_view rest_;
    bool at_end_ = true;
  };

  constexpr explicit Segments(std::string_view path) : path_(path) {}
  [[nodiscard]] constexpr iterator begin() const { return iterator(path_); }
  [[nodiscard]] constexpr iterator end() const { return iterator(); }

 private:
  std::string_view path_;
};

[[nodiscard]] constexpr Segments segments(std::string_view path) { return Segments(path); }

/// How many segments a path has.
[[nodiscard]] constexpr std::size_t segment_count(std::string_view path) {
  std::size_t dots = 0;
  for (const char character : path) dots += character == '.';
  return path.empty() ? 0 : dots + 1;
}

/// The last segment of a path: "q_proj" of "layers.0.q_proj".
[[nodiscard]] constexpr std::string_view last_segment(std::string_view path) {
  const std::size_t dot = path.rfind('.');
  return dot == path.npos ? path : path.substr(dot + 1);
}

/// A path without its last segment: "layers.0" of "layers.0.q_proj", "" of "q_proj".
[[nodiscard]] constexpr std::string_view parent_path(std::string_view path) {
  const std::size_t dot = path.rfind('.');
  return dot == path.npos ? std::string_view{} : path.substr(0, dot);
}

/// A path without its last `count` segments: "layers" of "layers.0.q_proj" and 2.
[[nodiscard]] constexpr std::string_view ancestor_path(std::string_view path, std::size_t count) {
  for (; count > 0; --count) path = parent_path(path);
  return path;
}

/// The last `count` segments of a path, or all of it when it has fewer.
[[nodiscard]] constexpr std::string_view last_segments(std::string_view path, std::size_t count) {
  std::size_t begin = path.size();
  for (; count > 0 && begin > 0; --count) {
    const std::size_t dot = path.rfind('.', begin - 1);
    if (dot == path.npos) return path;
    begin = count == 1 ? dot + 1 : dot;
  }
  return path.substr(begin);
}

/// Whether a path is `tail` or ends with "." + `tail`, character by character.
[[nodiscard]] constexpr bool ends_with_segment(std::string_view path, std::string_view tail) {
  if (tail.empty() || !path.ends_with(tail)) return false;
  return path.size() == tail.size() || path[path.size() - tail.size() - 1] == '.';
}

/// PEFT's rule for a list of targets: the path equals the target or ends with "." + the target. A `*` in a
/// compile-time path (`graft::paths`) stands for any one segment.
[[nodiscard]] constexpr bool matches(std::string_view path, std::string_view target) {
  if (ends_with_segment(path, target)) return true;
  if (path.find('*') == path.npos) return false;
  if (target.empty() || segment_count(path) < segment_count(target)) return false;
  for (auto wanted = segments(target).begin();
       const std::string_view segment : segments(last_segments(path, segment_count(target))))
    if (segment != *wanted++ && segment != "*") return false;
  return true;
}

/// The texts of a range with a separator between them.
template <class Range>
[[nodiscard]] std::string join(const Range& texts, std::string_view separator) {
  std::string all;
  bool first = true;
  for (const auto& text : texts) {
    if (!std::exchange(first, false)) all += separator;
    all += text;
  }
  return all;
}

/// The least number of inserted, removed, replaced or swapped neighbouring characters between two texts
/// (optimal string alignment), so that "q_porj" is one away from "q_proj".
[[nodiscard]] inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::swap(before, above);
    std::swap(above, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1])});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

/// What a misspelt name may have meant: the candidates, nearest first, whose end is at most a third of the
/// name's length away. A candidate is compared, and answered, by as many last segments as the name has; one
/// whose end *is* the name is answered whole.
template <class Range>
[[nodiscard]] std::vector<std::string> nearest_names(std::string_view name, const Range& candidates,
                                                     std::size_t at_most = 3) {
  const std::size_t limit = std::max<std::size_t>(1, name.size() / 3);
  std::vector<std::string_view> found;
  std::vector<std::size_t> distances;  // of those
  for (const auto& candidate : candidates) {
    const std::string_view whole = candidate;
    const std::string_view end = last_segments(whole, segment_count(name));
    const std::size_t shortest =
        end.size() > name.size() ? end.size() - name.size() : name.size() - end.size();
    if (end.empty() || whole == name || shortest > limit) continue;
    const std::size_t distance = edit_distance(name, end);
    const std::string_view answer = distance == 0 ? whole : end;
    if (distance > limit || std::find(found.begin(), found.end(), answer) != found.end()) continue;
    found.push_back(answer);
    distances.push_back(distance);
  }
  std::vector<std::string> names;
  for (std::size_t distance = 0; distance <= limit; ++distance)
    for (std::size_t i = 0; i < found.size() && names.size() < at_most; ++i)
      if (distances[i] == distance) names.emplace_back(found[i]);
  return names;
}

}  // namespace graft
