#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "describe.hpp"

namespace graft::detail {

template <class T, template <class...> class Template>
inline constexpr bool is_a = false;
template <template <class...> class Template, class... Arguments>
inline constexpr bool is_a<Template<Arguments...>, Template> = true;

template <class T>
concept SharedLike = is_a<T, std::shared_ptr>;
template <class T>
concept PointerLike = SharedLike<T> || is_a<T, std::unique_ptr> || is_a<T, std::optional>;
template <class T>
concept VariantLike = is_a<T, std::variant>;
template <class T>
concept TupleLike = is_a<T, std::tuple> || is_a<T, std::pair>;
template <class T>
concept AnyMap = requires(T& map) {
  typename T::mapped_type;
  map.begin()->first;
  map.size();
};
template <class T>
concept MapLike = AnyMap<T> && (std::convertible_to<typename T::key_type, std::string_view> ||
                                std::integral<typename T::key_type>);
template <class T>
concept ListLike = std::is_array_v<T> || (!AnyMap<T> && requires(T& list) {
                     typename T::value_type;
                     list.begin() != list.end();
                     list.size();
                   } && !std::same_as<T, typename T::value_type>);

template <class T>
struct Element {};
template <PointerLike T>
struct Element<T> {
  using type = std::remove_reference_t<decltype(*std::declval<T&>())>;
};
template <MapLike T>
struct Element<T> {
  using type = typename T::mapped_type;
};
template <ListLike T>
struct Element<T> {
  using type = std::remove_reference_t<decltype(*std::begin(std::declval<T&>()))>;
};
/// What a pointer points at, or a list or map holds.
template <class T>
using ElementOf = std::remove_cv_t<typename Element<T>::type>;

enum class Sought { modules, modules_and_parameters };

template <class T, Sought sought>
constexpr bool holds();

template <Sought sought, template <class...> class Template, class... Alternatives>
constexpr bool any_holds(std::type_identity<Template<Alternatives...>>) {
  return (holds<Alternatives, sought>() || ...);
}

template <class T, Sought sought>
constexpr bool holds() {
  if constexpr (std::is_const_v<T> || std::is_volatile_v<T>)
    return holds<std::remove_cv_t<T>, sought>();
  else if constexpr (enable_parameter<T>)
    return sought == Sought::modules_and_parameters;
  else if constexpr (Leaf<T> || Module<T>)
    return true;
  else if constexpr (PointerLike<T>)
    return holds<ElementOf<T>, sought>();
  else if constexpr (VariantLike<T> || TupleLike<T>)
    return any_holds<sought>(std::type_identity<T>{});
  else if constexpr (MapLike<T> || ListLike<T>)
    return holds<ElementOf<T>, sought>();
  else
    return false;
}

/// Whether a type is a module, a layer or a site, or a container of such.
template <class T>
inline constexpr bool holds_modules = holds<T, Sought::modules>();
/// Whether a type is anything that `visit` shows, or a container of such. Decides whether a member is looked
/// at: a std::vector<float> is not.
template <class T>
inline constexpr bool holds_nodes = holds<T, Sought::modules_and_parameters>();

}  // namespace graft::detail
