#include <doctest/doctest.h>

#include <graft/core/type_name.hpp>
#include <string>
#include <vector>

namespace outer::inner {
struct Plain {};
template <class... T>
struct Pattern {
  struct Nested {};
};
}  // namespace outer::inner

namespace {
struct Hidden {};
}  // namespace

TEST_CASE("a type's name has no namespace, class or template arguments") {
  static_assert(graft::type_name<outer::inner::Plain>() == "Plain");
  static_assert(graft::type_name<outer::inner::Pattern<>>() == "Pattern");
  static_assert(graft::type_name<outer::inner::Pattern<std::vector<std::string>, int[3]>>() == "Pattern");
  static_assert(graft::type_name<outer::inner::Pattern<outer::inner::Plain>::Nested>() == "Nested");
  static_assert(graft::type_name<Hidden>() == "Hidden");
  static_assert(graft::type_name<int>() == "int");
}
