#include <doctest/doctest.h>

#include "compile_once/templates.hpp"

// These are defined in compile_once/instances.cpp alone: without GRAFT_INSTANTIATE there, the program would not link.
TEST_CASE("what one file instantiates, the others only name") {
  CHECK(compile_once::doubled(3) == 6);
  CHECK(compile_once::Tripled<double>{1.5}.value() == 4.5);
}

#define TEXT_OF(...) #__VA_ARGS__
#define EXPANDED(...) TEXT_OF(__VA_ARGS__)

TEST_CASE("a file that is told of extern templates compiles none of them") {
  CHECK(std::string_view(EXPANDED(GRAFT_SHARED_FUNCTION(f<int, 2>))) == "extern template decltype(f<int, 2>) f<int, 2>;");
  CHECK(std::string_view(EXPANDED(GRAFT_SHARED_CLASS(C<int, 2>))) == "extern template class C<int, 2>;");
}
