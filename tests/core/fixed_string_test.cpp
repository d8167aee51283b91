#include <graft/core/fixed_string.hpp>

#include <doctest/doctest.h>

namespace {
template <graft::fixed_string Text>
constexpr std::string_view text = Text.view();
}

TEST_CASE("fixed_string: a literal as a template argument") {
  static_assert(text<"q_proj"> == "q_proj" && text<"">.empty());
  CHECK(text<"a.b"> == std::string_view("a.b"));
}
