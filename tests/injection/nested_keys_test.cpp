#include <graft/injection/nested_keys.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using graft::detail::NestedKeys;

namespace {

graft::StateDict keys(const std::vector<std::string>& names) {
  graft::StateDict all;
  for (const std::string& name : names) all.insert(name, {graft::Dtype::f32, {1}, nullptr, nullptr});
  return all;
}

TEST_CASE("base_layer components at the end of a module say how deep it is") {
  const graft::StateDict all = keys({"base_model.model.a.q.base_layer.ia3_l", "b.base_layer.base_layer.lora_A.weight",
                                     "b.base_layer.base_layer.lora_B.weight", "c.lora_A.weight", "d.base_layer.bias"});
  const NestedKeys nested(&all);
  CHECK(nested.depth("a.q") == 1);
  CHECK(nested.depth("b") == 2);
  CHECK(nested.depth("c") == 0);
  CHECK(nested.depth("d") == 0);  // a trained bias of a target
  CHECK(nested.depth("q") == 0);
  CHECK(nested.depth("base_model.model.a.q") == 1);  // of a model whose own paths begin so
}

TEST_CASE("a layer may be called base_layer itself") {
  const graft::StateDict all = keys({"a.base_layer.lora_A.weight", "a.lora_A.weight"});
  CHECK(NestedKeys(&all).depth("a") == 0);
  CHECK(NestedKeys(&all).depth("a.base_layer") == 0);
  CHECK(NestedKeys(nullptr).depth("a") == 0);
}

}  // namespace
