#include <graft/core/error.hpp>

#include <doctest/doctest.h>

TEST_CASE("errors: three parts in one text, and a code to switch on") {
  try {
    graft::fail<graft::TargetError>("no module", "names are paths", "see paths<M>");
    FAIL("fail returned");
  } catch (const graft::Error& error) {
    CHECK(error.code == graft::ErrorCode::target);
    CHECK(error.problem == "no module");
    CHECK(error.why == "names are paths");
    CHECK(error.fix == "see paths<M>");
    CHECK(std::string(error.what()) == "graft: no module\n  why: names are paths\n  fix: see paths<M>");
  }
  CHECK_THROWS_AS(graft::fail<graft::MergeError>("a", "", ""), std::runtime_error);
}
