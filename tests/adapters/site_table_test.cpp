#include <graft/adapters/site_table.hpp>

#include <doctest/doctest.h>

namespace {

graft::SiteEntry entry(unsigned id, const char* name) {
  graft::SiteEntry one;
  one.id = id;
  if (!name) return one;
  one.record = std::make_shared<graft::AdapterRecord>();
  one.record->id = id;
  one.record->name = name;
  return one;
}
graft::SiteTable table() {
  graft::SiteTable all;
  all.path = "p";
  all.entries.push_back(entry(1, "a"));
  all.entries.push_back(entry(4, nullptr));
  all.entries.push_back(entry(9, "b"));
  return all;
}

}  // namespace

TEST_CASE("entries are found by number and by name; a deleted one only by its number") {
  const graft::SiteTable all = table();
  REQUIRE(all.find(9u));
  CHECK(all.find(9u)->record->name == "b");
  CHECK(all.find(4u)->record == nullptr);
  CHECK(all.find(0u) == nullptr);
  CHECK(all.find(5u) == nullptr);
  CHECK(all.find(10u) == nullptr);
  CHECK(all.find("a")->id == 1);
  CHECK(all.find("c") == nullptr);
}

TEST_CASE("a site is idle without active adapters, or disabled") {
  graft::SiteTable all = table();
  CHECK(all.is_idle());
  all.active = {1};
  CHECK_FALSE(all.is_idle());
  all.enabled = false;
  CHECK(all.is_idle());
}

TEST_CASE("a copy has records of its own") {
  graft::SiteTable all = table();
  const graft::SiteTable copy = all;
  CHECK(copy.entries[0].record != all.entries[0].record);
  all.entries[0].record->strength = 3;
  CHECK(copy.entries[0].record->strength == 1);
  CHECK(copy.entries[1].record == nullptr);
  CHECK(copy.path == "p");
}

TEST_CASE("what PEFT would have wrapped around the layer") {
  graft::SiteEntry one = entry(0, "a");
  CHECK_FALSE(one.wrapper().has_value());
  one.bias = std::make_unique<graft::ParameterData>(graft::Dtype::f32, graft::Shape{2});
  CHECK_FALSE(one.wrapper().has_value());
  one.left_behind = graft::Wrapper::ia3;
  CHECK(*one.wrapper() == graft::Wrapper::ia3);
}
