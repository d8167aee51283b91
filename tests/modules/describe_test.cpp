#include <doctest/doctest.h>

#include <graft/modules/describe.hpp>
#include <string>
#include <vector>

#include "toys.hpp"

namespace {

using toys::Linear;
using toys::Parameter;
using toys::Site;

// The list precedes the members, and member templates surround it.
class Private {
  template <class T>
  T before(T x) {
    return x;
  }
  GRAFT_MODULE(first, second)
  Linear<> first;
  Site<> second;
  template <class T>
  T after(T x) {
    return x;
  }
};

struct Empty {
  GRAFT_MODULE()
};

template <class L>
struct Pattern {
  L layer;
  GRAFT_MODULE(layer)
};

struct Long {
  Linear<> a;
  GRAFT_MODULE(a,  // a comment and a line break may stand in the list
               b, c)
  Linear<> b, c;
};

struct Base {
  Linear<> a;
  GRAFT_MODULE(a)
};
struct Derived : Base {
  Linear<> b;
  GRAFT_MODULE_FROM(Base, b)
};
class PrivatelyDerived : Derived {
  Linear<> c;
  GRAFT_MODULE_FROM(Derived, c)
};
struct Renamed : Derived {
  GRAFT_MODULE_FROM(Derived)
};
template <class B>
struct Mixin : B {
  Linear<> d;
  GRAFT_MODULE_FROM(B, d)
};

namespace vendor {
struct Block {
  Linear<> fc1, fc2;
  int id = 0;
};
}  // namespace vendor

struct FromVendor : vendor::Block {
  Linear<> fc3;
  GRAFT_MODULE_FROM(vendor::Block, fc3)
};

struct Undescribed {
  Linear<> a;
};

}  // namespace

template <>
struct graft::describe<vendor::Block> {
  template <class V>
  static constexpr void members(V& v) {
    v("fc1", &vendor::Block::fc1);
    v("fc2", &vendor::Block::fc2);
  }
};

namespace {

template <class T>
std::string names_of(T& object) {
  std::string names;
  graft::for_each_member(object, [&](std::string_view name, auto& member) {
    static_assert(std::is_const_v<T> == std::is_const_v<std::remove_reference_t<decltype(member)>>);
    names += std::string(name) + ' ';
  });
  return names;
}

template <class T>
constexpr std::size_t types_of(std::string_view (&names)[8]) {
  std::size_t count = 0;
  graft::for_each_member_type<T>([&]<class Member>(std::string_view name) {
    static_assert(graft::Leaf<Member>);
    names[count++] = name;
  });
  return count;
}

template <class T>
std::string type_names_of() {
  std::string_view names[8];
  std::string all;
  const std::size_t count = types_of<T>(names);
  for (std::size_t i = 0; i < count; ++i) all += std::string(names[i]) + ' ';
  return all;
}

template <class T>
void check(std::string_view expected) {
  T object;
  CHECK(names_of(object) == expected);
  CHECK(names_of<const T>(object) == expected);
  CHECK(type_names_of<T>() == expected);
}

}  // namespace

TEST_CASE("a description names its members in order, with and without an object") {
  check<Private>("first second ");
  check<Empty>("");
  check<Pattern<Site<>>>("layer ");
  check<Long>("a b c ");
  check<Linear<>>("weight bias ");
}

TEST_CASE("a derived class adds to its base") {
  check<Derived>("a b ");
  check<PrivatelyDerived>("a b c ");
  check<Renamed>("a b ");
  check<Mixin<Derived>>("a b d ");
}

TEST_CASE("a class that cannot be edited is described from outside") {
  check<vendor::Block>("fc1 fc2 ");
  check<FromVendor>("fc1 fc2 fc3 ");
}

TEST_CASE("members are handed out by reference") {
  Pattern<Linear<>> model;
  graft::for_each_member(model, [](std::string_view, auto& layer) { layer.weight.value = 7; });
  CHECK(model.layer.weight.value == 7);
}

TEST_CASE("concepts tell modules and leaves from other types") {
  static_assert(graft::Module<Private> && graft::Module<Empty> && graft::Module<vendor::Block>);
  static_assert(graft::Module<Linear<>> && !graft::Module<Undescribed> && !graft::Module<int>);
  static_assert(!graft::Module<std::vector<Private>>);
  static_assert(graft::Leaf<Parameter> && graft::Leaf<Site<>> && graft::Leaf<Linear<>> &&
                graft::Leaf<toys::Opaque>);
  static_assert(!graft::Leaf<Private> && !graft::Leaf<int>);
}

TEST_CASE("names can be taken at compile time") {
  constexpr bool right = [] {
    std::string_view names[8];
    return types_of<Derived>(names) == 2 && names[0] == "a" && names[1] == "b";
  }();
  static_assert(right);
}
