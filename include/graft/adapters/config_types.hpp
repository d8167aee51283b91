#pragma once

#include <concepts>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "../tensor/shape.hpp"

namespace graft {

/// Which biases of the base an adapter trains and saves.
enum class Bias { none, all, lora_only };

/// One name in a list: a literal, a string or a string_view.
struct Name {
  Name(const char* text) : value(text) {}
  Name(std::string text) : value(std::move(text)) {}
  template <class S>
    requires std::is_same_v<S, std::string_view>
  Name(S text) : value(text) {}

  std::string value;
};

/// A regular expression that must match a whole path. Made by `graft::regex` (graft/regex.hpp).
struct Regex {
  using FullMatch = bool (*)(const void* compiled, std::string_view subject);

  std::string pattern;
  std::shared_ptr<const void> compiled{};
  FullMatch full_match = nullptr;

  /// @throws ConfigError for a subject that it cannot judge, or when it was not made by `graft::regex`.
  [[nodiscard]] bool matches(std::string_view subject) const {
    if (!full_match)
      fail<ConfigError>("the regex '" + pattern + "' was not compiled", "a Regex is made by graft::regex",
                        "include graft/regex.hpp and write graft::regex(\"…\")");
    return full_match(compiled.get(), subject);
  }
};

/// Marks every linear layer as a target.
struct AllLinear {};
inline constexpr AllLinear all_linear{};

/// Which modules a config names: unset, a list of names, a full-match regex, or all linear layers.
class TargetModules {
 public:
  enum class Kind { unset, list, regex, all_linears };

  TargetModules() = default;
  TargetModules(std::initializer_list<Name> names) : kind_(Kind::list) {
    for (const Name& name : names) names_.push_back(name.value);
  }
  TargetModules(std::vector<std::string> names) : kind_(Kind::list), names_(std::move(names)) {}
  TargetModules(Regex regex) : kind_(Kind::regex), regex_(std::move(regex)) {}
  TargetModules(AllLinear) : kind_(Kind::all_linears) {}

  [[nodiscard]] Kind kind() const { return kind_; }
  [[nodiscard]] bool is_set() const { return kind_ != Kind::unset; }
  [[nodiscard]] const std::vector<std::string>& names() const { return names_; }
  [[nodiscard]] const Regex& regex() const { return regex_; }

  friend bool operator==(const TargetModules& a, const TargetModules& b) {
    return a.kind_ == b.kind_ && a.names_ == b.names_ && a.regex_.pattern == b.regex_.pattern;
  }

 private:
  Kind kind_ = Kind::unset;
  std::vector<std::string> names_;
  Regex regex_;
};

/// Values by module pattern, in the order of insertion; the first pattern that matches a path wins.
template <class V>
class PatternMap : public std::vector<std::pair<std::string, V>> {
 public:
  using std::vector<std::pair<std::string, V>>::vector;
  PatternMap(std::vector<std::pair<std::string, V>> entries) : std::vector<std::pair<std::string, V>>(std::move(entries)) {}
};

/// Kept ranks by module path: what AdaLoRA's training leaves behind.
class RankPattern : public std::vector<std::pair<std::string, std::vector<bool>>> {
 public:
  using std::vector<std::pair<std::string, std::vector<bool>>>::vector;
  RankPattern(std::vector<std::pair<std::string, std::vector<bool>>> entries)
      : std::vector<std::pair<std::string, std::vector<bool>>>(std::move(entries)) {}
};

/// Fields of a config file that graft has no member for, as their JSON texts.
class ExtraFields : public std::vector<std::pair<std::string, std::string>> {
 public:
  using std::vector<std::pair<std::string, std::string>>::vector;
  ExtraFields(std::vector<std::pair<std::string, std::string>> entries)
      : std::vector<std::pair<std::string, std::string>>(std::move(entries)) {}

  /// How the file wrote fields that do have a member, where graft would write the same value in another way
  /// (`16.0` for 16, `[]` for null, a set in another order). Used again while the member keeps that value.
  std::vector<std::pair<std::string, std::string>> spellings{};

  /// The JSON text of a field, or null when it is not there.
  [[nodiscard]] const std::string* find(std::string_view field) const {
    for (const auto& [name, json] : *this)
      if (name == field) return &json;
    return nullptr;
  }
};

/// Rows of embeddings that are trained whole, by module name; a plain list means `embed_tokens`.
class TokenIndices {
 public:
  TokenIndices() = default;
  TokenIndices(std::initializer_list<Index> tokens) : is_list_(true) {
    if (tokens.size()) modules_.push_back({"embed_tokens", tokens});
  }
  template <std::integral I>
  TokenIndices(const std::vector<I>& tokens) : is_list_(true) {
    if (!tokens.empty()) modules_.push_back({"embed_tokens", {tokens.begin(), tokens.end()}});
  }
  TokenIndices(std::initializer_list<std::pair<std::string, std::vector<Index>>> modules) : modules_(modules) {}
  TokenIndices(std::vector<std::pair<std::string, std::vector<Index>>> modules, bool is_list = false)
      : modules_(std::move(modules)), is_list_(is_list) {}

  [[nodiscard]] bool empty() const { return modules_.empty(); }
  [[nodiscard]] const std::vector<std::pair<std::string, std::vector<Index>>>& modules() const { return modules_; }
  /// Whether it was given as a plain list, which is how a file writes it back.
  [[nodiscard]] bool is_list() const { return is_list_; }
  friend bool operator==(const TokenIndices&, const TokenIndices&) = default;

 private:
  std::vector<std::pair<std::string, std::vector<Index>>> modules_;
  bool is_list_ = false;
};

/// How LoRA's matrices start: `true`, `false`, or the name of a scheme ("gaussian", "pissa", …).
class InitLoraWeights {
 public:
  template <class B>
    requires std::is_same_v<B, bool>
  InitLoraWeights(B value) : value_(value) {}
  InitLoraWeights(const char* scheme) : scheme_(scheme) {}
  InitLoraWeights(std::string scheme) : scheme_(std::move(scheme)) {}

  /// Whether it is `true` or `false` rather than a scheme.
  [[nodiscard]] bool is_bool() const { return scheme_.empty(); }
  [[nodiscard]] bool value() const { return value_; }
  [[nodiscard]] const std::string& scheme() const { return scheme_; }
  friend bool operator==(const InitLoraWeights&, const InitLoraWeights&) = default;

 private:
  bool value_ = true;
  std::string scheme_;
};

}  // namespace graft
