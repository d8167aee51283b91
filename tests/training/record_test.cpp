#include <doctest/doctest.h>

#include <limits>

#include <graft/graft.hpp>
#include <graft/training/record.hpp>

#include "support/allocations.hpp"
#include "training/toy_ops.hpp"

using namespace graft;

namespace {
template <class T>
Matrix<T> ramp(Index rows, Index cols, double start = -1, double step = 0.37) {
  Matrix<T> x(rows, cols);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = T(start + step * double(i % 11));
  return x;
}
}  // namespace

TEST_CASE_TEMPLATE("what is recorded has the values of Rows, and gradients by the chain rule", T, float, double) {
  const Matrix<T> x = ramp<T>(7, 3), dy = ramp<T>(7, 3, 0.5, -0.2);
  Batch batch;
  batch.add(4).add(3);
  Tape tape;
  const Var<T> in = tape.input(batch.input(x), true);
  const Var<T> square = custom(toy::Square{}, in);
  const Var<T> y = custom(toy::Product{}, square, in);  // x³
  CHECK(Matrix<T>(y.value()) == Matrix<T>(custom(toy::Product{}, custom(toy::Square{}, batch.input(x)), batch.input(x)).value()));
  CHECK(y.batch() == &batch);
  CHECK(tape.size() == 2);
  tape.backward(y, dy);
  const Matrix<T> expected = (3 * x.array().square() * dy.array()).matrix();
  REQUIRE(expected.norm() > 1);
  CHECK((in.grad() - expected).norm() <= 4 * std::numeric_limits<T>::epsilon() * expected.norm());
}

TEST_CASE("one value that is both operands gets both gradients") {
  const Matrix<double> x = ramp<double>(2, 3), dy = ramp<double>(2, 3, 2);
  Tape tape;
  const Var<double> in = tape.input(x, true);
  tape.backward(custom(toy::Product{}, in, in), dy);
  CHECK((in.grad() - (2 * x.array() * dy.array()).matrix()).norm() < 1e-14);
}

TEST_CASE("nothing is recorded below the first parameter that wants a gradient") {
  Parameter<double> p(Shape{3});
  p.view() << 1, -2, 3;
  const Matrix<double> x = ramp<double>(2, 3);
  Tape tape;
  const Var<double> below = custom(toy::Square{}, tape.input(x));
  CHECK_FALSE(below.needs_grad());
  CHECK_FALSE(custom(toy::Scaled<double>{&p}, below).needs_grad());
  CHECK(tape.size() == 0);
  p.set_requires_grad(true);
  const Var<double> y = custom(toy::Scaled<double>{&p}, below);
  CHECK(y.needs_grad());
  CHECK(tape.size() == 1);
  tape.backward(y, Matrix<double>::Ones(2, 3));
  REQUIRE(tape.gradients().find(p) != nullptr);
  CHECK((*tape.gradients().find(p) - x.array().square().matrix().colwise().sum()).norm() < 1e-14);
}

TEST_CASE("an op is asked for the gradients that somebody wants, and for no others") {
  const Matrix<double> x = ramp<double>(2, 3);
  std::vector<bool> wanted;
  Tape tape;
  const Var<double> in = tape.input(x, true);
  tape.backward(custom(toy::WatchedProduct{{}, &wanted}, tape.input(x), in), x);
  CHECK(wanted == std::vector<bool>{false, true});
  CHECK((in.grad() - x.array().square().matrix()).norm() < 1e-14);
}

TEST_CASE("gradients of parameters add up until they are cleared, over passes too") {
  Parameter<double> p(Shape{3});
  p.set_requires_grad(true);
  const Matrix<double> x = ramp<double>(2, 3), ones = Matrix<double>::Ones(2, 3);
  Tape tape;
  const Var<double> y = custom(toy::Scaled<double>{&p}, tape.input(x));
  tape.backward(y, ones);
  const Matrix<double> once = *tape.gradients().find(p);
  REQUIRE(once.norm() > 0.1);
  tape.backward(y, ones);
  CHECK((*tape.gradients().find(p) - 2 * once).norm() < 1e-14);
  tape.clear();
  tape.backward(custom(toy::Scaled<double>{&p}, tape.input(x)), ones);
  CHECK((*tape.gradients().find(p) - 3 * once).norm() < 1e-14);
  tape.gradients().clear();
  CHECK(tape.gradients().find(p) == nullptr);
}

