#include <graft/injection/plan_saved.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include <graft/graft.hpp>

using graft::LoraConfig;
using Strings = std::vector<std::string>;
using Linear = graft::Adaptable<graft::Linear<>>;

namespace {

struct Side {
  Linear fc{5, 7}, sidefc{7, 7};
  GRAFT_MODULE(fc, sidefc)
};
struct Outer {
  Side side, beside;
  graft::ReLU act;
  GRAFT_MODULE(side, beside, act)
};
struct Net {
  Linear lin{5, 5};
  Outer outer;
  graft::Linear<> plain{5, 5};
  GRAFT_MODULE(lin, outer, plain)
};
struct Sharing {
  std::shared_ptr<Linear> fc;
  std::shared_ptr<graft::ReLU> act;
  Linear last{7, 7};
  GRAFT_MODULE(fc, act, last)
};
struct SharingNet {
  Linear lin{5, 5};
  std::shared_ptr<graft::ReLU> act = std::make_shared<graft::ReLU>();
  std::shared_ptr<Linear> fc = std::make_shared<Linear>(5, 7);
  Sharing only_act{std::make_shared<Linear>(5, 7), act}, both{fc, act};
  GRAFT_MODULE(lin, act, fc, only_act, both)
};

/// What some names take, and what is said about it.
template <class M>
std::pair<graft::detail::SavedModules, Strings> saved(const M& model, const Strings& names) {
  const graft::ModelSites sites = graft::sites_of(model);
  graft::InjectReport report;
  const graft::InjectOptions options;
  auto modules = graft::detail::SavedModulesPlanner(sites, names, options, report).make();
  return {std::move(modules), report.warnings};
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

}  // namespace

TEST_CASE("a name takes modules, and the sites that are in them") {
  const Net net;
  const auto [one, silent] = saved(net, {"side"});
  CHECK(one.modules == Strings{"outer.side"});
  CHECK(one.sites == std::vector<std::size_t>{1, 2});
  CHECK(silent.empty());
  const auto layers = saved(net, {"lin", "outer.beside.fc"}).first;
  CHECK(layers.modules == Strings{"lin", "outer.beside.fc"});
  CHECK(layers.sites == std::vector<std::size_t>{0, 3});
  const auto [none, warnings] = saved(net, {"nothing"});
  CHECK(none.modules.empty());
  REQUIRE(warnings.size() == 1);
  CHECK(has(warnings[0], "matches no module: 'nothing'"));
}

TEST_CASE("what is part of another module is saved with that, and PEFT cannot: a warning") {
  const Net net;
  for (const Strings& names : {Strings{"side", "outer"}, Strings{"outer", "side"}}) {
    const auto [modules, warnings] = saved(net, names);
    CHECK(modules.modules == Strings{"outer"});
    CHECK(modules.sites.size() == 4);
    REQUIRE(warnings.size() == 1);
    CHECK(has(warnings[0], "names 'outer' and 'outer.side', which is part of it"));
  }
}

TEST_CASE("how far above a site its saved module is") {
  using graft::detail::saved_above;
  const Strings modules{"outer.side", "lin"};
  CHECK(saved_above(modules, "outer.side.fc") == 1);
  CHECK(saved_above(modules, "outer.side.deep.fc") == 2);
  CHECK(saved_above(modules, "lin") == 0);
  CHECK(saved_above(modules, "outer.sided.fc") == 0);
}

TEST_CASE("a module that holds a layer from outside has no copy of it") {
  const SharingNet net;
  CHECK(saved(net, {"only_act"}).first.modules == Strings{"only_act"});  // without tensors nothing is copied
  CHECK_THROWS_WITH_AS((void)saved(net, {"both"}), doctest::Contains("names 'both', whose 'both.fc' is 'fc'"), graft::TargetError);
  CHECK_THROWS_WITH_AS((void)saved(Net{}, {"plain"}), doctest::Contains("names 'plain', a plain Linear"), graft::TargetError);
}
