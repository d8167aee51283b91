#include <graft/core/make_unique_as.hpp>

#include <doctest/doctest.h>

#include <type_traits>

namespace {
struct Base {
  virtual ~Base() = default;
  [[nodiscard]] virtual int value() const = 0;
};
struct Derived final : Base {
  Derived(std::unique_ptr<int> of, int& count) : number(std::move(of)), alive(count) { ++alive; }
  ~Derived() override { --alive; }
  [[nodiscard]] int value() const override { return *number; }
  std::unique_ptr<int> number;
  int& alive;
};
}  // namespace

TEST_CASE("make_unique_as: arguments are forwarded, and the thing goes with its pointer to the base") {
  int alive = 0;
  {
    const auto made = graft::detail::make_unique_as<Base, Derived>(std::make_unique<int>(7), alive);
    static_assert(std::is_same_v<decltype(made), const std::unique_ptr<Base>>);
    CHECK(made->value() == 7);
    CHECK(alive == 1);
  }
  CHECK(alive == 0);
}
