#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <graft/tensor/state_dict.hpp>

using graft::Dtype;
using graft::StateDict;
using graft::TensorView;

namespace {
std::array<float, 6> numbers{1, 2, 3, 4, 5, 6};

TensorView view(std::vector<graft::Index> shape) {
  return {Dtype::f32, std::move(shape), reinterpret_cast<const std::byte*>(numbers.data()), nullptr};
}
float element(const TensorView& tensor, std::size_t i) { return reinterpret_cast<const float*>(tensor.data)[i]; }
}  // namespace

TEST_CASE("a view knows its size, bytes and device") {
  CHECK(view({2, 3}).size() == 6);
  CHECK(view({2, 3}).bytes() == 24);
  CHECK(view({}).size() == 1);
  CHECK(view({2, 3}).device() == graft::Device::cpu);
  CHECK(TensorView{Dtype::bf16, {3}}.bytes() == 6);
  CHECK(TensorView{Dtype::bf16, {3}}.device() == graft::Device::meta);
  CHECK(TensorView{Dtype::f32, {0, 3}}.device() == graft::Device::cpu);
}

TEST_CASE("keys keep the order of insertion, not of the alphabet") {
  StateDict state_dict;
  for (const char* key : {"z", "a", "m"}) state_dict.insert(key, view({1}));
  CHECK(state_dict.keys() == std::vector<std::string>{"z", "a", "m"});
  std::string seen;
  for (const auto& [key, tensor] : state_dict) seen += key;
  CHECK(seen == "zam");
  CHECK(state_dict.size() == 3);
}

TEST_CASE("inserting a key again replaces the tensor in its place") {
  StateDict state_dict;
  CHECK(state_dict.empty());
  state_dict.insert("a", view({1}));
  state_dict.insert("b", view({2}));
  state_dict.insert({"a", view({2, 3})});
  CHECK(state_dict.keys() == std::vector<std::string>{"a", "b"});
  CHECK(state_dict.at("a").size() == 6);
}

TEST_CASE("erasing keeps the others findable and in order") {
  StateDict state_dict;
  for (const char* key : {"a", "b", "c", "d"}) state_dict.insert(key, view({graft::Index(state_dict.size()) + 1}));
  CHECK(state_dict.erase("b"));
  CHECK_FALSE(state_dict.erase("b"));
  CHECK(state_dict.keys() == std::vector<std::string>{"a", "c", "d"});
  CHECK(state_dict.at("a").size() == 1);
  CHECK(state_dict.at("c").size() == 3);
  CHECK(state_dict.at("d").size() == 4);
  CHECK_FALSE(state_dict.contains("b"));
  state_dict.insert("b", view({5}));
  CHECK(state_dict.keys().back() == "b");
  CHECK(state_dict.at("b").size() == 5);
}

TEST_CASE("a key that is not there is a StateDictError that names it") {
  StateDict state_dict;
  state_dict.insert("a", view({1}));
  CHECK(state_dict.find("b") == nullptr);
  CHECK_THROWS_WITH_AS((void)state_dict.at("b"), doctest::Contains("'b'"), graft::StateDictError);
}

TEST_CASE("a copy is shallow, a clone owns its bytes") {
  StateDict state_dict;
  state_dict.insert("a", view({2, 3}));
  state_dict.insert("one", {Dtype::f32, {1}, reinterpret_cast<const std::byte*>(numbers.data() + 1), nullptr});
  state_dict.insert("meta", {Dtype::f16, {7}});
  state_dict.insert("empty", {Dtype::f32, {0, 3}, reinterpret_cast<const std::byte*>(numbers.data())});
  const StateDict copy = state_dict;
  StateDict clone = state_dict.clone();
  CHECK(copy.at("a").data == state_dict.at("a").data);
  numbers[1] = 20;
  CHECK(element(copy.at("a"), 1) == 20);
  CHECK(element(clone.at("a"), 1) == 2);
  CHECK(element(clone.at("one"), 0) == 2);
  numbers[1] = 2;
  CHECK(clone.keys() == state_dict.keys());
  CHECK(clone.at("meta").device() == graft::Device::meta);
  CHECK(clone.at("empty").shape == std::vector<graft::Index>{0, 3});
  CHECK(reinterpret_cast<std::uintptr_t>(clone.at("one").data) % alignof(double) == 0);
}

TEST_CASE("a clone's tensor outlives the clone by its owner") {
  TensorView kept;
  {
    StateDict state_dict;
    state_dict.insert("a", view({2, 3}));
    kept = state_dict.clone().at("a");
  }
  REQUIRE(kept.owner);
  CHECK(element(kept, 5) == 6);
}
