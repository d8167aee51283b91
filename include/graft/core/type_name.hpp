#pragma once

#include <cstddef>
#include <string_view>

#include "version.hpp"

namespace graft {

namespace detail {
/// The last name of a C++ type's spelling, without namespaces, enclosing classes and template arguments.
[[nodiscard]] constexpr std::string_view bare_name(std::string_view spelling) {
  std::size_t begin = 0, end = spelling.size(), depth = 0;
  for (std::size_t i = 0; i < spelling.size(); ++i) {
    const char character = spelling[i];
    if (character == '<' || character == '(' || character == '{') {
      if (depth++ == 0) end = i;
    } else if (character == '>' || character == ')' || character == '}') {
      --depth;
    } else if (depth == 0 && character == ':') {
      begin = i + 1;
      end = spelling.size();
    }
  }
  return spelling.substr(begin, end - begin);
}

template <class T>
[[nodiscard]] consteval std::string_view spelling_of() {
  // GCC: "... [with T = graft::Linear<float>; std::string_view = ...]", clang: "... [T =
  // graft::Linear<float>]"
  const std::string_view function = __PRETTY_FUNCTION__;
  const std::size_t begin = function.find("T = ") + 4;
  const std::size_t end = function.find("; std::string_view", begin);
  return function.substr(begin, (end == function.npos ? function.size() - 1 : end) - begin);
}
}  // namespace detail

/// The bare name of a class, as Python prints it: "Linear" for `graft::Linear<float>`.
template <class T>
[[nodiscard]] consteval std::string_view type_name() {
  return detail::bare_name(detail::spelling_of<T>());
}

}  // namespace graft
