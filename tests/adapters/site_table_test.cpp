#include <graft/adapters/site_table.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

namespace {

graft::SiteEntry entry(unsigned id, const char* name) {
  graft::SiteEntry one;
  one.id = id;
  if (!name) return one;
  one.record = std::make_shared<graft::AdapterRecord>(id, name);
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
  CHECK(all.find(9u)->record->name() == "b");
  CHECK(all.find(4u)->record == nullptr);
  CHECK(all.find(0u) == nullptr);
  CHECK(all.find(5u) == nullptr);
  CHECK(all.find(10u) == nullptr);
  CHECK(all.find("a")->id == 1);
  CHECK(all.find("c") == nullptr);
}

TEST_CASE("every entry is found, however its numbers lie") {
  for (const std::vector<unsigned>& ids : {std::vector<unsigned>{}, {3}, {3, 4, 5, 6}, {3, 4, 7, 8, 20}, {1, 9, 10, 11}}) {
    graft::SiteTable all;
    for (const unsigned id : ids) all.entries.push_back(entry(id, "x"));
    for (unsigned id = 0; id < 30; ++id) {
      const auto place = std::find(ids.begin(), ids.end(), id);
      CAPTURE(id);
      CHECK(all.find(id) == (place == ids.end() ? nullptr : &all.entries[std::size_t(place - ids.begin())]));
    }
  }
}

TEST_CASE("a site is idle without active adapters, or disabled") {
  graft::SiteTable all = table();
  CHECK(all.is_idle());
  all.select({1, 4, 7});
  CHECK(all.active == std::vector<unsigned>{1});  // 4 was deleted, 7 is elsewhere
  CHECK_FALSE(all.is_idle());
  all.enabled = false;
  CHECK(all.is_idle());
}

TEST_CASE("a forward adds what is active and not merged, in the order of activation") {
  graft::SiteTable all = table();
  all.select({9, 1});
  all.merged = {9};
  all.settle();
  CHECK(all.pending == std::vector<unsigned>{1});
  CHECK_FALSE(all.is_idle());
  all.merged = {1, 9};
  all.settle();
  CHECK(all.is_idle());
}

TEST_CASE("a copy has records of its own, and weights that are found at the copy alone") {
  graft::SiteTable one;
  one.number = 5;
  one.entries.push_back(entry(0, "a"));
  one.entries[0].site = 5;
  auto here = std::make_shared<graft::SiteAdapter>();
  here->bias = std::make_unique<graft::ParameterData>(graft::Dtype::f32, graft::Shape{2});
  const auto& original = one.entries[0].record->generation.own();
  original->put(5, &one, here);
  const graft::SiteTable other = one;
  REQUIRE(other.entries[0].bias());
  CHECK(other.entries[0].bias() != here->bias.get());
  CHECK(original->find(one) == here.get());
  CHECK(original->find(other) == nullptr);
  CHECK(other.entries[0].record->generation.own()->find(other) == other.entries[0].here());
}

TEST_CASE("a copy has records of its own") {
  graft::SiteTable all = table();
  const graft::SiteTable copy = all;
  CHECK(copy.entries[0].record != all.entries[0].record);
  all.entries[0].record->set_strength(3);
  CHECK(copy.entries[0].record->strength() == 1);
  CHECK(copy.entries[1].record == nullptr);
  CHECK(copy.path == "p");
}

TEST_CASE("what PEFT would have wrapped around the layer") {
  graft::SiteEntry one = entry(0, "a");
  CHECK_FALSE(one.wrapper().has_value());
  auto here = std::make_shared<graft::SiteAdapter>();
  here->bias = std::make_unique<graft::ParameterData>(graft::Dtype::f32, graft::Shape{2});
  one.record->generation.own()->put(one.site, nullptr, here);
  CHECK_FALSE(one.wrapper().has_value());
  one.left_behind = graft::Wrapper::ia3;
  CHECK(*one.wrapper() == graft::Wrapper::ia3);
}
