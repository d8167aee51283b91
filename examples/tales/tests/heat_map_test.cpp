#include "heat_map.hpp"

#include <doctest/doctest.h>

TEST_CASE("heat map: the least of a column is dark, the most is bright, names are escaped") {
  const std::string text = tales::svg({"a < b", {"one", "two"}, {"x & y"}, {{8}, {2.5}}});
  CHECK(text.find("a &lt; b") != text.npos);
  CHECK(text.find("x &amp; y") != text.npos);
  const auto bright = text.find("#f3f6e8"), dark = text.find("#1b4f72");
  REQUIRE(bright != text.npos);
  REQUIRE(dark != text.npos);
  CHECK(bright < text.find(">8.00<"));
  CHECK(text.find(">8.00<") < dark);
  CHECK(dark < text.find(">2.50<"));
}

TEST_CASE("heat map: one row has no bright end, and a folder that is not there is an error") {
  CHECK(tales::svg({"", {"one"}, {"x"}, {{3}}}).find("#1b4f72") != std::string::npos);
  CHECK_THROWS_AS(tales::write_svg("/nowhere/at/all.svg", {}), graft::FileError);
}
