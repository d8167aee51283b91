#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include <graft/graft.hpp>
#include <graft/training/loss.hpp>

#include "training/toy_ops.hpp"

using namespace graft;

TEST_CASE_TEMPLATE("cross_entropy of recorded logits, and its gradient by them", T, float, double) {
  const Matrix<T> x{{1, -2, T(0.5)}, {0, 3, 1}, {T(-0.25), T(0.75), 2}};
  Tape tape;
  const Var<T> logits = tape.input(x, true);
  const Loss loss = cross_entropy(logits, std::vector<int>{2, -100, 1});
  // torch.nn.functional.cross_entropy of the same in float64
  CHECK(loss.value() == doctest::Approx(1.2926347558747537).epsilon(1e-6));
  REQUIRE(loss.needs_grad());
  tape.backward(loss);
  const Matrix<double> gradient{{0.30187445, 0.01502944, -0.31690389}, {0, 0, 0}, {0.03786153, -0.39708170, 0.35922017}};
  CHECK((logits.grad().template cast<double>() - gradient).cwiseAbs().maxCoeff() < 1e-7);
  tape.backward(loss, 0.5);
  CHECK((logits.grad().template cast<double>() - 1.5 * gradient).cwiseAbs().maxCoeff() < 1e-6);
}

TEST_CASE("mse_loss, and a loss of one's own, go through what was recorded") {
  const Matrix<double> x{{1, 2}, {3, -1}}, target{{0, 2}, {5, 1}};
  Tape tape;
  const Var<double> in = tape.input(x, true);
  const Var<double> square = custom(toy::Square{}, in);
  const Loss mean = mse_loss(square, target);
  CHECK(mean.value() == doctest::Approx((1 + 4 + 16 + 0) / 4.0));
  tape.backward(mean);
  CHECK((in.grad() - Matrix<double>{{2 * 1 * 2 * 1 / 4.0, 2 * 2 * 2 * 2 / 4.0}, {2 * 4 * 2 * 3 / 4.0, 0}}).norm() < 1e-14);
  tape.clear();

  const Var<double> again = tape.input(x, true);
  const Loss sum = loss_of(again, [](const auto& y, auto dy) {
    CHECK(dy.isZero(0));
    dy(0, 1) = 3;
    return 3 * y(0, 1);
  });
  CHECK(sum.value() == 6);
  tape.backward(sum);
  CHECK(again.grad() == Matrix<double>{{0, 3}, {0, 0}});
}

TEST_CASE("a loss of nothing that wants gradients, of another tape, or with targets that do not fit is refused") {
  const Matrix<float> x = Matrix<float>::Ones(2, 3);
  Tape tape, other;
  const Loss frozen = cross_entropy(tape.input(x), std::vector<int>{0, 1});
  CHECK_FALSE(frozen.needs_grad());
  CHECK(frozen.value() == doctest::Approx(std::log(3.0)));
  CHECK_THROWS_AS(tape.backward(frozen), TrainingError);
  const Var<float> in = tape.input(x, true);
  const Loss loss = cross_entropy(in, std::vector<int>{0, 1});
  CHECK_THROWS_AS(other.backward(loss), TrainingError);
  CHECK_THROWS_AS((void)cross_entropy(in, std::vector<int>{0}), ShapeError);
  CHECK_THROWS_AS((void)cross_entropy(in, std::vector<int>{0, 3}), ShapeError);
  CHECK_THROWS_AS((void)mse_loss(in, Matrix<float>::Ones(3, 2)), ShapeError);
}
