#include <doctest/doctest.h>

#include <deque>
#include <graft/modules/containers.hpp>
#include <list>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "toys.hpp"

using graft::detail::holds_modules;
using graft::detail::holds_nodes;
using toys::Linear;
using toys::Parameter;

namespace {
struct Undescribed {
  Linear<> layer;
};
}  // namespace

TEST_CASE("containers of modules hold modules, at any depth") {
  static_assert(holds_modules<Linear<>> && holds_modules<const Linear<>> && holds_modules<toys::Opaque>);
  static_assert(holds_modules<std::vector<Linear<>>> && holds_modules<std::array<Linear<>, 2>>);
  static_assert(holds_modules<std::deque<Linear<>>> && holds_modules<std::list<Linear<>>> &&
                holds_modules<Linear<>[2]>);
  static_assert(holds_modules<std::map<std::string, Linear<>>> &&
                holds_modules<std::unordered_map<int, Linear<>>>);
  static_assert(holds_modules<std::optional<Linear<>>> && holds_modules<std::unique_ptr<Linear<>>>);
  static_assert(holds_modules<std::shared_ptr<const Linear<>>>);
  static_assert(holds_modules<std::tuple<int, Linear<>>> && holds_modules<std::pair<Linear<>, int>>);
  static_assert(holds_modules<std::variant<std::monostate, Linear<>>>);
  static_assert(holds_modules<std::vector<std::map<std::string, std::optional<std::unique_ptr<Linear<>>>>>>);
}

TEST_CASE("what holds none is not looked at") {
  static_assert(!holds_nodes<int> && !holds_nodes<std::string> && !holds_nodes<std::vector<float>>);
  static_assert(!holds_nodes<Undescribed> && !holds_nodes<std::vector<Undescribed>>);
  static_assert(!holds_nodes<Linear<>*> && !holds_nodes<std::vector<Linear<>*>>);
  static_assert(!holds_nodes<std::map<Undescribed, Linear<>>>);  // a key that cannot stand in a path
  static_assert(!holds_nodes<std::tuple<>> && !holds_nodes<std::variant<int, float>>);
}

TEST_CASE("parameters are nodes and no modules") {
  static_assert(holds_nodes<Parameter> && !holds_modules<Parameter>);
  static_assert(holds_nodes<std::vector<Parameter>> && !holds_modules<std::vector<Parameter>>);
  static_assert(holds_nodes<std::tuple<Parameter, int>> && !holds_modules<std::optional<Parameter>>);
}
