#pragma once

#include <graft/core/type_name.hpp>
#include <graft/modules/describe.hpp>
#include <string>
#include <string_view>
#include <type_traits>

/// Stand-ins for what the rooms to the right make of a parameter, a layer and a site.
namespace toys {

struct Parameter {
  int value = 0;
};

template <class T = float>
struct Linear {
  Linear() = default;
  Linear(int, int) {}
  Parameter weight, bias;
  GRAFT_MODULE(weight, bias)
};

template <class L = Linear<>>
struct Site {
  Site() = default;
  Site(int in, int out) : layer(in, out) {}
  L layer;
};

/// A layer with traits and without a description.
struct Opaque {};

/// Writes "path type" for every node, so that a test reads as a tree.
struct Log {
  std::string text;
  template <class Node>
  void operator()(std::string_view path, Node&) {
    text += path;
    text += std::is_const_v<Node> ? " const " : " ";
    text += graft::type_name<std::remove_const_t<Node>>();
    text += '\n';
  }
};

}  // namespace toys

template <>
inline constexpr bool graft::enable_parameter<toys::Parameter> = true;
template <class L>
inline constexpr bool graft::enable_site<toys::Site<L>> = true;
template <class T>
struct graft::layer_traits<toys::Linear<T>> {
  static constexpr int kind = 0;
};
template <>
struct graft::layer_traits<toys::Opaque> {
  static constexpr int kind = 0;
};
