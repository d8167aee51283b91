#include <graft/adapters/directory.hpp>

#include <doctest/doctest.h>

TEST_CASE("adapters are found by number and by name, renamed and removed") {
  graft::AdapterDirectory directory;
  const auto make = [&](unsigned id, const char* name) { return std::make_shared<graft::AdapterRecord>(id, name, graft::Ia3Config{}); };
  const auto seven = make(7, "b"), three = make(3, "a");
  directory.add(seven);
  directory.add(three);
  REQUIRE(directory.records().size() == 2);
  CHECK(directory.records()[0] == three);
  CHECK(directory.find(7u) == seven);
  CHECK(directory.find(5u) == nullptr);
  CHECK(directory.find("a") == three);
  three->rename("c");
  CHECK(directory.find("a") == nullptr);
  CHECK(directory.find("c") == three);
  const auto nine = make(9, "a");
  directory.add(nine);
  CHECK(directory.find("a") == nine);
  directory.remove(9);
  directory.remove(10);
  CHECK(directory.find("a") == nullptr);
  three->rename("a");
  CHECK(directory.find("a") == three);
  CHECK(directory.records().size() == 2);
}

TEST_CASE("it knows who may want gradients, and whether there are biases outside of sites") {
  graft::AdapterDirectory directory;
  const auto record = std::make_shared<graft::AdapterRecord>(1, "a", graft::LoraConfig{});
  record->plain_biases.push_back({"norm.bias", graft::ParameterData(graft::Dtype::f32, graft::Shape{2})});
  directory.add(record);
  CHECK(directory.has_plain_biases());
  CHECK(directory.wanting_gradients().empty());
  directory.set_wants_gradients(1, true);
  directory.set_wants_gradients(1, true);
  CHECK(directory.wanting_gradients() == std::vector<unsigned>{1});
  directory.remove(1);
  CHECK(directory.wanting_gradients().empty());
  CHECK_FALSE(directory.has_plain_biases());
}
