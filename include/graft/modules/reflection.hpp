#pragma once

#include <array>
#include <cstddef>
#include <string_view>
#include <type_traits>
#include <utility>

#include "containers.hpp"
#include "describe.hpp"

namespace graft {

namespace detail {
// An aggregate's members are found out by what can initialise them. Nothing is ever bound to them, so an
// array, a base or a bit-field among them is no obstacle.
//
// The conversions are for lvalues: a site that takes any constructor argument prefers the argument itself, as
// an rvalue, so that the two do not compete. They are never called, but clang wants a body where the model
// has no linkage.
struct AnyValue {
  template <class T>
  operator T() const& {
    __builtin_unreachable();
  }
};
struct OnlyModules {
  template <class T>
    requires holds_modules<T>
  operator T() const& {
    __builtin_unreachable();
  }
};
/// Converts to nothing: what takes it takes everything, as std::any does, and says nothing about itself.
struct Nothing {};

struct AnyReference {
  template <class T>
  operator T&() const& {
    __builtin_unreachable();
  }
};

template <std::size_t>
using AnyValueAt = AnyValue;

template <class T, std::size_t... I>
constexpr bool initialised_by_any(std::index_sequence<I...>) {
  return requires { T{std::declval<AnyValueAt<I>>()...}; };
}
template <class T, std::size_t... I>
constexpr bool has_more_than(std::index_sequence<I...>) {
  return requires {
    T{std::declval<AnyValueAt<I>>()..., {}};
  } || requires {
    T{std::declval<AnyValueAt<I>>()..., std::declval<AnyReference>()};
  };
}
template <class T, class Probe, std::size_t... Before, std::size_t... After>
constexpr bool initialised_by(std::index_sequence<Before...>, std::index_sequence<After...>) {
  return requires {
    T{std::declval<AnyValueAt<Before>>()..., std::declval<Probe>(), std::declval<AnyValueAt<After>>()...};
  };
}

inline constexpr std::size_t most_members = 256, unknown_members = std::size_t(-1);

/// How many values an aggregate takes; each element of an array is one. Fewer values than members do only
/// where the other members have initialisers, so the count goes up, not down.
template <class T, std::size_t N = 0, bool found = false>
constexpr std::size_t count_members() {
  constexpr bool valid = initialised_by_any<T>(std::make_index_sequence<N>{});
  if constexpr (valid && N < most_members)
    return count_members<T, N + 1, true>();
  else if constexpr (!found && N < most_members)
    return count_members<T, N + 1>();
  else if constexpr (!found || has_more_than<T>(std::make_index_sequence<N - 1>{}))
    return unknown_members;
  else
    return N - 1;
}

template <class T, std::size_t members, std::size_t I>
constexpr bool is_module_member() {
  constexpr std::make_index_sequence<I> before;
  constexpr std::make_index_sequence<members - I - 1> after;
  return initialised_by<T, OnlyModules>(before, after) && !initialised_by<T, Nothing>(before, after);
}

/// How many of those values are, or hold, modules.
template <class T, std::size_t members>
constexpr std::size_t count_module_members() {
  return []<std::size_t... I>(std::index_sequence<I...>) {
    std::size_t count = 0;
    [[maybe_unused]] const int in_order[] = {0, (count += is_module_member<T, members, I>(), 0)...};
    return count;
  }(std::make_index_sequence<members>{});
}

struct ListedModules {
  std::size_t count = 0;
  bool distinct = true;
};

template <class Member>
constexpr std::size_t count_modules_in() {
  using Value = std::remove_all_extents_t<Member>;
  if constexpr (holds_modules<Value>)
    return sizeof(Member) / sizeof(Value);
  else
    return 0;
}

template <class Base, class... Members>
constexpr ListedModules count_listed(const char* text, MemberTypes<Base, Members...>) {
  ListedModules listed{std::is_void_v<Base> ? 0u : 1u};
  [[maybe_unused]] const int in_order[] = {0, (listed.count += count_modules_in<Members>(), 0)...};

  NameCursor names(text);
  std::array<std::string_view, sizeof...(Members)> seen{};
  for (std::size_t i = 0; i < seen.size(); ++i) {
    seen[i] = names.next();
    for (std::size_t j = 0; j < i; ++j) listed.distinct = listed.distinct && seen[j] != seen[i];
  }
  return listed;
}

template <class T>
constexpr bool lists_all() {
  static_assert(DescribedInside<T>, "graft: lists_all_modules checks a GRAFT_MODULE: this class has none");
  static_assert(
      !DescribedInside<T> || std::is_aggregate_v<T>,
      "graft: lists_all_modules looks into aggregates only: this class has a constructor, a virtual "
      "function, or a private member or base");
  if constexpr (DescribedInside<T> && std::is_aggregate_v<T>) {
    constexpr std::size_t members = count_members<T>();
    static_assert(
        members != unknown_members,
        "graft: lists_all_modules cannot look into this class: it has a reference among its members, or a "
        "member that takes no value, or more than 255 members");
    constexpr ListedModules listed = count_listed(access::names<T>(), MemberTypesOf<T>{});
    if constexpr (members == unknown_members)
      return true;  // reported above, once
    else
      return listed.distinct && listed.count == count_module_members<T, members>();
  } else {
    return true;  // reported above, once
  }
}
}  // namespace detail

/// For tests: whether the GRAFT_MODULE of an aggregate lists every member that is, or holds, a module. A
/// member that is a parameter is not asked for: a matrix may as well be scratch.
template <class U>
inline constexpr bool lists_all_modules = detail::lists_all<U>();

}  // namespace graft
