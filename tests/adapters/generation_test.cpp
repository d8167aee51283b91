#include <graft/adapters/generation.hpp>

#include <doctest/doctest.h>

TEST_CASE("a generation knows its sites by number, from the first that it has") {
  graft::AdapterGeneration generation;
  CHECK(generation.at(0) == nullptr);
  const auto five = std::make_shared<graft::SiteAdapter>(), three = std::make_shared<graft::SiteAdapter>();
  generation.put(5, nullptr, five);
  CHECK(generation.at(5) == five.get());
  CHECK(generation.at(4) == nullptr);
  CHECK(generation.at(6) == nullptr);
  generation.put(3, nullptr, three);
  generation.put(8, nullptr, three);
  CHECK(generation.at(3) == three.get());
  CHECK(generation.at(4) == nullptr);
  CHECK(generation.at(5) == five.get());
  CHECK(generation.shared_at(8) == three);
  CHECK(generation.shared_at(9) == nullptr);
}

TEST_CASE("strength and name belong to the adapter, not to a generation of its weights") {
  graft::AdapterRecord record(7, "a", graft::Ia3Config{});
  record.set_strength(0.5);
  auto next = std::make_shared<graft::AdapterGeneration>();
  next->config = graft::LoraConfig{};
  next->number = 1;
  next->identity = record.generation.own()->identity;
  const auto old = record.generation.publish(next);
  CHECK(old->number == 0);
  CHECK(record.name() == "a");
  CHECK(record.strength() == 0.5);
  CHECK(record.type() == graft::PeftType::lora);
  record.rename("b");
  CHECK(old->identity->name == "b");
}

TEST_CASE("a copy of what an adapter has at a site shares nothing with it") {
  graft::SiteAdapter here;
  here.bias = std::make_unique<graft::ParameterData>(graft::Dtype::f32, graft::Shape{2});
  here.bias->allocate();
  const auto copy = here.clone();
  REQUIRE(copy->bias);
  CHECK(copy->bias->data() != here.bias->data());
  CHECK(copy->state == nullptr);
}
