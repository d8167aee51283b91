#include <doctest/doctest.h>

#include <any>
#include <concepts>
#include <functional>
#include <graft/modules/reflection.hpp>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "many_members.hpp"
#include "toys.hpp"

namespace {

using toys::Parameter;

struct Linear {
  Linear(int, int) {}
  Linear(Linear&&) = default;
  Parameter weight;
  GRAFT_MODULE(weight)
};
struct Immovable {
  Immovable(int) {}
  Immovable(const Immovable&) = delete;
  GRAFT_MODULE()
};
/// Takes whatever its layer takes, as graft's own sites do.
template <class L>
struct GreedySite {
  template <class... Arguments>
    requires std::constructible_from<L, Arguments...>
  GreedySite(Arguments&&... arguments) : layer(static_cast<Arguments&&>(arguments)...) {}
  L layer;
};
struct Config {
  int width;
  int kernel[3];
  std::string name;
};

}  // namespace

template <class L>
inline constexpr bool graft::enable_site<GreedySite<L>> = true;

namespace {

// Modules without and with initialisers, among arrays, bit-fields and types that take anything.
#define MEMBERS                         \
  GreedySite<Linear> site{1, 2};        \
  int pad[3];                           \
  int bits : 3;                         \
  Linear linear;                        \
  std::vector<GreedySite<Linear>> list; \
  Config config;                        \
  std::any anything;                    \
  std::function<void()> callback;       \
  std::mutex mutex;                     \
  std::optional<Linear> maybe;          \
  std::unique_ptr<Linear> owned;        \
  Linear* seen;                         \
  std::variant<int, Linear> either;     \
  std::map<std::string, Linear> map;    \
  Linear pair[2];                       \
  Immovable fixed{1};                   \
  Parameter parameter;                  \
  std::vector<float> cache;

struct Complete {
  MEMBERS
  GRAFT_MODULE(site, linear, list, maybe, owned, either, map, pair, fixed, parameter)
};
struct WithoutParameter {
  MEMBERS
  GRAFT_MODULE(site, linear, list, maybe, owned, either, map, pair, fixed)
};
struct WithMoreThanModules {
  MEMBERS
  GRAFT_MODULE(site, pad, linear, list, config, maybe, owned, either, map, pair, fixed, parameter, cache)
};
struct WithoutSite {
  MEMBERS
  GRAFT_MODULE(linear, list, maybe, owned, either, map, pair, fixed, parameter)
};
struct WithoutLinear {
  MEMBERS
  GRAFT_MODULE(site, list, maybe, owned, either, map, pair, fixed, parameter)
};
struct WithoutList {
  MEMBERS
  GRAFT_MODULE(site, linear, maybe, owned, either, map, pair, fixed, parameter)
};
struct WithoutMaybe {
  MEMBERS
  GRAFT_MODULE(site, linear, list, owned, either, map, pair, fixed, parameter)
};
struct WithoutOwned {
  MEMBERS
  GRAFT_MODULE(site, linear, list, maybe, either, map, pair, fixed, parameter)
};
struct WithoutEither {
  MEMBERS
  GRAFT_MODULE(site, linear, list, maybe, owned, map, pair, fixed, parameter)
};
struct WithoutMap {
  MEMBERS
  GRAFT_MODULE(site, linear, list, maybe, owned, either, pair, fixed, parameter)
};
struct WithoutPair {
  MEMBERS
  GRAFT_MODULE(site, linear, list, maybe, owned, either, map, fixed, parameter)
};
struct WithoutFixed {
  MEMBERS
  GRAFT_MODULE(site, linear, list, maybe, owned, either, map, pair, parameter)
};
struct OneTwice {
  MEMBERS
  GRAFT_MODULE(site, linear, linear, maybe, owned, either, map, pair, fixed, parameter)
};
#undef MEMBERS

struct Single {
  Linear a;
  GRAFT_MODULE(a)
};
struct SingleForgotten {
  Linear a;
  GRAFT_MODULE()
};
struct Nested {
  Single a;
  GRAFT_MODULE(a)
};
struct Empty {
  GRAFT_MODULE()
};
struct Derived : Single {
  Linear b;
  GRAFT_MODULE_FROM(Single, b)
};
struct DerivedForgotten : Single {
  Linear b;
  GRAFT_MODULE_FROM(Single)
};
struct ManyForgotten : ManyMembers {
  GRAFT_MODULE()
};

}  // namespace

TEST_CASE("a complete list is seen as complete") {
  static_assert(graft::lists_all_modules<Complete>);
  static_assert(graft::lists_all_modules<WithoutParameter>);
  static_assert(graft::lists_all_modules<WithMoreThanModules>);
  static_assert(graft::lists_all_modules<Single> && graft::lists_all_modules<Nested> &&
                graft::lists_all_modules<Empty>);
}

TEST_CASE("every kind of member can be forgotten") {
  static_assert(!graft::lists_all_modules<WithoutSite>);
  static_assert(!graft::lists_all_modules<WithoutLinear>);
  static_assert(!graft::lists_all_modules<WithoutList>);
  static_assert(!graft::lists_all_modules<WithoutMaybe>);
  static_assert(!graft::lists_all_modules<WithoutOwned>);
  static_assert(!graft::lists_all_modules<WithoutEither>);
  static_assert(!graft::lists_all_modules<WithoutMap>);
  static_assert(!graft::lists_all_modules<WithoutPair>);
  static_assert(!graft::lists_all_modules<WithoutFixed>);
  static_assert(!graft::lists_all_modules<OneTwice>);
  static_assert(!graft::lists_all_modules<SingleForgotten>);
}

TEST_CASE("a described base counts as one member") {
  static_assert(graft::lists_all_modules<Derived>);
  static_assert(!graft::lists_all_modules<DerivedForgotten>);
  static_assert(!graft::lists_all_modules<ManyForgotten>);
}

namespace {
struct Sixty {
  Linear a[20], b[20];
  std::array<Linear, 20> c;
  Linear d00, d01, d02, d03, d04, d05, d06, d07, d08, d09, d10, d11, d12, d13, d14, d15, d16, d17, d18, d19;
  Linear last;
  GRAFT_MODULE(a, b, c, d00, d01, d02, d03, d04, d05, d06, d07, d08, d09, d10, d11, d12, d13, d14, d15, d16,
               d17, d18, d19)
};
}  // namespace

TEST_CASE("the last of 62 values is looked at") { static_assert(!graft::lists_all_modules<Sixty>); }
