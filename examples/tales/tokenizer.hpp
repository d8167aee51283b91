#pragma once

#include <algorithm>
#include <array>
#include <filesystem>
#include <graft/core/error.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "byte_pairs.hpp"
#include "gpt2_split.hpp"
#include "json_file.hpp"

namespace tales {

/// A byte-level BPE tokenizer read from Hugging Face's tokenizer.json: GPT-2's split, with or without digits
/// apart. It adds no special tokens.
class Tokenizer {
 public:
  /// Reads DIR/tokenizer.json. @throws graft::FileError when it is broken, or is of a kind that is not known
  /// here.
  explicit Tokenizer(const std::filesystem::path& folder) {
    const JsonFile file(folder / "tokenizer.json");
    try {
      read_pre_tokeniser(file);
      read_model(file, file.require<nlohmann::json>("model"));
      read_added_tokens(file);
    } catch (const nlohmann::json::exception& error) {
      file.fail(error.what(), use_ids);
    }
  }

  /// The ids that `tokenizers` gives with add_special_tokens=False.
  /// @throws graft::FileError for text that is not UTF-8.
  [[nodiscard]] std::vector<int> encode(std::string_view text) const {
    std::vector<int> ids;
    std::unordered_map<std::string, std::vector<int>> known;  // novels repeat their words
    const auto add_word = [&](std::string_view word) {
      const auto [place, is_new] = known.try_emplace(std::string(word));
      if (is_new) byte_pairs_.encode(word, place->second);
      ids.insert(ids.end(), place->second.begin(), place->second.end());
    };
    // As tokenizers does: first the added tokens that are looked for in the raw text, then the others.
    split_added(text, false, ids, [&](std::string_view raw) {
      split_added(raw, true, ids, [&](std::string_view plain) { split_words(plain, add_word); });
    });
    return ids;
  }

  /// The text of some ids; bytes that are no UTF-8 are handed through. Unknown ids are left out.
  [[nodiscard]] std::string decode(std::span<const int> ids) const {
    std::string text;
    for (const int id : ids)
      if (id >= 0 && std::size_t(id) < bytes_.size()) text += bytes_[std::size_t(id)];
    return text;
  }

  /// One more than the largest id.
  [[nodiscard]] std::size_t size() const { return bytes_.size(); }

 private:
  struct AddedToken {
    std::string text;
    int id;
    bool normalized, plain;  // plain: found wherever it stands, without its surroundings
  };

  static constexpr const char* use_ids = "tokenise the text elsewhere and give it with --ids FILE";

  // GPT-2's alphabet: printable bytes stand for themselves, the others for code points from 256 on.
  static std::optional<std::string> to_bytes(std::string_view token) {
    static const auto byte_of = [] {
      std::array<int, 512> table;
      table.fill(-1);
      int next = 256;
      for (int byte = 0; byte < 256; ++byte) {
        const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
        table[std::size_t(printable ? byte : next++)] = byte;
      }
      return table;
    }();
    std::string bytes;
    for (const Character& c : characters(token)) {
      if (c.value >= byte_of.size() || byte_of[c.value] < 0) return std::nullopt;
      bytes += char(byte_of[c.value]);
    }
    return bytes;
  }

