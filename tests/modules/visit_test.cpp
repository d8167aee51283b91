#include <doctest/doctest.h>

#include <deque>
#include <graft/modules/visit.hpp>
#include <list>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "toys.hpp"

namespace {

using toys::Linear;
using toys::Log;
using toys::Opaque;
using toys::Parameter;
using toys::Site;

struct Block {
  Site<> proj;
  Linear<> norm;
  Parameter scale;
  std::vector<float> cache{1, 2};
  GRAFT_MODULE(proj, norm, scale, cache)
};

struct Tree {
  Opaque value;
  std::vector<Tree> children;
  GRAFT_MODULE(value, children)
};

struct DescribedSite {
  Opaque layer;
  GRAFT_MODULE(layer)
};

struct Ring {
  std::shared_ptr<Ring> next;
  GRAFT_MODULE(next)
};

}  // namespace

template <>
inline constexpr bool graft::enable_site<DescribedSite> = true;

namespace {

/// Holds one member and nothing else, so that a test can name any container.
template <class T>
struct Holder {
  T held;
  GRAFT_MODULE(held)
};

template <class M>
std::string log_of(M& model) {
  Log log;
  graft::visit(model, log);
  return log.text;
}
/// The tree below a Holder.
template <class T>
std::string log_in(T held) {
  Holder<T> holder{std::move(held)};
  const std::string log = log_of(holder);
  const std::string_view root = " Holder\n";
  REQUIRE(log.starts_with(root));
  return log.substr(root.size());
}

}  // namespace

TEST_CASE("the model comes first, under the empty path, and parents before their members") {
  Block block;
  CHECK(log_of(block) ==
        " Block\n"
        "proj Site\n"
        "norm Linear\n"
        "norm.weight Parameter\n"
        "norm.bias Parameter\n"
        "scale Parameter\n");
}

TEST_CASE("a const model shows const nodes") {
  const Holder<std::unique_ptr<Opaque>> by_pointer{std::make_unique<Opaque>()};
  CHECK(log_of(by_pointer) == " const Holder\nheld const Opaque\n");
  const Holder<std::map<std::string, std::optional<Opaque>>> by_key{{{"a", Opaque{}}}};
  CHECK(log_of(by_key) == " const Holder\nheld.a const Opaque\n");
  const Holder<std::tuple<Opaque, std::variant<Opaque>>> by_place{};
  CHECK(log_of(by_place) == " const Holder\nheld.0 const Opaque\nheld.1 const Opaque\n");
}

TEST_CASE("a site is shown and not entered") { CHECK(log_in(DescribedSite{}) == "held DescribedSite\n"); }

TEST_CASE("nodes can be changed") {
  Block block;
  graft::visit(block, [](std::string_view, auto& node) {
    if constexpr (std::is_same_v<decltype(node), Parameter&>) node.value = 3;
  });
  CHECK(block.norm.bias.value == 3);
  CHECK(block.scale.value == 3);
  CHECK(block.proj.layer.weight.value == 0);
}

TEST_CASE("lists number their elements") {
  const std::string two = "held.0 Opaque\nheld.1 Opaque\n";
  CHECK(log_in(std::vector<Opaque>(2)) == two);
  CHECK(log_in(std::array<Opaque, 2>{}) == two);
  CHECK(log_in(std::deque<Opaque>(2)) == two);
  CHECK(log_in(std::list<Opaque>(2)) == two);
  CHECK(log_in(std::vector<Opaque>{}).empty());
  CHECK(log_in(std::vector<std::array<Opaque, 1>>(2)) == "held.0.0 Opaque\nheld.1.0 Opaque\n");
  Holder<Opaque[2]> in_array;
  CHECK(log_of(in_array) == " Holder\n" + two);
}

TEST_CASE("maps use their keys") {
  CHECK(log_in(std::map<std::string, Opaque>{{"b", {}}, {"a", {}}}) == "held.a Opaque\nheld.b Opaque\n");
  CHECK(log_in(std::map<int, Opaque>{{-3, {}}, {12, {}}}) == "held.-3 Opaque\nheld.12 Opaque\n");
  CHECK(log_in(std::unordered_map<std::string, Opaque>{{"k", {}}}) == "held.k Opaque\n");
}

TEST_CASE("tuples and pairs number what they hold, and skip what is no module") {
  CHECK(log_in(std::tuple<Opaque, int, Opaque>{}) == "held.0 Opaque\nheld.2 Opaque\n");
  CHECK(log_in(std::pair<int, Opaque>{}) == "held.1 Opaque\n");
}

TEST_CASE("an optional or a pointer stands under its own name, or nowhere") {
  CHECK(log_in(std::optional<Opaque>{Opaque{}}) == "held Opaque\n");
  CHECK(log_in(std::make_unique<Opaque>()) == "held Opaque\n");
  CHECK(log_in(std::make_shared<Opaque>()) == "held Opaque\n");
  CHECK(log_in(std::optional<Opaque>{}).empty());
  CHECK(log_in(std::unique_ptr<Opaque>{}).empty());
  CHECK(log_in(std::shared_ptr<Opaque>{}).empty());
  std::vector<std::unique_ptr<Opaque>> second_only(2);
  second_only[1] = std::make_unique<Opaque>();
  CHECK(log_in(std::move(second_only)) == "held.1 Opaque\n");
}

TEST_CASE("a variant shows its current alternative") {
  using Either = std::variant<std::monostate, Opaque, Site<>>;
  CHECK(log_in(Either{Site<>{}}) == "held Site\n");
  CHECK(log_in(Either{Opaque{}}) == "held Opaque\n");
  CHECK(log_in(Either{}).empty());
}

