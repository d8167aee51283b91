#include <doctest/doctest.h>

#include <cmath>

#include <graft/tensor/gradients.hpp>

using namespace graft;

TEST_CASE_TEMPLATE("a gradient is zeros until something is added, and has the sizes of the parameter", T, float, double) {
  const Parameter<T> weight(Shape{3, 7});
  const Parameter<T> kernel(Shape{2, 3, 5});
  Gradients gradients;
  CHECK(gradients.find(weight) == nullptr);
  CHECK(gradients.empty());
  gradients.of(weight)(1, 2) += T(3);
  gradients.of(weight)(1, 2) += T(1);
  REQUIRE(gradients.find(weight) != nullptr);
  CHECK((*gradients.find(weight))(1, 2) == T(4));
  CHECK(gradients.find(weight)->sum() == T(4));
  CHECK(gradients.of(kernel).rows() == 2);
  CHECK(gradients.of(kernel).cols() == 15);
  CHECK(gradients.size() == 2);
}

TEST_CASE("tied parameters share a gradient, copies do not") {
  const Parameter<> weight(Shape{2, 2});
  const Parameter<> tied = weight.share(), copy = weight;
  Gradients gradients;
  gradients.of(weight)(0, 0) = 1;
  gradients.of(tied)(0, 0) += 2;
  CHECK(gradients.of(weight)(0, 0) == 3);
  CHECK(gradients.find(copy) == nullptr);
}

TEST_CASE("a gradient follows its parameter to other memory") {
  const Parameter<> before(Shape{2, 2}), now(Shape{2, 2}), other(Shape{2, 2}), stale(Shape{3});
  Gradients gradients, more;
  gradients.of(stale).setConstant(9);
  gradients.clear();
  gradients.of(before).setConstant(3);
  gradients.of(other).setConstant(4);
  gradients.follow(before.data(), now.data());
  CHECK(gradients.find(before) == nullptr);
  REQUIRE(gradients.find(now));
  CHECK(gradients.find(now)->sum() == 12);
  more.add(gradients);
  REQUIRE(more.find(now));
  CHECK(gradients.size() == 2);
  gradients.follow(now.data(), now.data());
  gradients.follow(before.data(), other.data());  // nobody's
  gradients.follow(now.data(), other.data());     // one has its own
  CHECK(gradients.find(now)->sum() == 12);
  CHECK(gradients.find(other)->sum() == 16);
  gradients.follow(now.data(), stale.data());  // where memory was given back
  CHECK(gradients.size() == 2);
  CHECK(gradients.norm() == 10);
  gradients.clear();
  gradients.of(stale)(0, 0) = 1;
  CHECK(gradients.norm() == 1);
}

TEST_CASE("a narrow parameter has a gradient of float") {
  const Parameter<bf16> weight(Shape{2, 3});
  Gradients gradients;
  static_assert(std::is_same_v<decltype(gradients.of(weight)), Matrix<float>&>);
  gradients.of(weight)(0, 0) = 0.1f;
  CHECK((*gradients.find(weight))(0, 0) == 0.1f);
}

TEST_CASE("a view of an adapter's parameter finds what the parameter does") {
  const Parameter<double> weight(Shape{2, 3});
  Gradients gradients;
  gradients.at<double>(weight.untyped())(1, 1) = 5;
  const ParameterView view(weight.untyped());
  REQUIRE(gradients.find<double>(view) != nullptr);
  CHECK((*gradients.find<double>(view))(1, 1) == 5);
  CHECK(gradients.find<float>(view) == nullptr);
  CHECK(gradients.of<double>(view)(1, 1) == 5);
}

TEST_CASE("clear() forgets the values, and the next pass starts from zeros") {
  const Parameter<> first(Shape{2, 2}), second(Shape{3});
  Gradients gradients;
  gradients.of(first).setConstant(3);
  const float* memory = gradients.of(first).data();
  gradients.clear();
  CHECK(gradients.empty());
  CHECK(gradients.find(first) == nullptr);
  gradients.of(second).setConstant(1);
  CHECK(gradients.of(first).isZero(0));
  CHECK(gradients.of(first).data() == memory);
}

TEST_CASE("the norm is over all of them, and so is the factor") {
  const Parameter<> first(Shape{1, 2});
  const Parameter<double> second(Shape{1});
  Gradients gradients;
  gradients.of(first) << 1, 2;
  gradients.of(second) << 2;
  CHECK(gradients.norm() == doctest::Approx(3));
  gradients.scale(0.5);
  CHECK(gradients.of(first)(0, 1) == 1);
  CHECK(gradients.of(second)(0, 0) == 1);
}

TEST_CASE("gradients of passes are added up") {
  const Parameter<> first(Shape{1, 2});
  const Parameter<double> second(Shape{1});
  Gradients sum, other;
  sum.of(first) << 1, 2;
  other.of(first) << 4, 8;
  other.of(second) << 2;
  sum.add(other, 0.5);
  CHECK(sum.of(first) == Matrix<>{{3, 6}});
  CHECK(sum.of(second)(0, 0) == 1);
  CHECK(other.of(first) == Matrix<>{{4, 8}});
}

TEST_CASE("parameters on the same memory must agree about what they are") {
  Parameter<> weight(Shape{2, 3});
  Parameter<float, mapped> other(Shape{3, 2});
  other.bind(weight.data());
  Gradients gradients;
  gradients.of(weight).setConstant(1);
  CHECK_THROWS_AS((void)gradients.of(other), TrainingError);
  CHECK_THROWS_AS((void)gradients.at<double>(weight.untyped()), TrainingError);
  CHECK(gradients.of(weight)(0, 0) == 1);
}
