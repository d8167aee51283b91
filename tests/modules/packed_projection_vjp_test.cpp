#include "graft/modules/packed_projection_vjp.hpp"

#include <doctest/doctest.h>

#include "support/op_gradients.hpp"
#include "support/ramp.hpp"
#include "support/recorded.hpp"

using namespace graft;
using support::agrees;
using support::ramp;
using support::vjp_of;

TEST_CASE_TEMPLATE("rows of a packed projection train theirs of its weight", T, float, double) {
  PackedProjection<T> packed(5, 21, true);
  support::fill_ramp(packed.in_proj_weight, 2);
  support::fill_ramp(packed.in_proj_bias, 3);
  const Matrix<T> x = ramp<T>(3, 5, 1), dy = ramp<T>(3, 7, 4);
  const ops::ProjectionRows<PackedProjection<T>> op{{&packed, 7, 7}};
  Gradients gradients;
  CHECK_FALSE(op.trainable({}));
  // multiples of 1/64: exact
  CHECK(vjp_of<T>(op, dy, {x}, gradients)[0] == dy * packed.in_proj_weight.view().middleRows(7, 7));
  CHECK(gradients.empty());
  packed.in_proj_weight.set_requires_grad(true);
  packed.in_proj_bias.set_requires_grad(true);
  CHECK(op.trainable({}));
  (void)vjp_of<T>(op, dy, {x}, gradients);
  REQUIRE(gradients.size() == 2);
  Matrix<T> dw = Matrix<T>::Zero(21, 5), db = Matrix<T>::Zero(1, 21);
  dw.middleRows(7, 7) = dy.transpose() * x;
  db.middleCols(7, 7) = dy.colwise().sum();
  CHECK(gradients.of(packed.in_proj_weight) == dw);
  CHECK(gradients.of(packed.in_proj_bias) == db);
}

TEST_CASE("they are what differences say") {
  PackedProjection<double> packed(13, 21, true);
  support::fill_ramp(packed.in_proj_weight, 2);
  support::fill_ramp(packed.in_proj_bias, 3);
  packed.in_proj_weight.set_requires_grad(true);
  const ops::ProjectionRows<PackedProjection<double>> op{{&packed, 3, 7}};
  std::vector<Matrix<double>> x{ramp<double>(5, 13, 1)};
  const Matrix<double> dy = ramp<double>(5, 7, 4);
  support::check_input_gradients(op, dy, x);
  Gradients gradients;
  (void)vjp_of<double>(op, dy, x, gradients, 0);
  const auto loss = [&] { return support::forward_of<double>(op, x).cwiseProduct(dy).sum(); };
  CHECK(agrees(gradients.of(packed.in_proj_weight), support::differences(21, 13, packed.in_proj_weight.data(), loss), support::difference_error));
}

TEST_CASE("recorded rows are projected through it") {
  PackedProjection<double> packed(5, 21, true);
  support::fill_ramp(packed.in_proj_weight, 2);
  packed.in_proj_weight.set_requires_grad(true);
  const support::Recording<double> x{ramp<double>(3, 5, 1)};
  const auto y = BaseProjection(packed)(x, 7, 7);
  CHECK(y.trains);
  Gradients gradients;
  CHECK(!y.backward(ramp<double>(3, 7, 4), gradients)[0].isZero(0));
  CHECK(gradients.size() == 1);
}
