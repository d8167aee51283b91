#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "../core/compile_once.hpp"
#include "../core/error.hpp"
#include "../core/on_demand.hpp"
#include "json_text.hpp"

namespace graft {

/// A JSON value whose objects keep the order of their keys.
using Json = nlohmann::ordered_json;

/// How Python's `json.dumps` is called.
struct PythonJsonOptions {
  std::size_t indent = 2;  ///< 0: all on one line
  bool sort_keys = true;   ///< by code point, at every level
  std::size_t depth = 0;   ///< how deep the value stands in what surrounds it
};

namespace detail {
/// What nlohmann says of a syntax error, without its own prefix and of a length that fits a message.
[[nodiscard]] inline std::string json_complaint(const nlohmann::json::exception& exception) {
  constexpr std::size_t longest = 300;
  std::string text = exception.what();
  if (const std::size_t bracket = text.find("] "); text.starts_with("[json.") && bracket != std::string::npos)
    text.erase(0, bracket + 2);
  for (char& character : text)
    if (character < ' ' || character > '~') character = '?';  // a terminal may get this
  if (text.size() > longest) text = text.substr(0, longest) + " …";
  return text;
}

/// Reads JSON once without keeping it, for what a tree of values would hide or could not bear: keys that
/// stand twice, integers that do not fit, values nested too deeply.
class JsonCheck {
 public:
  static constexpr std::size_t deepest = 64;

  std::string problem;  ///< empty: nothing is wrong

  bool null() { return true; }
  bool boolean(bool) { return true; }
  bool number_integer(std::int64_t) { return true; }
  bool number_unsigned(std::uint64_t) { return true; }
  bool number_float(double value, const std::string& text) {
    if (text.find_first_of(".eE") == std::string::npos)
      return complain("the integer " + text + " needs over 64 bits");
    return std::isfinite(value) || complain("the number " + text + " is too large");
  }
  bool string(const std::string&) { return true; }
  bool binary(const std::vector<std::uint8_t>&) { return complain("binary values are no JSON"); }
  bool start_object(std::size_t) { return open(); }
  bool end_object() { return close(); }
  bool start_array(std::size_t) { return open(); }
  bool end_array() { return close(); }
  bool key(const std::string& name) {
    return keys_.back().insert(name).second || complain("the key '" + name + "' stands twice in one object");
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& exception) {
    return complain(json_complaint(exception));
  }

 private:
  bool open() {
    keys_.emplace_back();
    return keys_.size() <= deepest || complain("values are nested more than 64 deep");
  }
  bool close() {
    keys_.pop_back();
    return true;
  }
  bool complain(std::string text) {
    problem = std::move(text);
    return false;
  }

  std::vector<std::set<std::string>> keys_;
};

template <class = OnDemand>
void append_python_json(std::string& text, const Json& value, const PythonJsonOptions& options, std::size_t depth) {
  const auto new_line = [&](std::size_t level) {
    if (options.indent) text += "\n" + std::string(options.indent * level, ' ');
  };
  const char* const separator = options.indent ? "," : ", ";
  if (value.is_object()) {
    std::vector<std::pair<std::string_view, const Json*>> members;
    for (const auto& [name, member] : value.items()) members.emplace_back(name, &member);
    if (options.sort_keys)
      std::sort(members.begin(), members.end(),
                [](const auto& a, const auto& b) { return a.first < b.first; });
    text += "{";
    for (std::size_t i = 0; i < members.size(); ++i) {
      if (i) text += separator;
      new_line(depth + 1);
      text += json_quoted(members[i].first, true) + ": ";
      append_python_json(text, *members[i].second, options, depth + 1);
    }
    if (!members.empty()) new_line(depth);
    text += "}";
  } else if (value.is_array()) {
    text += "[";
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (i) text += separator;
      new_line(depth + 1);
      append_python_json(text, value[i], options, depth + 1);
    }
    if (!value.empty()) new_line(depth);
    text += "]";
  } else if (value.is_string()) {
    text += json_quoted(value.get_ref<const std::string&>(), true);
  } else if (value.is_number_float()) {
    text += python_float(value.get<double>());
  } else {
    text += value.dump();
  }
}
GRAFT_SHARED_FUNCTION(append_python_json<>)
}  // namespace detail

/// Reads a JSON text. `source` names it in errors.
/// @throws FileError for anything that is not one valid JSON value, with line and column; for keys that stand
/// twice in one object; for numbers that do not fit 64 bits.
template <class = OnDemand>
[[nodiscard]] Json parse_json(std::string_view text, const std::string& source) {
  detail::JsonCheck check;
  if (text.find('\0') != std::string_view::npos)
    check.problem = "it contains a zero byte";
  else
    nlohmann::json::sax_parse(text.begin(), text.end(), &check);
  if (!check.problem.empty())
    fail<FileError>("'" + source + "' is not valid JSON", check.problem,
                    "repair it, or save or download it again");
  return Json::parse(text.begin(), text.end(), nullptr, false);
}
GRAFT_SHARED_FUNCTION(parse_json<>)

/// A value as Python's `json.dumps` writes it: ASCII alone, floats in their shortest form.
[[nodiscard]] inline std::string python_json(const Json& value, const PythonJsonOptions& options = {}) {
  std::string text;
  detail::append_python_json(text, value, options, options.depth);
  return text;
}

}  // namespace graft
