#include <graft/serving/neighbours.hpp>

#include <doctest/doctest.h>

using graft::AdapterSelection;
using Order = std::vector<std::size_t>;

TEST_CASE("neighbours: equal selections stand together, in the order in which they came") {
  const AdapterSelection a({{1, 1}}), half({{1, 0.5}}), b({{2, 1}}), both({{1, 1}, {2, 1}}), none = graft::base_only(), active;
  CHECK(graft::neighbours(std::vector<AdapterSelection>{}) == Order{});
  CHECK(graft::neighbours(std::vector<AdapterSelection>{a, b, a, none, half, active, b, none, both, a, active}) ==
        Order{0, 2, 9, 1, 6, 3, 7, 4, 5, 10, 8});
}
