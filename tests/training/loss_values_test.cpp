#include <graft/training/loss_values.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "support/ramp.hpp"

using graft::Index;
using graft::Matrix;
using support::ramp;

namespace {

/// Rows further apart than they are wide, between sentinels.
template <class T>
struct Strided {
  Index n, cols, stride;
  std::vector<T> values;
  Strided(Index rows, Index width) : n(rows), cols(width), stride(width + 3), values(std::size_t(rows * stride), T(77)) {}
  explicit Strided(const Matrix<T>& m) : Strided(m.rows(), m.cols()) { out() = m; }
  graft::Out<T> out() { return graft::out(values.data(), n, cols, stride); }
  graft::In<T> in() const { return graft::in(values.data(), n, cols, stride); }
  [[nodiscard]] bool kept_gaps() const {
    for (std::size_t i = 0; i < values.size(); ++i)
      if (Index(i) % stride >= cols && values[i] != T(77)) return false;
    return true;
  }
};
template <class T>
const graft::Out<T> none = graft::out<T>(nullptr, 0, 0);

const std::vector<int> targets{2, -100, 0, 6, 2};

/// What torch 2.13 answered in f64 for logits 2·ramp(5, 7, salt=1).
struct Recorded {
  double smoothing, loss;
  double first[7], fourth[7];
};
const Recorded recorded[] = {
    {0,
     2.3696685649624647,
     {0.013465854372819806, 0.001419290608958198, -0.20299955002362166, 0.004953810981568973, 0.16404768957258975,
      0.017290499272116396, 0.0018224052155685487},
     {0.0026606705586423095, 0.0881093080626264, 0.009286652746483244, 0.000978805998254642, 0.03241360301208146,
      0.0034163686227294972, -0.13686540900081756}},
    {0.1,
     2.441097136391036,
     {0.009894425801391231, -0.002152137962470374, -0.18157097859505023, 0.0013823824101404003, 0.16047626100116114,
      0.01371907070068782, -0.0017490233558600235},
     {-0.0009107580127862623, 0.08453787949119783, 0.005715224175054673, -0.0025926225731739295, 0.028842174440652887,
      -0.00015505994869907452, -0.11543683757224613}}};

template <class T>
void check_against_torch(double tolerance) {
  const Strided<T> logits(Matrix<T>(2 * ramp<T>(5, 7, 1)));
  for (const Recorded& torch : recorded) {
    Strided<T> dlogits(5, 7);
    const double loss = graft::cross_entropy_values<T>(logits.in(), targets, dlogits.out(), {torch.smoothing});
    CHECK(std::abs(loss - torch.loss) <= tolerance);
    CHECK(std::abs(graft::cross_entropy_values<T>(logits.in(), targets, none<T>, {torch.smoothing}) - torch.loss) <= tolerance);
    REQUIRE(dlogits.out()(0, 2) != T(0));
    for (Index j = 0; j < 7; ++j) {
      CHECK(std::abs(double(dlogits.out()(0, j)) - torch.first[j]) <= tolerance);
      CHECK(std::abs(double(dlogits.out()(3, j)) - torch.fourth[j]) <= tolerance);
      CHECK(dlogits.out()(1, j) == T(0));
    }
    CHECK(dlogits.kept_gaps());
  }
}

}  // namespace

TEST_CASE("cross entropy and its gradient are torch's") {
  check_against_torch<double>(1e-14);
  check_against_torch<float>(1e-6);  // logits of 2.75 and a softmax in float: 8 roundings of 2^-24, times the loss of 2.4
}

TEST_CASE("the gradient of cross entropy is the slope of its loss") {
  Matrix<double> logits = ramp<double>(5, 13, 4);
  const std::vector<int> own{12, 0, -100, 7, 3};
  for (const double smoothing : {0.0, 0.3}) {
    Strided<double> dlogits(5, 13);
    (void)graft::cross_entropy_values<double>(graft::in(logits), own, dlogits.out(), {smoothing});
    REQUIRE(dlogits.out().cwiseAbs().maxCoeff() > 0.1);
    const double h = 1e-5;  // the rest of a central difference is h²/6 · the third derivative < 1e-11; rounding 1e-16 / h
    for (Index i = 0; i < logits.size(); ++i) {
      const double kept = logits.data()[i];
      const auto at = [&](double value) {
        logits.data()[i] = value;
        return graft::cross_entropy_values<double>(graft::in(logits), own, none<double>, {smoothing});
      };
      const double slope = (at(kept + h) - at(kept - h)) / (2 * h);
      logits.data()[i] = kept;
      CHECK(std::abs(slope - dlogits.out()(i / 13, i % 13)) < 1e-9);
    }
  }
}