TEST_CASE("an op with a row rule goes back to the rows that it kept") {
  const Matrix<double> x = ramp<double>(7, 3), dy = ramp<double>(2, 3, 3);
  Batch batch;
  batch.add(4).add(3);
  Tape tape;
  const Var<double> in = tape.input(batch.input(x), true);
  const Var<double> y = custom(toy::Final{}, in);
  CHECK(y.rows() == 2);
  CHECK(y.batch() == &batch.tail(1));
  tape.backward(custom(toy::Square{}, y), dy);
  Matrix<double> expected = Matrix<double>::Zero(7, 3);
  expected.row(3) = (2 * x.row(3).array() * dy.row(0).array()).matrix();
  expected.row(6) = (2 * x.row(6).array() * dy.row(1).array()).matrix();
  CHECK((in.grad() - expected).norm() < 1e-14);
  const Var<double> plain = custom(toy::Final{}, tape.input(x));  // without a batch: one sequence
  CHECK(plain.rows() == 1);
  CHECK(plain.value().row(0) == x.row(6));
}

TEST_CASE("a value between keeps its gradient when asked to, for every way back") {
  const Matrix<double> x = ramp<double>(2, 3), dy = ramp<double>(2, 3, 2);
  Tape tape;
  const Var<double> in = tape.input(x, true);
  const Var<double> between = custom(toy::Square{}, in);
  const Var<double> y = custom(toy::Square{}, between);
  CHECK_THROWS_AS((void)between.grad(), TrainingError);
  between.retain_grad();
  tape.backward(y, dy);
  const Matrix<double> once = (2 * x.array().square() * dy.array()).matrix();
  CHECK((between.grad() - once).norm() < 1e-14);
  const Matrix<double> by_input = in.grad();
  tape.backward(y, dy);
  CHECK((between.grad() - 2 * once).norm() < 1e-14);
  CHECK((in.grad() - 2 * by_input).norm() < 1e-13);
  CHECK_THROWS_AS((void)y.grad(), TrainingError);
}

TEST_CASE("rows that do not belong together, and ways that lead nowhere, are refused") {
  const Matrix<double> x = ramp<double>(7, 3);
  Batch batch, other;
  batch.add(7);
  other.add(7);
  Tape tape, second;
  const Var<double> a = tape.input(batch.input(x), true), b = tape.input(other.input(x)), c = tape.input(x), d = second.input(batch.input(x));
  CHECK_THROWS_AS(custom(toy::Product{}, a, b), ShapeError);
  CHECK_THROWS_AS(custom(toy::Product{}, a, c), ShapeError);
  CHECK_THROWS_AS(custom(toy::Product{}, a, d), ShapeError);
  CHECK_THROWS_AS(custom(toy::Product{}, c, tape.input(Matrix<double>(x.topRows(3)))), ShapeError);
  CHECK_THROWS_AS(tape.backward(custom(toy::Square{}, b), x), TrainingError);
  const Var<double> y = custom(toy::Square{}, a);
  CHECK_THROWS_AS(tape.backward(y, x.topRows(3)), ShapeError);
  batch.add(2);
  CHECK_THROWS_AS(tape.backward(y, x), TrainingError);
}

TEST_CASE("a pass like the one before allocates nothing") {
  const Matrix<float> x = ramp<float>(13, 7);
  Parameter<float> p(Shape{7});
  p.set_requires_grad(true);
  Batch batch;
  Tape tape;
  const Matrix<float> dy = ramp<float>(2, 7);
  const auto pass = [&] {
    batch.clear();
    batch.add(6).add(7);
    const Var<float> h = custom(toy::Scaled<float>{&p}, tape.input(batch.input(x)));
    tape.backward(custom(toy::Final{}, custom(toy::Product{}, custom(toy::Square{}, h), h)), dy);
    tape.gradients().clear();
    tape.clear();
  };
  pass();
  pass();
  CHECK(support::allocations_of(pass) == 0);
}

TEST_CASE("whether an op can be gone back through is known when it is compiled") {
  CHECK(detail::OpWithVjp<toy::Square, float>);
  CHECK(detail::OpWithVjp<toy::Scaled<double>, double>);
  CHECK_FALSE(detail::OpWithVjp<toy::Doubled, float>);
}
