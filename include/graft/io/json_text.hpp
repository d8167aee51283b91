#pragma once

#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>

#include "../core/python_float.hpp"
#include "../core/utf8.hpp"

namespace graft::detail {

/// A JSON string literal. With `ascii_only`, as Python's json writes it: everything but printable ASCII is
/// escaped; otherwise as serde writes it: control characters alone. The text must be valid UTF-8.
[[nodiscard]] inline std::string json_quoted(std::string_view text, bool ascii_only) {
  const auto unit = [](unsigned value) {
    char escape[8];
    std::snprintf(escape, sizeof escape, "\\u%04x", value & 0xffffu);
    return std::string(escape);
  };
  std::string quoted = "\"";
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const char32_t point = next_code_point(text, at).value_or(U'\ufffd');
    if (at == begin) ++at;
    switch (point) {
      case '"':
        quoted += "\\\"";
        break;
      case '\\':
        quoted += "\\\\";
        break;
      case '\b':
        quoted += "\\b";
        break;
      case '\f':
        quoted += "\\f";
        break;
      case '\n':
        quoted += "\\n";
        break;
      case '\r':
        quoted += "\\r";
        break;
      case '\t':
        quoted += "\\t";
        break;
      default:
        if (point >= 0x20 && (point < 0x7f || !ascii_only))
          quoted.append(text.substr(begin, at - begin));
        else if (point < 0x10000)
          quoted += unit(unsigned(point));
        else
          quoted += unit(0xd7c0u + unsigned(point >> 10)) + unit(0xdc00u + (unsigned(point) & 0x3ffu));
    }
  }
  return quoted + '"';
}

}  // namespace graft::detail
