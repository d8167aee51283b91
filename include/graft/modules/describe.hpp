#pragma once

#include <cstddef>
#include <string_view>
#include <type_traits>
#include <utility>

#include "../core/version.hpp"

/// GRAFT_MODULE(a, b, c) in a class body, at any place and access, names the members that are modules,
/// layers, parameters or containers of these. At least 300 names; none is fine.
// The list is written once as text and once as function arguments, never taken apart by macros: there is no
// limit to its length, and a misspelt name is reported by itself.
#define GRAFT_MODULE(...)                                             \
  friend struct ::graft::access;                                      \
  static constexpr const char* graft_names() { return #__VA_ARGS__; } \
  template <class GraftVisitor>                                       \
  constexpr auto graft_members(GraftVisitor&& graft_visitor) {        \
    return graft_visitor.members(this __VA_OPT__(, ) __VA_ARGS__);    \
  }

/// GRAFT_MODULE_FROM(Base, d, e) in a class derived from a described `Base`: the members of `Base`, then d
/// and e.
#define GRAFT_MODULE_FROM(Base, ...)                                                              \
  friend struct ::graft::access;                                                                  \
  static constexpr const char* graft_names() { return #__VA_ARGS__; }                             \
  template <class GraftVisitor>                                                                   \
  constexpr auto graft_members(GraftVisitor&& graft_visitor) {                                    \
    return graft_visitor.members_from(static_cast<Base*>(this), this __VA_OPT__(, ) __VA_ARGS__); \
  }

namespace graft {

/// Describes a class that cannot be edited:
///
///     template <> struct graft::describe<vendor::Block> {
///       template <class V> static constexpr void members(V& v) { v("fc1", &vendor::Block::fc1); }
///     };
template <class T>
struct describe;

/// What graft must know of a layer: specialised with kind, scalar and sizes; the ready-made layers have
/// theirs.
template <class T>
struct layer_traits {};

/// True for types whose objects are parameters where a module lists them.
template <class T>
inline constexpr bool enable_parameter = false;

/// True for types that are a layer with room for adapters.
template <class T>
inline constexpr bool enable_site = false;

/// True for sites whose layer has sites among its members, which a walk shows after it.
template <class T>
inline constexpr bool has_inner_sites = false;

/// The friend through which graft reads a GRAFT_MODULE that stands in a private part.
struct access {
  template <class T>
  static constexpr bool described = requires { T::graft_names(); };
  template <class T>
  static constexpr const char* names() {
    return T::graft_names();
  }
  template <class T, class Visitor>
  static constexpr auto members(T& object, Visitor&& visitor) {
    return object.graft_members(visitor);
  }
};

namespace detail {
template <class T>
concept DescribedOutside = requires { sizeof(describe<T>); };
template <class T>
concept DescribedInside = std::is_class_v<T> && access::described<T>;
// Not a concept: where it is asserted, compilers would explain its parts at length.
template <class T>
inline constexpr bool has_layer_traits = requires { layer_traits<T>::kind; };
}  // namespace detail

/// A class with a GRAFT_MODULE or a `graft::describe`.
template <class T>
concept Module = detail::DescribedOutside<T> || detail::DescribedInside<T>;

/// A parameter, a site, or a layer with `layer_traits`.
template <class T>
concept Leaf = enable_parameter<T> || enable_site<T> || detail::has_layer_traits<T>;

template <class T, class F>
constexpr void for_each_member(T& object, F&& f);
template <class T, class F>
constexpr void for_each_member_type(F&& f);

namespace detail {
/// Takes the names one by one from the text of a macro's arguments, "a, b, c".
class NameCursor {
 public:
  constexpr explicit NameCursor(const char* names) : rest_(names) {}
  constexpr std::string_view next() {
    while (*rest_ == ',' || *rest_ == ' ') ++rest_;
    const char* begin = rest_;
    while (*rest_ != ',' && *rest_ != ' ' && *rest_ != '\0') ++rest_;
    return {begin, std::size_t(rest_ - begin)};
  }

 private:
  const char* rest_;
};

template <class T, class Owner>
constexpr void check_owner() {
  static_assert(std::is_same_v<T, Owner>,
                "graft: this class only inherits its base's GRAFT_MODULE. "
                "Add GRAFT_MODULE_FROM(Base, new members...) to it");
}

/// What a GRAFT_MODULE lists, as types. `Base` is void, or the class that GRAFT_MODULE_FROM names.
template <class Base, class... Members>
struct MemberTypes {};

template <class T>
struct TypeCollector {
  template <class Owner, class... Members>
  constexpr auto members(Owner*, Members&...) {
    check_owner<T, Owner>();
    return MemberTypes<void, Members...>{};
  }
  template <class Base, class Owner, class... Members>
  constexpr auto members_from(Base*, Owner*, Members&...) {
    check_owner<T, Owner>();
    return MemberTypes<Base, Members...>{};
  }
};

template <class T>
using MemberTypesOf = decltype(access::members(std::declval<T&>(), TypeCollector<T>{}));
/// False only where a list is ill-formed, which the compiler has reported by then: asking spares what would
/// follow.
template <class T>
concept HasMemberTypes = requires { typename MemberTypesOf<T>; };

/// Hands members to f, const where their object is: apart from ObjectVisitor, so that it is compiled once per
/// member type and not once per class.
template <bool is_const, class F>
struct MemberCaller {
  F& f;
  template <class M>
  constexpr void call(std::string_view name, M& member) {
    if constexpr (is_const)
      f(name, static_cast<const M&>(member));
    else
      f(name, member);
  }
};

// Expansions into an array, not folds: clang limits a fold to 256 operands.
template <class Object, class F>
struct ObjectVisitor : MemberCaller<std::is_const_v<Object>, F> {
  Object& object;

  constexpr ObjectVisitor(Object& described, F& function)
      : MemberCaller<std::is_const_v<Object>, F>{function}, object(described) {}

  template <class Owner, class... Members>
  constexpr void members(Owner*, Members&... list) {
    check_owner<std::remove_const_t<Object>, Owner>();
    [[maybe_unused]] NameCursor names(access::names<Owner>());
    [[maybe_unused]] const int in_order[] = {0, (this->call(names.next(), list), 0)...};
  }
  template <class Base, class Owner, class... Members>
  constexpr void members_from(Base* base, Owner* owner, Members&... list) {
    using ConstAsObject = std::conditional_t<std::is_const_v<Object>, const Base, Base>;
    for_each_member<ConstAsObject>(*base, this->f);
    members(owner, list...);
  }
  template <class C, class M>
  constexpr void operator()(std::string_view name, M C::*member) {
    this->f(name, object.*member);
  }
};

template <class F>
struct TypeVisitor {
  F& f;

  template <class Base, class... Members>
  constexpr void list([[maybe_unused]] const char* text, MemberTypes<Base, Members...>) {
    if constexpr (!std::is_void_v<Base>) for_each_member_type<Base>(f);
    [[maybe_unused]] NameCursor names(text);
    [[maybe_unused]] const int in_order[] = {0, (f.template operator()<Members>(names.next()), 0)...};
  }
  template <class C, class M>
  constexpr void operator()(std::string_view name, M C::*) {
    f.template operator()<M>(name);
  }
};
}  // namespace detail

/// Calls f(name, member) for every member that the description of `object` lists, in order.
template <class T, class F>
constexpr void for_each_member(T& object, F&& f) {
  using Described = std::remove_const_t<T>;
  detail::ObjectVisitor<T, std::remove_reference_t<F>> visitor(object, f);
  if constexpr (detail::DescribedOutside<Described>)
    describe<Described>::members(visitor);
  else
    access::members(const_cast<Described&>(object), visitor);  // the visitor hands out const members again
}

/// Calls f.template operator()<Member>(name) for every member that the description of T lists, without an
/// object.
template <class T, class F>
constexpr void for_each_member_type(F&& f) {
  detail::TypeVisitor<std::remove_reference_t<F>> visitor{f};
  if constexpr (detail::DescribedOutside<T>) {
    describe<T>::members(visitor);
  } else if constexpr (detail::HasMemberTypes<T>) {
    visitor.list(access::names<T>(), detail::MemberTypesOf<T>{});
  }
}

}  // namespace graft