  void read_model(const JsonFile& file, const nlohmann::json& model) {
    const std::string type = model.value("type", "BPE");
    if (type != "BPE") file.fail("its model is '" + type + "', only byte-level BPE is known", use_ids);
    for (const char* field : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (model.contains(field) && !model[field].is_null() && model[field] != "")
        file.fail("its model sets '" + std::string(field) + "', which byte-level BPE does not have", use_ids);
    BytePairs::Vocabulary vocabulary;
    for (const auto& [token, number] : model.at("vocab").items()) {
      const int id = file.as<int>(number, "model.vocab." + token);
      const auto bytes = to_bytes(token);
      if (bytes) vocabulary.emplace(*bytes, id);
      set_text(file, id, bytes.value_or(token));
    }
    byte_pairs_ = BytePairs(std::move(vocabulary), model.value("ignore_merges", false));
    read_merges(file, model.at("merges"));
  }

  void set_text(const JsonFile& file, int id, std::string text) {
    constexpr int largest = 1 << 24;  // a wrong id must not ask for all the memory
    if (id < 0 || id > largest) file.fail("token '" + text + "' has the id " + std::to_string(id), use_ids);
    if (std::size_t(id) >= bytes_.size()) bytes_.resize(std::size_t(id) + 1);
    bytes_[std::size_t(id)] = std::move(text);
  }

  void read_merges(const JsonFile& file, const nlohmann::json& merges) {
    for (const auto& merge : merges) {
      std::string left, right;
      if (merge.is_array() && merge.size() == 2) {
        left = file.as<std::string>(merge[0], "model.merges");
        right = file.as<std::string>(merge[1], "model.merges");
      } else {  // "a b", as before tokenizers 0.20
        const auto both = file.as<std::string>(merge, "model.merges");
        const std::size_t gap = both.find(' ');
        if (gap == std::string::npos) file.fail("the merge '" + both + "' is not a pair", use_ids);
        left = both.substr(0, gap);
        right = both.substr(gap + 1);
      }
      const auto left_bytes = to_bytes(left), right_bytes = to_bytes(right);
      if (!left_bytes || !right_bytes || !byte_pairs_.add_merge(*left_bytes, *right_bytes))
        file.fail("the merge of '" + left + "' and '" + right + "' is not in the vocabulary", use_ids);
    }
  }

  void read_pre_tokeniser(const JsonFile& file) {
    const auto pre = file.get<nlohmann::json>("pre_tokenizer", nullptr);
    if (pre.is_null()) file.fail("it has no pre-tokeniser, only ByteLevel is known", use_ids);
    const bool several = pre.value("type", "") == "Sequence";
    const auto steps =
        several ? pre.value("pretokenizers", nlohmann::json::array()) : nlohmann::json::array({pre});
    bool byte_level = false;
    for (const auto& step : steps) {
      const std::string type = step.value("type", "(none)");
      if (type == "Digits" && !byte_level && !digits_) {
        digits_ = step.value("individual_digits", false);
      } else if (type == "ByteLevel" && !byte_level) {
        byte_level = true;
        prefix_space_ = step.value("add_prefix_space", true);
        gpt2_pattern_ = step.value("use_regex", true);
      } else {
        file.fail("its pre-tokeniser '" + type + "' is not known; known are ByteLevel, and Digits before it",
                  use_ids);
      }
    }
    if (!byte_level) file.fail("its pre-tokeniser does not end in ByteLevel", use_ids);
    if (const auto normaliser = file.find<nlohmann::json>("normalizer"))
      file.fail("its normaliser '" + normaliser->value("type", "(none)") + "' is not known", use_ids);
  }

  void read_added_tokens(const JsonFile& file) {
    for (const auto& token : file.get<nlohmann::json>("added_tokens", nlohmann::json::array())) {
      const auto text = file.as<std::string>(token.at("content"), "added_tokens");
      const int id = file.as<int>(token.at("id"), "added_tokens");
      if (text.empty()) continue;
      const bool plain = !token.value("lstrip", false) && !token.value("rstrip", false) &&
                         !token.value("single_word", false);
      added_.push_back({text, id, token.value("normalized", false), plain});
      set_text(file, id, text);
    }
    std::stable_sort(added_.begin(), added_.end(),
                     [](const AddedToken& a, const AddedToken& b) { return a.text.size() > b.text.size(); });
  }

  // Leftmost, then longest, which stands first in added_.
  template <class F>
  void split_added(std::string_view text, bool normalized, std::vector<int>& ids, F&& rest) const {
    std::size_t begin = 0;
    std::array<bool, 256> starts{};
    for (const AddedToken& token : added_)
      if (token.normalized == normalized) starts[static_cast<unsigned char>(token.text[0])] = true;
    for (std::size_t at = 0; at < text.size(); ++at) {
      if (!starts[static_cast<unsigned char>(text[at])]) continue;
      for (const AddedToken& token : added_) {
        if (token.normalized != normalized || text.substr(at, token.text.size()) != token.text) continue;
        if (!token.plain)
          graft::fail<graft::FileError>("the text holds the added token '" + token.text + "'",
                                        "it is to be found with its surroundings, which is not known here",
                                        use_ids);
        if (at > begin) rest(text.substr(begin, at - begin));
        ids.push_back(token.id);
        begin = at + token.text.size();
        at = begin - 1;
        break;
      }
    }
    if (begin < text.size()) rest(text.substr(begin));
  }

  template <class F>
  void split_words(std::string_view text, F&& word) const {
    const auto byte_level = [&](std::string_view part) {
      std::string prefixed(prefix_space_ && !part.starts_with(' ') ? 1 : 0, ' ');
      prefixed += part;
      if (gpt2_pattern_)
        gpt2_split(prefixed, word);
      else
        word(prefixed);
    };
    if (digits_)
      digits_split(text, *digits_, byte_level);
    else
      byte_level(text);
  }

  std::vector<std::string> bytes_;  // by id
  BytePairs byte_pairs_;
  std::vector<AddedToken> added_;
  std::optional<bool> digits_;  // Digits before ByteLevel; whether each digit stands alone
  bool prefix_space_ = false, gpt2_pattern_ = true;
};

}  // namespace tales