TEST_CASE("logits of any size give finite losses") {
  Matrix<double> logits(2, 3);
  logits << 1000, 0, -1000, -1e4, -1e4 + 1, -3e4;
  Matrix<double> dlogits(2, 3);
  const std::vector<int> own{2, 0};
  // torch: 1000.6566308437591
  CHECK(std::abs(graft::cross_entropy_values<double>(graft::in(logits), own, graft::out(dlogits)) - 1000.6566308437591) < 1e-11);
  CHECK(std::abs(graft::cross_entropy_values<double>(graft::in(logits), own, none<double>) - 1000.6566308437591) < 1e-11);
  CHECK(dlogits(0, 0) == 0.5);
  CHECK(dlogits(0, 2) == -0.5);
  CHECK(std::abs(dlogits(1, 0) + 0.36552928931500245) < 1e-15);

  const Matrix<float> narrow = logits.cast<float>();
  Matrix<float> dnarrow(2, 3);
  CHECK(std::abs(graft::cross_entropy_values<float>(graft::in(narrow), own, graft::out(dnarrow)) - 1000.6566308437591) < 1e-3);
}

TEST_CASE("many classes do not cost digits in float") {
  constexpr Index classes = 50257;
  Matrix<float> logits(1, classes), dlogits(1, classes);
  for (Index j = 0; j < classes; ++j) logits(0, j) = 3 * float(std::sin(0.37 * double(j)));
  double sum = 0;
  for (Index j = 0; j < classes; ++j) sum += std::exp(double(logits(0, j)));
  const std::vector<int> own{50256};
  const double expected = std::log(sum) - double(logits(0, 50256));
  const double loss = graft::cross_entropy_values<float>(graft::in(logits), own, graft::out(dlogits));
  CHECK(std::abs(loss - expected) < 1e-6);  // one rounding of the largest probability, and expf's few
  CHECK(std::abs(dlogits.cast<double>().sum()) < 1e-5);
}

TEST_CASE("targets that are none are errors, and nothing is written") {
  const Matrix<double> logits = ramp<double>(2, 3);
  Matrix<double> dlogits = Matrix<double>::Constant(2, 3, 5);
  const auto with = [&](std::vector<int> own, double smoothing = 0) {
    (void)graft::cross_entropy_values<double>(graft::in(logits), own, graft::out(dlogits), {smoothing});
  };
  CHECK_THROWS_AS(with({0, 3}), graft::ShapeError);
  CHECK_THROWS_AS(with({-1, 0}), graft::ShapeError);
  CHECK_THROWS_AS(with({-99, 0}), graft::ShapeError);
  CHECK_THROWS_AS(with({0}), graft::ShapeError);
  CHECK_THROWS_AS(with({0, 1, 2}), graft::ShapeError);
  CHECK_THROWS_AS(with({-100, -100}), graft::TrainingError);  // torch: NaN
  CHECK_THROWS_AS(with({0, 1}, -0.1), graft::TrainingError);
  CHECK_THROWS_AS(with({0, 1}, std::numeric_limits<double>::quiet_NaN()), graft::TrainingError);
  CHECK((dlogits.array() == 5).all());
  Matrix<double> wrong(2, 4);
  CHECK_THROWS_AS((void)graft::cross_entropy_values<double>(graft::in(logits), std::vector<int>{0, 1}, graft::out(wrong)), graft::ShapeError);
  with({-100, 2});
  CHECK(dlogits(0, 1) == 0);
  CHECK(dlogits(1, 2) < 0);
}

TEST_CASE("the mean of squares is torch's") {
  const auto check = [&]<class T>(T, double tolerance) {
    const Strided<T> x(Matrix<T>(2 * ramp<T>(5, 7, 1))), target(ramp<T>(5, 7, 2));
    Strided<T> dx(5, 7);
    const double loss = graft::mse_values<T>(x.in(), target.in(), dx.out());
    CHECK(std::abs(loss - 4.777678571428571) <= tolerance);
    CHECK(graft::mse_values<T>(x.in(), target.in(), none<T>) == loss);
    const double last[] = {0.09285714285714286, -0.1357142857142857, 0.12857142857142856, -0.09999999999999999,
                           0.16428571428571428, 0.09999999999999999, -0.12857142857142856};
    for (Index j = 0; j < 7; ++j) CHECK(std::abs(double(dx.out()(4, j)) - last[j]) <= tolerance);
    CHECK(dx.kept_gaps());
  };
  check(double{}, 1e-15);
  check(float{}, 1e-7);
  const Matrix<double> x(2, 3), other(3, 2), nothing(0, 3);
  CHECK_THROWS_AS((void)graft::mse_values<double>(graft::in(x), graft::in(other), none<double>), graft::ShapeError);
  CHECK_THROWS_AS((void)graft::mse_values<double>(graft::in(nothing), graft::in(nothing), none<double>), graft::TrainingError);
}
