#include <graft/core/version.hpp>

#include <string>

#include <doctest/doctest.h>

TEST_CASE("version: the text is made of the numbers") {
  CHECK(std::string(GRAFT_VERSION) == std::to_string(GRAFT_VERSION_MAJOR) + "." + std::to_string(GRAFT_VERSION_MINOR) + "." +
                                          std::to_string(GRAFT_VERSION_PATCH));
}
