#include "graft/modules/ops_vjp.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "support/op_gradients.hpp"
#include "support/ramp.hpp"

using namespace graft;
using support::close;
using support::ramp;
using support::vjp_of;

namespace {
const Matrix<double> dy = ramp<double>(7, 13, 4);
/// No element is 0, where relu has a corner.
const Matrix<double> x = 1.25 * ramp<double>(7, 13, 1).array() + 0.03;

template <class Op>
void check(const Op& op, const std::vector<double>& torch) {
  const Matrix<double> x_there = 2 * ramp<double>(2, 5, 1), dy_there = ramp<double>(2, 5, 4);
  Gradients gradients;
  CHECK(close(vjp_of<double>(op, dy_there, {x_there}, gradients)[0], torch, 1e-11));  // the literals' digits
  CHECK(close(vjp_of<float>(op, dy_there.cast<float>(), {x_there.cast<float>()}, gradients)[0], torch, 1e-6));
  support::check_input_gradients(op, dy, {x});
  support::check_float_gradients(op, dy, {x});
  CHECK(gradients.empty());
}
}  // namespace

// torch's autograd for x = 2 * ramp(2, 5, salt=1) and dy = ramp(2, 5, salt=4), in double
TEST_CASE("relu") { check(ops::Relu(), {0, 0, -1, 0, -0.375, 1.375, 0, -0.875, 0, -0.25}); }
TEST_CASE("silu") {
  check(ops::Silu(), {0.625, -0.0123413637621, -0.993680844915, 0.0542471160964, -0.412275416753, 0.857601279659, -0.0226960621962,
                      -0.911132385012, 0.137725048565, -0.27380575565});
}
TEST_CASE("gelu") {
  check(ops::GeluErf(), {0.625, -0.0073987179969, -1.12266158307, -0.0624866029408, -0.389104157216, 0.956138362965, -0.0213079502695,
                         -0.986535543201, 0.000677493478169, -0.255506883411});
  check(ops::GeluTanh(), {0.625, -0.00748931681472, -1.12249263225, -0.0622230628843, -0.38923184108, 0.956111880833, -0.0215248141559,
                          -0.986746944008, 0.000929025879762, -0.255487230398});
}
TEST_CASE("tanh and sigmoid") {
  check(ops::Tanh(), {1.25, 0.00543311486111, -0.28041486618, 0.314980756211, -0.00997208500619, 1.29252041711, 0.0176627062133,
                      -0.158118309058, 0.522012582246, -0.00405357169487});
  check(ops::Sigmoid(), {0.3125, 0.0107822430553, -0.173104786992, 0.147458949931, -0.0262888937044, 0.338434363764, 0.0262483963509,
                         -0.130503145562, 0.190658119542, -0.0141190611612});
}
TEST_CASE("softmax") {
  check(ops::Softmax(), {0.0950794472, 0.0031057903653, -0.126160575662, 0.0242499959588, 0.00372534213782, 0.0950794472, 0.0031057903653,
                         -0.126160575662, 0.0242499959588, 0.00372534213782});
}

TEST_CASE_TEMPLATE("relu's gradient is 0 at 0, and that of NaN is handed on", T, float, double) {
  Matrix<T> corner(1, 5);
  corner << T(0), T(-0.0), std::numeric_limits<T>::min(), std::numeric_limits<T>::quiet_NaN(), T(-1);
  Gradients gradients;
  CHECK(close(vjp_of<T>(ops::Relu(), Matrix<T>::Ones(1, 5), {corner}, gradients)[0], {0, 0, 1, 1, 0}, 0));
  const Matrix<T> endless = Matrix<T>::Constant(1, 5, std::numeric_limits<T>::infinity());
  CHECK(vjp_of<T>(ops::Relu(), endless, {corner}, gradients)[0](0, 4) == 0);
}

TEST_CASE_TEMPLATE("far from 0 gradients are their limits", T, float, double) {
  Matrix<T> far(1, 4);
  far << T(-200), T(-30), T(30), T(200);
  Gradients gradients;
  const Matrix<T> one = Matrix<T>::Ones(1, 4);
  CHECK(close(vjp_of<T>(ops::Silu(), one, {far}, gradients)[0], {0, 0, 1, 1}, 1e-11));
  CHECK(close(vjp_of<T>(ops::GeluErf(), one, {far}, gradients)[0], {0, 0, 1, 1}, 1e-11));
  CHECK(close(vjp_of<T>(ops::GeluTanh(), one, {far}, gradients)[0], {0, 0, 1, 1}, 1e-11));
  CHECK(vjp_of<T>(ops::Tanh(), one, {far}, gradients)[0].isZero(T(1e-11)));
  CHECK(vjp_of<T>(ops::Sigmoid(), one, {far}, gradients)[0].isZero(T(1e-11)));
}

TEST_CASE("ops of two operands") {
  const Matrix<double> other = ramp<double>(7, 13, 2);
  support::check_input_gradients(ops::Add(), dy, {x, other});
  support::check_input_gradients(ops::Mul(), dy, {x, other});
  support::check_input_gradients(ops::Concat(), dy, {Matrix<double>(x.leftCols(5)), Matrix<double>(other.leftCols(8))});
  support::check_float_gradients(ops::Add(), dy, {x, other});
  support::check_float_gradients(ops::Mul(), dy, {x, other});
  support::check_float_gradients(ops::Concat(), dy, {Matrix<double>(x.leftCols(5)), Matrix<double>(other.leftCols(8))});
}

TEST_CASE("ops of one") {
  support::check_input_gradients(ops::Scale(-0.3), dy, {x});
  support::check_input_gradients(ops::Slice{3, 5}, ramp<double>(7, 5, 4), {x});
  support::check_input_gradients(ops::Flatten(), dy, {x});
  support::check_float_gradients(ops::Scale(-0.3), dy, {x});
  support::check_float_gradients(ops::Slice{3, 5}, ramp<double>(7, 5, 4), {x});
  support::check_float_gradients(ops::Flatten(), dy, {x});
}

TEST_CASE("an operand that stands twice gets both gradients") {
  const Matrix<double> a = ramp<double>(3, 5, 1), g = ramp<double>(3, 5, 4);
  const auto twice = [&](const auto& op) {
    Matrix<double> dx = Matrix<double>::Zero(3, 5);
    const In<double> views[] = {in(a), in(a)};
    const Out<double> to[] = {out(dx), out(dx)};
    Gradients gradients;
    op.template vjp<double>({}, gradients, in(g), in(g), std::span(views), std::span<const Out<double>>(to));
    return dx;
  };
  CHECK(twice(ops::Mul()) == Matrix<double>(2 * a.cwiseProduct(g)));
  CHECK(twice(ops::Add()) == 2 * g);
}
