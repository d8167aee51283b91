#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <graft/core/error.hpp>
#include <queue>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tales {

/// Byte pair encoding over bytes: which tokens a word becomes.
class BytePairs {
 public:
  using Vocabulary = std::unordered_map<std::string, int>;  // bytes -> id

  BytePairs() = default;
  BytePairs(Vocabulary vocabulary, bool whole_words_first)
      : vocabulary_(std::move(vocabulary)), whole_words_first_(whole_words_first) {
    for (int byte = 0; byte < 256; ++byte) byte_ids_[std::size_t(byte)] = find(std::string(1, char(byte)));
  }

  /// Adds the next merge; an earlier one goes first. Whether both parts and the whole are tokens.
  bool add_merge(const std::string& left, const std::string& right) {
    const int left_id = find(left), right_id = find(right), whole = find(left + right);
    if (left_id < 0 || right_id < 0 || whole < 0) return false;
    merges_.insert_or_assign(pair(left_id, right_id), Merge{int(merge_count_++), whole});
    return true;
  }

  /// Appends the ids of one word. @throws graft::FileError for a byte that is no token.
  void encode(std::string_view word, std::vector<int>& ids) const {
    if (whole_words_first_)
      if (const int whole = find(std::string(word)); whole >= 0) return ids.push_back(whole);
    std::vector<Symbol> symbols;
    symbols.reserve(word.size());
    for (const char c : word) {
      const int id = byte_ids_[static_cast<unsigned char>(c)];
      if (id < 0)
        graft::fail<graft::FileError>(
            "the tokenizer has no token for byte " + std::to_string(static_cast<unsigned char>(c)),
            "a byte-level vocabulary has all 256 of them",
            "tokenise the text elsewhere and give it with --ids FILE");
      const int here = int(symbols.size());
      symbols.push_back({id, here - 1, here + 1});
    }
    merge(symbols);
    for (const Symbol& symbol : symbols)
      if (symbol.id >= 0) ids.push_back(symbol.id);
  }

 private:
  struct Merge {
    int rank, id;
  };
  struct Symbol {
    int id, previous, next;  // id -1: it became part of the symbol before it
  };
  struct Candidate {
    int rank, left, left_id, right_id;
    friend bool operator>(const Candidate& a, const Candidate& b) {
      return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
    }
  };

  static std::uint64_t pair(int left, int right) {
    return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
  }
  int find(const std::string& bytes) const {
    const auto place = vocabulary_.find(bytes);
    return place == vocabulary_.end() ? -1 : place->second;
  }

  // The best merge first, the leftmost of equals; candidates whose symbols have changed since are passed
  // over.
  void merge(std::vector<Symbol>& symbols) const {
    const int count = int(symbols.size());
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
    const auto propose = [&](int left) {
      if (left < 0 || symbols[std::size_t(left)].next >= count) return;
      const int left_id = symbols[std::size_t(left)].id;
      const int right_id = symbols[std::size_t(symbols[std::size_t(left)].next)].id;
      if (const auto found = merges_.find(pair(left_id, right_id)); found != merges_.end())
        queue.push({found->second.rank, left, left_id, right_id});
    };
    for (int i = 0; i + 1 < count; ++i) propose(i);
    while (!queue.empty()) {
      const Candidate best = queue.top();
      queue.pop();
      Symbol& left = symbols[std::size_t(best.left)];
      if (left.id != best.left_id || left.next >= count ||
          symbols[std::size_t(left.next)].id != best.right_id)
        continue;
      Symbol& right = symbols[std::size_t(left.next)];
      left.id = merges_.at(pair(best.left_id, best.right_id)).id;
      left.next = right.next;
      right.id = -1;
      if (left.next < count) symbols[std::size_t(left.next)].previous = best.left;
      propose(left.previous);
      propose(best.left);
    }
  }

  Vocabulary vocabulary_;
  bool whole_words_first_ = false;
  std::array<int, 256> byte_ids_{};
  std::unordered_map<std::uint64_t, Merge> merges_;
  std::size_t merge_count_ = 0;
};

}  // namespace tales
