#include <graft/core/on_demand.hpp>

#include <doctest/doctest.h>

namespace {

template <class T>
int broken() {
  return T::there_is_no_such_member;
}

template <class = graft::OnDemand>
int never_called() {
  return broken<int>();
}
template <class = graft::OnDemand>
int seven() {
  return 7;
}
template <class = graft::OnDemand>
struct Counter {
  explicit Counter(int begin) : count(begin) {}
  int never_called() { return broken<int>(); }
  int count;
};

}  // namespace

TEST_CASE("what nobody calls is not compiled, and the rest is used as if it were no template") {
  CHECK(seven() == 7);
  const Counter counter(3);
  CHECK(counter.count == 3);
}
