#pragma once

#include <cstddef>
#include <string_view>

#include "version.hpp"

namespace graft {

/// A string literal as a template argument: `inject_adapter_in_model<"q_proj", "v_proj">(…)`.
template <std::size_t N>
struct fixed_string {
  char characters[N]{};

  consteval fixed_string(const char (&literal)[N]) {
    for (std::size_t i = 0; i < N; ++i) characters[i] = literal[i];
  }
  [[nodiscard]] constexpr std::string_view view() const { return {characters, N - 1}; }
  constexpr operator std::string_view() const { return view(); }
};

}  // namespace graft
