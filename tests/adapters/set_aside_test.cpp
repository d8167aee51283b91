#include <graft/adapters/set_aside.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <vector>

using graft::AdapterParameter;
using graft::ParameterData;
using graft::detail::huge_page;

namespace {

class Two final : public graft::AnyAdapterState {
 public:
  ParameterData a, b;
  Two(graft::Index size_a, graft::Index size_b) : a(graft::Dtype::f32, {size_a}), b(graft::Dtype::f32, {size_b}) {}
  [[nodiscard]] graft::PeftType type() const override { return graft::PeftType::lora; }
  [[nodiscard]] std::unique_ptr<graft::AnyAdapterState> clone() const override { return std::make_unique<Two>(*this); }
  [[nodiscard]] std::vector<AdapterParameter> parameters() override { return {{"A", "", &a}, {"B", "", &b}}; }
  void initialise(std::uint64_t, std::string_view) override {}
  [[nodiscard]] bool is_meta() const override { return a.is_meta(); }
};

constexpr graft::Index large = graft::Index(huge_page) / 4 + 3;
void fill(ParameterData& parameter, int value) { std::memset(parameter.data(), value, parameter.bytes()); }
std::vector<AdapterParameter> parameters_of(std::initializer_list<Two*> states) {
  std::vector<AdapterParameter> all;
  for (Two* state : states)
    for (const AdapterParameter& parameter : state->parameters()) all.push_back(parameter);
  return all;
}
bool holds(const ParameterData& parameter, int value) {
  return std::all_of(parameter.data(), parameter.data() + parameter.bytes(), [&](std::byte b) { return b == std::byte(value); });
}

}  // namespace

TEST_CASE("parameters of a name lie side by side, zero and apart from each other, and outlive each other") {
  auto one = std::make_unique<Two>(large, 5);
  Two two(large, 7), three(large, 9);
  graft::detail::set_memory_aside(parameters_of({one.get(), &two, &three}));
  for (Two* state : {one.get(), &two, &three}) {
    CHECK(state->a.is_meta());
    CHECK(state->b.is_meta());
    state->a.allocate();
    state->b.allocate();
    CHECK(holds(state->a, 0));
    CHECK_FALSE(state->a.is_borrowed());
  }
#if defined(__linux__)
  CHECK(two.a.data() - one->a.data() == std::ptrdiff_t((one->a.bytes() + 63) / 64 * 64));
#endif
  fill(one->a, 1);
  fill(two.a, 2);
  fill(three.a, 3);
  CHECK(holds(one->a, 1));
  CHECK(holds(two.a, 2));
  one.reset();
  CHECK(holds(two.a, 2));
  three.a.allocate();  // once more: memory of its own
  CHECK(holds(three.a, 0));
  CHECK(holds(two.a, 2));
}

TEST_CASE("what is set aside belongs to one parameter: neither copies nor shares have it") {
  Two state(2 * large, 5);
  graft::detail::set_memory_aside(parameters_of({&state}));
  ParameterData copy = state.a, shared = state.a.share();
  ParameterData assigned(graft::Dtype::f32, {1});
  assigned = state.a;
  for (ParameterData* other : {&copy, &shared, &assigned, &state.a}) other->allocate();
  fill(state.a, 4);
  for (ParameterData* other : {&copy, &shared, &assigned}) CHECK(holds(*other, 0));
  ParameterData moved(graft::Dtype::f32, {3}), kept(graft::Dtype::f32, {3});
  kept.allocate();
  std::byte* const own = kept.data();
  kept.set_aside(graft::detail::zeroed(12));  // it has memory: nothing happens
  CHECK(kept.data() == own);
  moved.set_aside(graft::detail::zeroed(12));
  moved.reset({5});  // too small now
  moved.allocate();
  fill(moved, 1);
  CHECK(holds(moved, 1));
}
