#include <doctest/doctest.h>

#include <deque>
#include <graft/modules/paths.hpp>
#include <graft/modules/visit.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "many_members.hpp"
#include "toys.hpp"

namespace {

using toys::Linear;
using toys::Opaque;
using toys::Parameter;
using toys::Site;

struct Attention {
  Site<> q_proj, v_proj;
  Linear<> o_proj;

 private:
  GRAFT_MODULE(q_proj, v_proj, o_proj)
};
struct Layer {
  Attention self_attn;
  Parameter scale;
  std::vector<float> cache;
  GRAFT_MODULE(self_attn, scale, cache)
};
struct Llama {
  std::vector<Layer> layers;
  std::unique_ptr<Linear<>> head;
  GRAFT_MODULE(layers, head)
};
struct SmallLlama : Llama {
  std::optional<Site<>> extra;
  GRAFT_MODULE_FROM(Llama, extra)
};

struct Tree {
  Site<> proj;
  std::vector<Tree> children;
  std::map<std::string, std::shared_ptr<Tree>> named;
  GRAFT_MODULE(proj, children, named)
};

struct Everything {
  std::array<Opaque, 2> array;
  Opaque c_array[2];
  std::deque<std::vector<Opaque>> nested;
  std::map<int, Opaque> map;
  std::tuple<Opaque, int, std::pair<Opaque, Opaque>, int, int, int, int, int, int, int, Site<>> tuple;
  std::variant<std::monostate, Linear<>, Site<>, Attention> variant;
  std::shared_ptr<Opaque> first, second;
  std::vector<Parameter> parameters;
  GRAFT_MODULE(array, c_array, nested, map, tuple, variant, first, second, parameters)
};

namespace vendor {
struct Block {
  Site<> fc1;
  Linear<> fc2;
};
}  // namespace vendor
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
template <class M>
std::string listed() {
  std::string all;
  for (std::size_t i = 0; i < graft::paths<M>.size(); ++i) all += std::string(graft::paths<M>[i]) + '\n';
  return all;
}
}  // namespace

TEST_CASE("paths lists modules, layers and sites, not parameters") {
  CHECK(listed<Llama>() ==
        "\n"
        "layers.*\n"
        "layers.*.self_attn\n"
        "layers.*.self_attn.q_proj\n"
        "layers.*.self_attn.v_proj\n"
        "layers.*.self_attn.o_proj\n"
        "head\n");
  CHECK(listed<vendor::Block>() == "\nfc1\nfc2\n");
  CHECK(listed<SmallLlama>() == listed<Llama>() + "extra\n");
  static_assert(graft::paths<Llama>.contains("layers.*.self_attn.q_proj"));
  static_assert(!graft::paths<Llama>.contains("q_proj"));
}

TEST_CASE("paths knows every container") {
  CHECK(listed<Everything>() ==
        "\n"
        "array.*\n"
        "c_array.*\n"
        "nested.*.*\n"
        "map.*\n"
        "tuple.0\n"
        "tuple.2.0\n"
        "tuple.2.1\n"
        "tuple.10\n"
        "variant\n"
        "variant.q_proj\n"
        "variant.v_proj\n"
        "variant.o_proj\n"
        "first\n"
        "second\n");
}

TEST_CASE("paths goes once into a type inside itself") {
  CHECK(listed<Tree>() == "\nproj\nchildren.*\nnamed.*\n");
}

TEST_CASE("a target is a path or its end") {
  static_assert(graft::has_module<Llama>("layers.*.self_attn.q_proj"));
  static_assert(graft::has_module<Llama>("layers.31.self_attn.q_proj"));
  static_assert(graft::has_module<Llama>("0.self_attn.q_proj"));
  static_assert(graft::has_module<Llama>("self_attn"));
  static_assert(graft::has_module<Llama>("head"));
  static_assert(graft::has_module<Llama>("12"));
  static_assert(!graft::has_module<Llama>("layers"));  // a list is no module
  static_assert(!graft::has_module<Llama>("q_porj"));
  static_assert(!graft::has_module<Llama>("proj"));
  static_assert(!graft::has_module<Llama>("layers.q_proj"));
  static_assert(!graft::has_module<Llama>("layers.last.self_attn.q_proj"));
  static_assert(!graft::has_module<Llama>("model.layers.0.self_attn.q_proj"));
  static_assert(!graft::has_module<Llama>("self_attn.q_proj.weight"));
  static_assert(!graft::has_module<Llama>("q_proj.") && !graft::has_module<Llama>(".q_proj"));
  static_assert(!graft::has_module<Llama>(""));
}

TEST_CASE("parameters are no modules") {
  static_assert(!graft::has_module<Llama>("scale") && !graft::has_module<Llama>("weight"));
  static_assert(!graft::has_module<Llama>("head.weight"));
}

TEST_CASE("a site is a module with room") {
  static_assert(graft::has_site<Llama>("q_proj") && graft::has_site<Llama>("layers.0.self_attn.v_proj"));
  static_assert(graft::has_module<Llama>("o_proj") && !graft::has_site<Llama>("o_proj"));
  static_assert(graft::has_module<Llama>("self_attn") && !graft::has_site<Llama>("self_attn"));
  static_assert(graft::has_site<SmallLlama>("extra") && graft::has_site<SmallLlama>("q_proj"));
  static_assert(graft::has_site<Everything>("variant") && graft::has_site<Everything>("variant.q_proj"));
  static_assert(graft::has_site<Everything>("tuple.10") && !graft::has_module<Everything>("tuple.1"));
}

TEST_CASE("targets reach any depth of a tree") {
  static_assert(graft::has_site<Tree>("proj"));
  static_assert(graft::has_site<Tree>("children.0.proj"));
  static_assert(graft::has_site<Tree>("children.0.children.7.named.left.children.2.proj"));
  static_assert(!graft::has_module<Tree>("children.0.children.7.named.left.children.left.proj"));
  static_assert(!graft::has_module<Tree>("proj.children"));
}

TEST_CASE("the keys of a map are unknown before run time") {
  static_assert(graft::has_module<Tree>("named.any_key"));
  static_assert(graft::has_site<Tree>("any_key.proj"));
  static_assert(!graft::has_site<Tree>("named..proj"));
}

TEST_CASE("what visit shows is in paths") {
  SmallLlama model;
  model.layers.resize(1);
  model.head = std::make_unique<Linear<>>();
  model.extra.emplace();
  std::size_t modules = 0;
  graft::visit(model, [&]<class Node>(std::string_view path, Node&) {
    if (graft::enable_parameter<Node>) return;
    std::string pattern(path);
    if (pattern.starts_with("layers.0")) pattern.replace(7, 1, "*");
    CHECK_MESSAGE(graft::paths<SmallLlama>.contains(pattern), pattern);
    ++modules;
  });
  CHECK(modules == graft::paths<SmallLlama>.size());
}

TEST_CASE("400 members are described, listed and visited") {
  static_assert(graft::paths<ManyMembers>.size() == 401);
  static_assert(graft::paths<ManyMembers>[400] == "d99");
  static_assert(graft::has_module<ManyMembers>("c57") && !graft::has_module<ManyMembers>("c100"));
  ManyMembers model;
  std::string last;
  std::size_t count = 0;
  graft::visit(model, [&](std::string_view path, auto&) {
    last = path;
    ++count;
  });
  CHECK(count == 401);
  CHECK(last == "d99");
}

TEST_CASE("good targets compile") {
  graft::check_targets<Llama, "q_proj", "self_attn.v_proj">();
  graft::check_targets<Llama>();
}
