#include <doctest/doctest.h>

#include <graft/state_dict/wrappers.hpp>

using graft::Wrapper;
using graft::detail::wrappers_of;

namespace {
/// An entry whose adapter was deleted, or lives on under `name`.
graft::SiteEntry entry(unsigned id, std::optional<Wrapper> wrapper, const char* name = nullptr) {
  graft::SiteEntry made;
  made.id = id;
  made.left_behind = wrapper;
  if (name) {
    made.record = std::make_shared<graft::AdapterRecord>(id, name);
  }
  return made;
}
}  // namespace

TEST_CASE("an adapter joins the outermost wrapper of its kind, else it is put around") {
  graft::SiteTable table;
  CHECK(wrappers_of(table).empty());
  table.entries.push_back(entry(0, Wrapper::lora, "a"));
  table.entries.push_back(entry(1, Wrapper::lora, "b"));
  table.entries.push_back(entry(2, Wrapper::ia3, "c"));
  table.entries.push_back(entry(3, Wrapper::lora, "d"));
  const auto wrappers = wrappers_of(table);
  REQUIRE(wrappers.size() == 3);
  CHECK(wrappers[0].kind == Wrapper::lora);
  CHECK(wrappers[0].entries.size() == 2);
  CHECK(wrappers[1].kind == Wrapper::ia3);
  CHECK(wrappers[2].entries.front()->record->name() == "d");
}

TEST_CASE("a deleted adapter leaves an empty wrapper, one that trained only a bias nothing") {
  graft::SiteTable table;
  table.entries.push_back(entry(0, Wrapper::adalora));
  table.entries.push_back(entry(1, std::nullopt));
  const auto wrappers = wrappers_of(table);
  REQUIRE(wrappers.size() == 1);
  CHECK(wrappers[0].kind == Wrapper::adalora);
  CHECK(wrappers[0].entries.empty());
}
