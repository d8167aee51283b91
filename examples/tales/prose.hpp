#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace tales {

/// Text as it can be shown: runs of blanks and line ends become one blank; other control characters, which a
/// terminal would obey, and bytes that are no UTF-8 become '?'.
inline std::string printable(std::string_view text) {
  std::string shown;
  for (std::size_t at = 0; at < text.size();) {
    const auto byte = [&](std::size_t i) {
      return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
    };
    const unsigned lead = byte(0);
    std::size_t length = lead < 0x80 ? 1 : lead >= 0xc2 && lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    bool valid = lead < 0x80 || (lead >= 0xc2 && lead < 0xf5);
    for (std::size_t i = 1; i < length; ++i) valid = valid && (byte(i) & 0xc0u) == 0x80u;
    if (!valid) length = 1;
    const bool control = lead < 0x20 || lead == 0x7f || (lead == 0xc2 && byte(1) < 0xa0);
    if (lead == ' ' || lead == '\n' || lead == '\r' || lead == '\t') {
      if (!shown.ends_with(' ')) shown += ' ';
    } else if (!valid || control) {
      shown += '?';
    } else {
      shown += text.substr(at, length);
    }
    at += length;
  }
  return shown;
}

/// `text` broken at blanks into lines of at most `columns` characters, all but the first indented. A word
/// that is longer stands alone.
inline std::string wrapped(std::string_view text, std::size_t indent, std::size_t columns) {
  const auto width = [](std::string_view part) {
    return std::size_t(std::count_if(part.begin(), part.end(), [](char c) { return (c & 0xc0) != 0x80; }));
  };
  std::string all;
  std::size_t column = indent;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(' ', at + 1), text.size());
    std::string_view word = text.substr(at, end - at);  // with the blank before it
    if (column > indent && column + width(word) > columns) {
      all += '\n';
      all.append(indent, ' ');
      column = indent;
      word.remove_prefix(word.starts_with(' ') ? 1 : 0);
    }
    all += word;
    column += width(word);
    at = end;
  }
  return all;
}

}  // namespace tales
