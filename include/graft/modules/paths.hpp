#pragma once

#include <array>
#include <cstddef>
#include <string_view>
#include <type_traits>
#include <utility>

#include "../core/fixed_string.hpp"
#include "../core/type_name.hpp"
#include "containers.hpp"
#include "describe.hpp"

namespace graft {

namespace detail {
struct TypeNode;

/// Receives the children of a type, one by one.
struct ChildSink {
  virtual constexpr void child(std::string_view name, const TypeNode& node) = 0;

 protected:
  ~ChildSink() = default;
};

/// A type in the graph of types that a model is made of. The graph is data, so that what is asked of it is
/// ordinary code, compiled once, and not templates that every model type instantiates.
struct TypeNode {
  enum class Children {
    named,    // a described class, a tuple
    indexed,  // a list: the child's name is an index
    keyed,    // a map: the child's name is any key
    same      // a pointer, a variant: children stand under the name of the node itself
  };
  Children children;
  bool is_module, is_site;
  std::string_view type;  // its identity: with sanitizers, GCC does not compare addresses at compile time
  void (*each_child)(ChildSink&);

  [[nodiscard]] constexpr bool allows(std::string_view child_name, std::string_view asked) const {
    if (children == Children::named) return child_name == asked;
    if (asked.empty()) return false;
    for (const char digit : asked)
      if (children == Children::indexed && asked != "*" && (digit < '0' || digit > '9')) return false;
    return true;
  }
};

template <class T>
constexpr void each_child(ChildSink& sink);

template <class T>
constexpr TypeNode::Children children_of() {
  if constexpr (Leaf<T> || Module<T> || TupleLike<T>)
    return TypeNode::Children::named;
  else if constexpr (PointerLike<T> || VariantLike<T>)
    return TypeNode::Children::same;
  else if constexpr (MapLike<T>)
    return TypeNode::Children::keyed;
  else
    return TypeNode::Children::indexed;
}

template <class T>
inline constexpr TypeNode type_node{children_of<T>(), Leaf<T> || Module<T>, enable_site<T>, spelling_of<T>(),
                                    &each_child<T>};

template <class T>
constexpr void add_child(ChildSink& sink, std::string_view name) {
  if constexpr (holds_modules<T>) sink.child(name, type_node<std::remove_cv_t<T>>);
}

template <std::size_t I>
inline constexpr auto index_digits = [] {
  std::array<char, 20> digits{};
  std::size_t begin = digits.size(), rest = I;
  do digits[--begin] = char('0' + rest % 10);
  while ((rest /= 10) > 0);
  return std::pair{digits, begin};
}();
template <std::size_t I>
inline constexpr std::string_view index_name{index_digits<I>.first.data() + index_digits<I>.second,
                                             index_digits<I>.first.size() - index_digits<I>.second};

template <class T>
constexpr void each_child([[maybe_unused]] ChildSink& sink) {
  if constexpr (has_inner_sites<T>) {
    for_each_member_type<typename T::held_type>([&]<class Member>(std::string_view name) {
      if constexpr (enable_site<Member>) add_child<Member>(sink, name);
    });
  } else if constexpr (enable_site<T>) {
    return;
  } else if constexpr (Module<T>) {
    for_each_member_type<T>([&]<class Member>(std::string_view name) { add_child<Member>(sink, name); });
  } else if constexpr (Leaf<T>) {
    return;
  } else if constexpr (VariantLike<T>) {
    [&]<class... A>(std::type_identity<std::variant<A...>>) {
      (add_child<A>(sink, ""), ...);
    }(std::type_identity<T>{});
  } else if constexpr (TupleLike<T>) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (add_child<std::tuple_element_t<I, T>>(sink, index_name<I>), ...);
    }(std::make_index_sequence<std::tuple_size_v<T>>{});
  } else {
    add_child<ElementOf<T>>(sink, PointerLike<T> ? "" : "*");
  }
}

/// A node on the way from the model to a type, linked towards the model: a path without a buffer.
struct TypePlace {
  const TypePlace* parent;
  std::string_view name;  // empty where the child stands under its parent's name
  const TypeNode* node;

  [[nodiscard]] constexpr bool is_inside_itself() const {
    for (const TypePlace* above = parent; above != nullptr; above = above->parent)
      if (above->node->type == node->type) return true;
    return false;
  }
  [[nodiscard]] constexpr std::size_t path_length() const {
    if (parent == nullptr) return 0;
    const std::size_t above = parent->path_length();
    return name.empty() ? above : above + (above > 0) + name.size();
  }
  /// Writes the path so that it ends at `end`; returns where it begins.
  constexpr char* write_path(char* end) const {
    for (const TypePlace* place = this; place->parent != nullptr; place = place->parent) {
      if (place->name.empty()) continue;
      for (std::size_t i = place->name.size(); i-- > 0;) *--end = place->name[i];
      if (place->parent->path_length() > 0) *--end = '.';
    }
    return end;
  }
};

/// Calls f(place) for `place` and all that is below it. A type inside itself is shown there, but not entered
/// again: the names further down are the same.
template <class F>
constexpr void walk_types(const TypePlace& place, F& f) {
  struct Sink final : ChildSink {
    constexpr Sink(const TypePlace& parent_place, F& function) : parent(parent_place), call(function) {}
    constexpr void child(std::string_view name, const TypeNode& node) override {
      walk_types(TypePlace{&parent, name, &node}, call);
    }
    const TypePlace& parent;
    F& call;
  };
  f(place);
  if (place.is_inside_itself()) return;
  Sink sink(place, f);
  place.node->each_child(sink);
}