TEST_CASE("a variant that an exception left without a value is skipped") {
  struct Throws {
    Throws() = default;
    Throws(const Throws&) { throw 1; }
  };
  Holder<std::variant<Opaque, Throws>> holder;
  const Throws throws;
  CHECK_THROWS(holder.held.emplace<Throws>(throws));
  REQUIRE(holder.held.valueless_by_exception());
  CHECK(log_of(holder) == " Holder\n");
}

TEST_CASE("what shared pointers reach twice is shown under its first path") {
  const auto shared = std::make_shared<Linear<>>();
  const std::string once = "held.0 Linear\nheld.0.weight Parameter\nheld.0.bias Parameter\n";
  CHECK(log_in(std::vector{shared, shared}) == once);
  CHECK(log_in(std::tuple<std::shared_ptr<Linear<>>, std::shared_ptr<const Linear<>>>{shared, shared}) ==
        once);
  CHECK(log_in(std::vector{std::make_shared<Opaque>(), std::make_shared<Opaque>()}) ==
        "held.0 Opaque\nheld.1 Opaque\n");

  // A first member has its owner's address, and is another node.
  const auto owner = std::make_shared<Holder<Opaque>>();
  const std::shared_ptr<Opaque> inside(owner, &owner->held);
  CHECK(log_in(std::tuple{owner, inside}) == "held.0 Holder\nheld.0.held Opaque\nheld.1 Opaque\n");

  auto ring = std::make_shared<Ring>();
  ring->next = std::make_shared<Ring>();
  ring->next->next = ring;
  CHECK(log_of(*ring->next) == " Ring\nnext Ring\nnext.next Ring\n");
  ring->next->next.reset();
}

namespace {
struct Again {
  std::string text;
  void enter_module(const graft::Place& place, auto&) { text += std::string(place.path) + '\n'; }
  static void leave_module(const graft::Place&, auto&) {}
  static void parameter(const graft::Place&, auto&) {}
  static void enter_container(const graft::Place&, const graft::Container&) {}
  static void leave_container(const graft::Place&, const graft::Container&) {}
  void again(const graft::Place& place, const std::string& first) {
    text += std::string(place.path) + " (" + std::string(place.name) + ") is " + first + '\n';
  }
};
}  // namespace

TEST_CASE("a handler that has `again` is told of the second paths, in order") {
  Again handler;
  const auto shared = std::make_shared<Opaque>();
  Holder<std::vector<std::shared_ptr<Opaque>>> holder{{shared, std::make_shared<Opaque>(), shared, shared}};
  graft::walk(holder, handler);
  CHECK(handler.text == "\nheld.0\nheld.1\nheld.2 (2) is held.0\nheld.3 (3) is held.0\n");
}

TEST_CASE("trees have any depth") {
  Tree tree;
  tree.children.resize(2);
  tree.children[1].children.resize(1);
  CHECK(log_of(tree) ==
        " Tree\n"
        "value Opaque\n"
        "children.0 Tree\n"
        "children.0.value Opaque\n"
        "children.1 Tree\n"
        "children.1.value Opaque\n"
        "children.1.children.0 Tree\n"
        "children.1.children.0.value Opaque\n");
}

TEST_CASE("a model may be a container itself") {
  std::vector<Block> blocks(1);
  CHECK(log_of(blocks).starts_with("0 Block\n0.proj Site\n"));
}

namespace {

/// Prints what a walk tells, as an indented tree.
struct Printer {
  std::string text, indent;
  void enter(const graft::Place& place, std::string_view what) {
    text += indent + std::string(place.name) + ": " + std::string(what) + '\n';
    indent += ' ';
    CHECK(place.path.ends_with(place.name));
  }
  void leave() { indent.pop_back(); }

  template <class Node>
  void enter_module(const graft::Place& place, Node&) {
    enter(place, graft::type_name<Node>());
  }
  void leave_module(const graft::Place&, auto&) { leave(); }
  void parameter(const graft::Place& place, auto&) { text += indent + std::string(place.name) + '\n'; }
  void enter_container(const graft::Place& place, const graft::Container& container) {
    const std::string_view kinds[] = {"list", "tuple", "map"};
    enter(place, std::string(kinds[int(container.kind)]) + ' ' + std::to_string(container.size) +
                     (container.of_modules ? "" : " of parameters"));
  }
  void leave_container(const graft::Place&, const graft::Container&) { leave(); }
};

struct Mixed {
  std::vector<std::optional<Opaque>> list{Opaque{}, std::nullopt};
  std::tuple<Opaque, std::vector<Parameter>> tuple{{}, {Parameter{}}};
  std::map<std::string, Linear<>> map{{"dotted.key", {}}};
  std::vector<Opaque> nothing;
  GRAFT_MODULE(list, tuple, map, nothing)
};

}  // namespace

TEST_CASE("a walk tells of containers, and when nodes end") {
  Mixed mixed;
  Printer printer;
  graft::walk(mixed, printer);
  CHECK(printer.indent.empty());
  CHECK(printer.text ==
        ": Mixed\n"
        " list: list 2\n"
        "  0: Opaque\n"
        " tuple: tuple 2\n"
        "  0: Opaque\n"
        "  1: list 1 of parameters\n"
        "   0\n"
        " map: map 1\n"
        "  dotted.key: Linear\n"
        "   weight\n"
        "   bias\n"
        " nothing: list 0\n");
}
