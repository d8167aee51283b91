#include <graft/injection/names.hpp>

#include <doctest/doctest.h>

using graft::Names;
using Strings = std::vector<std::string>;

TEST_CASE("names come as one, as a list or as a vector; nothing is not an empty vector") {
  CHECK(Names("a").list() == Strings{"a"});
  CHECK(Names(std::string("a")).list() == Strings{"a"});
  CHECK(Names({"b", "a"}).list() == Strings{"b", "a"});
  CHECK(Names(Strings{"b", "a"}).list() == Strings{"b", "a"});
  CHECK_FALSE(Names{}.is_given());
  CHECK(Names(Strings{}).is_given());
  CHECK(Names(Strings{}).list().empty());
}