/// What a target names, in any object of the model's type.
struct Named {
  bool module = false, site = false;
};

/// Adds what `rest` names, read as a whole path that begins at `node`.
constexpr void find_from(const TypeNode& node, std::string_view rest, Named& named) {
  struct Sink final : ChildSink {
    constexpr Sink(const TypeNode& parent_node, std::string_view path, Named& found)
        : parent(parent_node), rest(path), named(found) {}
    constexpr void child(std::string_view name, const TypeNode& node) override {
      std::size_t dot = 0;  // not rest.find: GCC cannot run it on a template argument with sanitizers on
      while (dot < rest.size() && rest[dot] != '.') ++dot;
      if (parent.children == TypeNode::Children::same)
        find_from(node, rest, named);
      else if (!rest.empty() && parent.allows(name, rest.substr(0, dot)))
        find_from(node, dot == rest.size() ? std::string_view{} : rest.substr(dot + 1), named);
    }
    const TypeNode& parent;
    std::string_view rest;
    Named& named;
  };
  if (rest.empty() && node.is_module) named = {true, named.site || node.is_site};
  Sink sink(node, rest, named);
  node.each_child(sink);
}

template <class M>
constexpr Named find_target(std::string_view target) {
  Named named;
  if (target.empty() || target.ends_with('.')) return named;
  const auto find_at = [&](const TypePlace& place) {
    if (place.node->children != TypeNode::Children::same) find_from(*place.node, target, named);
  };
  walk_types(TypePlace{nullptr, "", &type_node<M>}, find_at);
  return named;
}

struct PathSizes {
  std::size_t paths = 0, characters = 0;
};

template <class M>
constexpr PathSizes count_paths() {
  PathSizes sizes;
  const auto count = [&](const TypePlace& place) {
    if (!place.node->is_module) return;
    ++sizes.paths;
    sizes.characters += place.path_length();
  };
  walk_types(TypePlace{nullptr, "", &type_node<M>}, count);
  return sizes;
}
}  // namespace detail

/// The list behind `graft::paths`.
template <std::size_t Paths, std::size_t Characters>
class PathList {
 public:
  [[nodiscard]] constexpr std::size_t size() const { return size_; }
  [[nodiscard]] constexpr std::string_view operator[](std::size_t i) const {
    return {characters_.data() + begins_[i], begins_[i + 1] - begins_[i]};
  }
  [[nodiscard]] constexpr bool contains(std::string_view path) const {
    for (std::size_t i = 0; i < size_; ++i)
      if ((*this)[i] == path) return true;
    return false;
  }

  /// Adds a path, unless an alternative of a variant has brought it before.
  constexpr void add(const detail::TypePlace& place) {
    const std::size_t length = place.path_length();
    place.write_path(characters_.data() + begins_[size_] + length);
    begins_[size_ + 1] = begins_[size_] + length;
    for (const detail::TypePlace* above = &place; above != nullptr; above = above->parent)
      if (above->node->children == detail::TypeNode::Children::same && is_repeated()) return;
    ++size_;
  }

 private:
  [[nodiscard]] constexpr bool is_repeated() const {
    for (std::size_t i = 0; i < size_; ++i)
      if ((*this)[i] == (*this)[size_]) return true;
    return false;
  }

  std::array<char, Characters + 1> characters_{};
  std::array<std::size_t, Paths + 1> begins_{};
  std::size_t size_ = 0;
};

namespace detail {
template <class M>
constexpr auto list_paths() {
  constexpr PathSizes sizes = count_paths<M>();
  PathList<sizes.paths, sizes.characters> list;
  const auto add = [&](const TypePlace& place) {
    if (place.node->is_module) list.add(place);
  };
  walk_types(TypePlace{nullptr, "", &type_node<M>}, add);
  return list;
}
}  // namespace detail

/// The paths of a model's modules, layers and sites, known at compile time: "layers.*.self_attn.q_proj". A
/// `*` stands for an index or key. The model itself is the first, under "".
template <class M>
inline constexpr auto paths = detail::list_paths<M>();

/// Whether a target, a path or its last segments, names a module of the model.
template <class M>
[[nodiscard]] consteval bool has_module(std::string_view target) {
  return detail::find_target<M>(target).module;
}

/// Whether a target, a path or its last segments, names a site: a layer with room for adapters.
template <class M>
[[nodiscard]] consteval bool has_site(std::string_view target) {
  return detail::find_target<M>(target).site;
}

namespace detail {
template <class M>
consteval bool has_no_room(std::string_view target) {
  const Named named = find_target<M>(target);
  return named.module && !named.site;
}
}  // namespace detail

/// Compiles only if every target names a site of the model.
template <class M, fixed_string... Targets>
consteval void check_targets() {
  static_assert((has_module<M>(Targets) && ...),
                "graft: a target names no module of this model (see graft::paths<Model>)");
  static_assert((!detail::has_no_room<M>(Targets) && ...),
                "graft: a target names a layer without room for adapters: declare it graft::Adaptable<…>");
}

}  // namespace graft
