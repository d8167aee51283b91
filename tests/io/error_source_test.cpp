#include <graft/io/error_source.hpp>

#include <doctest/doctest.h>

#include <string>

TEST_CASE("an error keeps its type, code, reason and remedy, and says where it came from") {
  const auto check = [](auto type) {
    using E = decltype(type);
    try {
      (void)graft::detail::naming_source("'dir'", []() -> int { graft::fail<E>("problem", "why", "fix"); });
      FAIL("was accepted");
    } catch (const E& error) {
      CHECK(error.code == E("", "", "").code);
      CHECK(error.problem == "'dir': problem");
      CHECK(error.why == "why");
      CHECK(error.fix == "fix");
      CHECK(std::string(error.what()).find("'dir': problem") != std::string::npos);
    }
  };
  check(graft::ConfigError("", "", ""));
  check(graft::TargetError("", "", ""));
  check(graft::AdapterError("", "", ""));
  check(graft::MetaError("", "", ""));
  check(graft::ShapeError("", "", ""));
  check(graft::CacheError("", "", ""));
  check(graft::StateDictError("", "", ""));
  check(graft::FileError("", "", ""));
  check(graft::MergeError("", "", ""));
  check(graft::TrainingError("", "", ""));
  int value = 3;
  CHECK(&graft::detail::naming_source("x", [&]() -> int& { return value; }) == &value);
}
