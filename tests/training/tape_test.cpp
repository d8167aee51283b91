#include <doctest/doctest.h>

#include <memory>
#include <span>

#include <graft/graft.hpp>
#include <graft/training/tape.hpp>
#include <graft/training/var.hpp>

#include "training/toy_ops.hpp"

using namespace graft;

namespace {
struct Failing : toy::Square {
  bool* fails;
  template <class T>
  void vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& y, std::span<const In<T>> x,
           std::span<const Out<T>> dx) const {
    if (*fails) fail<TrainingError>("no way back", "a test says so", "");
    toy::Square::vjp<T>(batch, gradients, dy, y, x, dx);
  }
};
struct Holding : toy::Square {
  std::shared_ptr<int> held;
};
}  // namespace

TEST_CASE("a tape counts its passes, for the masks of dropout") {
  Tape tape({.seed = 7, .dropout = false});
  CHECK(tape.options().seed == 7);
  CHECK_FALSE(tape.options().dropout);
  CHECK(tape.pass() == 0);
  tape.clear();
  tape.clear();
  CHECK(tape.pass() == 2);
  tape.set_pass(9);
  tape.clear();
  CHECK(tape.pass() == 10);
}

TEST_CASE("clear() forgets the steps and what they hold, and keeps the memory") {
  const Matrix<float> x = Matrix<float>::Constant(13, 700, 2);
  const auto held = std::make_shared<int>(3);
  Tape tape;
  const auto pass = [&] {
    const Var<float> y = custom(Holding{{}, held}, tape.input(x, true));
    tape.backward(y, x);
  };
  pass();
  CHECK(tape.size() == 1);
  CHECK(held.use_count() == 2);
  tape.clear();
  CHECK(tape.size() == 0);
  CHECK(held.use_count() == 1);
  const std::size_t reserved = tape.reserved();
  CHECK(reserved > 2 * std::size_t(x.size()) * sizeof(float));
  pass();
  tape.clear();
  CHECK(tape.reserved() == reserved);
}

TEST_CASE("a way back that fails leaves a tape that can be cleared and used again") {
  const Matrix<double> x = Matrix<double>::Constant(2, 3, 4);
  bool fails = true;
  Tape tape;
  for (int i = 0; i < 2; ++i) {
    const Var<double> in = tape.input(x, true);
    const Var<double> y = custom(toy::Square{}, custom(Failing{{}, &fails}, in));
    if (fails) CHECK_THROWS_AS(tape.backward(y, x), TrainingError);
    else tape.backward(y, x);
    if (!fails) CHECK(in.grad().isApproxToConstant(4 * 2 * 16 * 2 * 4));
    tape.clear();
    fails = false;
  }
}
