#pragma once

#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <string_view>

#include "version.hpp"

namespace graft::detail {

/// A finite number as Python's `repr(float)` writes it: the shortest digits that read back the same, with a
/// fraction or an exponent always.
[[nodiscard]] inline std::string python_float(double value) {
  char scientific[40];
  const auto end = std::to_chars(scientific, scientific + sizeof scientific, value, std::chars_format::scientific);
  std::string_view text(scientific, std::size_t(end.ptr - scientific));
  std::string sign;
  if (text.front() == '-') {
    sign = "-";
    text.remove_prefix(1);
  }
  const std::size_t mark = text.find('e');
  std::string digits(text.substr(0, mark));
  if (digits.size() > 1) digits.erase(1, 1);
  int exponent = 0;
  const std::string_view power = text.substr(mark + (text[mark + 1] == '+' ? 2 : 1));
  std::from_chars(power.data(), power.data() + power.size(), exponent);

  const int count = int(digits.size());
  if (exponent < -4 || exponent >= 16) {
    std::string mantissa = digits.substr(0, 1);
    if (count > 1) mantissa += "." + digits.substr(1);
    const std::string size = std::to_string(std::abs(exponent));
    return sign + mantissa + (exponent < 0 ? "e-" : "e+") + (size.size() < 2 ? "0" : "") + size;
  }
  if (exponent < 0) return sign + "0." + std::string(std::size_t(-exponent - 1), '0') + digits;
  if (count <= exponent + 1) return sign + digits + std::string(std::size_t(exponent + 1 - count), '0') + ".0";
  return sign + digits.substr(0, std::size_t(exponent + 1)) + "." + digits.substr(std::size_t(exponent + 1));
}

}  // namespace graft::detail
