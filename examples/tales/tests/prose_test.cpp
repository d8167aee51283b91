#include "../prose.hpp"

#include <doctest/doctest.h>

TEST_CASE("tales: what a terminal would obey, or could not show, is not printed") {
  CHECK(tales::printable("a\n\n b\tc \r\n") == "a b c ");
  CHECK(tales::printable("\x1b[31mred\x7f") == "?[31mred?");
  CHECK(tales::printable("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x99\x82") ==
        "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x99\x82");
  CHECK(tales::printable("\xc2\x9b"
                         "31m") == "?31m");  // CSI in one character
  CHECK(tales::printable("\xc3") == "?");    // cut off
  CHECK(tales::printable("\xe2\x82 x") == "?? x");
  CHECK(tales::printable("\xff\x80z") == "??z");
  CHECK(tales::printable("\xc0\x8a") == "??");  // a line end that is too long
}

TEST_CASE("tales: lines break at blanks and are indented") {
  CHECK(tales::wrapped("one two three", 0, 80) == "one two three");
  CHECK(tales::wrapped("one two three", 0, 7) == "one two\nthree");
  CHECK(tales::wrapped("one two three", 2, 9) == "one two\n  three");
  CHECK(tales::wrapped("one two three", 2, 8) == "one\n  two\n  three");
  CHECK(tales::wrapped("incomprehensible is long", 2, 6) == "incomprehensible\n  is\n  long");
  CHECK(tales::wrapped("caf\xc3\xa9 caf\xc3\xa9", 0, 9) == "caf\xc3\xa9 caf\xc3\xa9");
  CHECK(tales::wrapped("", 3, 9).empty());
}
