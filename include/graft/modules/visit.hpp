#pragma once

#include <concepts>
#include <cstddef>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "containers.hpp"
#include "describe.hpp"

namespace graft {

/// Where a walk is: the whole path, and the name under which the node stands in its parent, the path's end.
/// Both are valid during the call only.
struct Place {
  std::string_view path, name;
};

enum class ContainerKind { list, tuple, map };

/// A container that a walk enters.
struct Container {
  ContainerKind kind;
  std::size_t size;
  bool of_modules;  // false: of parameters only
};

namespace detail {
/// Walks a model and tells a handler of every node. Containers of the standard library are walked through;
/// an empty optional or pointer is skipped, and what a shared_ptr reached once is not reached again: a handler that has
/// `again` is told.
template <class Handler>
class Walker {
 public:
  explicit Walker(Handler& handler) : handler_(handler) {}

  template <class T>
  void root(T& model) {
    node(model, 0);
  }

  /// A child of the node where the walk is.
  template <class T>
  void operator()(std::string_view name, T& object) {
    if constexpr (holds_nodes<T>) {
      const std::size_t parent = path_.size();
      if (parent > 0) path_ += '.';
      const std::size_t begin = path_.size();
      path_ += name;
      node(object, begin);
      path_.resize(parent);
    }
  }

 private:
  struct OnlySites {
    Walker& walker;
    template <class T>
    void operator()(std::string_view name, T& object) {
      if constexpr (enable_site<std::remove_const_t<T>>) walker(name, object);
    }
  };

  template <class T>
  void node(T& object, std::size_t name_begin) {
    using U = std::remove_const_t<T>;
    if constexpr (!holds_nodes<U>)
      return;
    else if constexpr (enable_parameter<U>)
      handler_.parameter(place(name_begin), object);
    else if constexpr (Leaf<U> || Module<U>)
      module(object, name_begin);
    else if constexpr (PointerLike<U>)
      pointee(object, name_begin);
    else if constexpr (VariantLike<U>)
      alternative(object, name_begin);
    else if constexpr (TupleLike<U>)
      tuple(object, name_begin);
    else if constexpr (MapLike<U>)
      map(object, name_begin);
    else
      list(object, name_begin);
  }

  template <class T>
  void module(T& object, std::size_t name_begin) {
    using U = std::remove_const_t<T>;
    handler_.enter_module(place(name_begin), object);
    if constexpr (has_inner_sites<U>) for_each_member(object.base_layer(), OnlySites{*this});
    else if constexpr (Module<U> && !enable_site<U>) for_each_member(object, *this);
    handler_.leave_module(place(name_begin), object);
  }

  template <class T>
  void pointee(T& pointer, std::size_t name_begin) {
    if (!pointer) return;
    if constexpr (SharedLike<std::remove_const_t<T>>) {
      const auto [first, is_new] = seen_.try_emplace({pointer.get(), &identity<ElementOf<std::remove_const_t<T>>>}, path_);
      if (!is_new) {
        if constexpr (requires { handler_.again(place(name_begin), first->second); }) handler_.again(place(name_begin), first->second);
        return;
      }
    }
    if constexpr (std::is_const_v<T>)
      node(std::as_const(*pointer), name_begin);
    else
      node(*pointer, name_begin);
  }

  template <class T>
  void alternative(T& variant, std::size_t name_begin) {
    if (variant.valueless_by_exception()) return;
    std::visit([&](auto& value) { node(value, name_begin); }, variant);
  }

  template <class T>
  void tuple(T& tuple, std::size_t name_begin) {
    constexpr std::size_t size = std::tuple_size_v<std::remove_const_t<T>>;
    const Container container{ContainerKind::tuple, size, holds_modules<T>};
    handler_.enter_container(place(name_begin), container);
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      ((*this)(std::to_string(I), std::get<I>(tuple)), ...);
    }(std::make_index_sequence<size>{});
    handler_.leave_container(place(name_begin), container);
  }

  template <class T>
  void map(T& map, std::size_t name_begin) {
    const Container container{ContainerKind::map, std::size_t(map.size()), holds_modules<T>};
    handler_.enter_container(place(name_begin), container);
    for (auto& [key, value] : map) {
      if constexpr (std::integral<std::remove_cvref_t<decltype(key)>>)
        (*this)(std::to_string(key), value);
      else
        (*this)(std::string_view(key), value);
    }
    handler_.leave_container(place(name_begin), container);
  }

  template <class T>
  void list(T& list, std::size_t name_begin) {
    const Container container{ContainerKind::list, std::size_t(std::size(list)), holds_modules<T>};
    handler_.enter_container(place(name_begin), container);
    std::size_t index = 0;
    for (auto& element : list) (*this)(std::to_string(index++), element);
    handler_.leave_container(place(name_begin), container);
  }

  [[nodiscard]] Place place(std::size_t name_begin) const {
    const std::string_view path = path_;
    return {path, path.substr(name_begin)};
  }

  // An object and its first member share an address, so a type belongs to an identity.
  template <class T>
  static constexpr char identity = 0;

  Handler& handler_;
  std::string path_;
  std::map<std::pair<const void*, const char*>, std::string> seen_;  // to the first path
};

template <class F>
struct CallOnEveryNode {
  F& f;
  void enter_module(const Place& place, auto& module) { f(place.path, module); }
  void parameter(const Place& place, auto& parameter) { f(place.path, parameter); }
  static void leave_module(const Place&, const auto&) {}
  static void enter_container(const Place&, const Container&) {}
  static void leave_container(const Place&, const Container&) {}
};

/// `g(path, first)` is told of the paths at which shared pointers reach once more what is under `first`.
template <class F, class G>
struct CallOnSecondPathsToo : CallOnEveryNode<F> {
  G& g;
  void again(const Place& place, const std::string& first) { g(place.path, first); }
};
}  // namespace detail

/// Walks a model, its containers included, and calls, in the order in which torch prints:
///
///     handler.enter_module(const Place&, auto& module)       // a described class, a layer or a site
///     handler.leave_module(const Place&, auto& module)
///     handler.parameter(const Place&, auto& parameter)       // listed in a described class
///     handler.enter_container(const Place&, const Container&)
///     handler.leave_container(const Place&, const Container&)
///     handler.again(const Place&, const std::string& first)  // if it has one: shared pointers reached this under `first` before
///
/// A site is not entered: what is in it belongs to its adapters' state. The sites that its layer has among its members are
/// shown below it.
template <class M, class Handler>
void walk(M& model, Handler&& handler) {
  static_assert(detail::holds_nodes<M>,
                "graft: this type has no description: put GRAFT_MODULE(members...) in the class, "
                "or specialise graft::describe for it");
  if constexpr (detail::holds_nodes<M>) detail::Walker<std::remove_reference_t<Handler>>(handler).root(model);
}

/// Calls f(std::string_view path, auto& node) for the model itself, under "", and then for every described
/// class, layer, site and listed parameter below it, parents first. A node that shared pointers reach twice
/// is shown under its first path only, while state dicts name its tensors by every path, as torch does.
template <class M, class F>
void visit(M& model, F&& f) {
  walk(model, detail::CallOnEveryNode<std::remove_reference_t<F>>{f});
}

}  // namespace graft
