#include "graft/modules/parameter_layer_vjp.hpp"

#include <doctest/doctest.h>

#include "support/op_gradients.hpp"
#include "support/ramp.hpp"
#include "support/recorded.hpp"

using namespace graft;
using support::agrees;
using support::close;
using support::difference_error;
using support::ramp;
using support::vjp_of;

namespace {
// torch's autograd of stack([w[e] @ row for e, row in zip((2, 0, 2, 1), x)]): x = ramp(4, 5, salt=1), w = ramp(3, 4, 5, salt=2),
// dy = ramp(4, 4, salt=4). Exact in float.
const std::vector<std::int32_t> experts{2, 0, 2, 1};
const std::vector<double> torch_dx{-0.515625, 2.171875,  0.1875,    -1.078125, 0.890625, -1.734375, 0,         -0.421875, 0.234375,  -0.1875,
                                   -0.046875, 2.171875,  -0.28125,  0.140625,  -0.515625, 0.75,     -1.21875,  0.046875,  -0.84375,  -0.65625};
const std::vector<double> torch_dw{-0.046875, 0.375,    -0.28125, 0.140625,  -0.515625, 0.171875, -1.375,   1.03125,   -0.515625, 1.890625,
                                   0.03125,   -0.25,    0.1875,   -0.09375,  0.34375,   -0.109375, 0.875,   -0.65625,  0.328125,  -1.203125,
                                   -0.28125,  0.5625,   -0.75,    0.09375,   0.9375,    0.375,    -0.75,    1,         -0.125,    -1.25,
                                   -0.046875, 0.09375,  -0.125,   0.015625,  0.15625,   -0.46875, 0.9375,   -1.25,     0.15625,   1.5625,
                                   0.21875,   -2.171875, 1.546875, -0.84375, 0.359375,  -0.0625,  0.078125, -0.140625, 0,         0.5,
                                   -0.34375,  2.328125, -1.828125, 0.84375,  0.640625,  0.09375,  -1.171875, 0.796875, -0.46875,  0.421875};
// of stack([row @ w[e] …]) with w = ramp(3, 5, 4, salt=2)
const std::vector<double> turned_dx{-1.34375,  -0.296875, -1.765625, -0.71875, -0.03125, -1.15625,  -1.046875, -1.296875, 2.765625, -0.71875,
                                    -1.296875, -1.046875, -1.15625,  -0.90625, 0.0625,   -0.171875, -0.859375, 0.25,      -0.4375,  -1.484375};
const std::vector<double> turned_dw{-0.046875, 0.171875, 0.03125,   -0.109375, 0.375,     -1.375,   -0.25,    0.875,    -0.28125, 1.03125,
                                    0.1875,    -0.65625, 0.140625,  -0.515625, -0.09375,  0.328125, -0.515625, 1.890625, 0.34375,  -1.203125,
                                    -0.28125,  0.375,    -0.046875, -0.46875,  0.5625,    -0.75,    0.09375,  0.9375,   -0.75,    1,
                                    -0.125,    -1.25,    0.09375,   -0.125,    0.015625,  0.15625,  0.9375,   -1.25,    0.15625,  1.5625,
                                    0.21875,   -0.0625,  -0.34375,  0.09375,   -2.171875, 0.078125, 2.328125, -1.171875, 1.546875, -0.140625,
                                    -1.828125, 0.796875, -0.84375,  0,         0.84375,   -0.46875, 0.359375, 0.5,      0.640625, 0.421875};

template <class P>
P made(const Shape& shape, bool trained = true) {
  P parameter(shape);
  support::fill_ramp(parameter, 2);
  parameter.set_requires_grad(trained);
  return parameter;
}
/// A layer of a user's whose rows have gaps.
struct Broad {
  Matrix<double> store = ramp<double>(7, 20, 2);
};
}  // namespace
template <>
struct graft::layer_traits<Broad> {
  using scalar = double;
  [[maybe_unused]] static constexpr LayerKind kind = LayerKind::parameter;
  static Shape shape(const Broad&) { return {7, 13}; }
  static auto weight(auto& layer) { return in<double>(layer.store.data(), 7, 13, 20); }
};

TEST_CASE_TEMPLATE("the gradients of a stack are torch's", T, float, double) {
  const Matrix<T> x = ramp<T>(4, 5, 1), dy = ramp<T>(4, 4, 4);
  Gradients gradients;
  const auto stack = made<Parameter<T>>({3, 4, 5});
  const auto op = detail::expert_op(stack, experts);
  CHECK(op.trainable({}));
  CHECK(close(vjp_of<T>(op, dy, {x}, gradients)[0], torch_dx, 0));
  CHECK(gradients.size() == 1);
  CHECK(close(gradients.of(stack), torch_dw, 0));
  const auto turned = made<TransposedParameter<T>>({3, 5, 4});
  CHECK(close(vjp_of<T>(detail::expert_op(turned, experts), dy, {x}, gradients)[0], turned_dx, 0));
  CHECK(close(gradients.of(turned), turned_dw, 0));
}

TEST_CASE("they are what differences say, also of one expert and of no stack") {
  const Matrix<double> dy = ramp<double>(7, 13, 4);
  std::vector<Matrix<double>> x{ramp<double>(7, 3, 1)};
  const std::vector<std::int32_t> together{1, 1, 1, 0, 0, 2, 2}, all_one{2, 2, 2, 2, 2, 2, 2}, mixed{2, 0, 2, 1, 1, 0, 2}, some{0, 2, 0, 2, 2, 0, 0};
  const auto check = [&](auto parameter, const ExpertIds& ids) {
    const auto op = detail::expert_op(parameter, ids);
    support::check_input_gradients(op, dy, x);
    Gradients gradients;
    (void)vjp_of<double>(op, dy, x, gradients, 0);
    const auto loss = [&] { return support::forward_of<double>(op, x).cwiseProduct(dy).sum(); };
    CHECK(agrees(gradients.of(parameter), support::differences(parameter.rows(), parameter.cols(), parameter.data(), loss), difference_error));
  };
  for (const ExpertIds& ids : {ExpertIds(1), ExpertIds(together), ExpertIds(all_one), ExpertIds(mixed), ExpertIds(some)}) {
    check(made<Parameter<double>>({3, 13, 3}), ids);
    check(made<TransposedParameter<double>>({3, 3, 13}), ids);
  }
  check(made<Parameter<double>>({13, 3}), {});
  check(made<TransposedParameter<double>>({3, 13}), {});
}

TEST_CASE("what is frozen has no gradient") {
  const auto frozen = made<Parameter<double>>({3, 13, 3}, false);
  const auto op = detail::expert_op(frozen, 1);
  CHECK_FALSE(op.trainable({}));
  Gradients gradients;
  CHECK(!vjp_of<double>(op, ramp<double>(7, 13, 4), {ramp<double>(7, 3, 1)}, gradients)[0].isZero(0));
  CHECK(gradients.empty());
}

TEST_CASE("rows that are gathered have the bits of rows that lie together") {
  const auto stack = made<Parameter<bf16>>({2, 97, 13}, false);
  Gradients gradients;
  const Matrix<> x = ramp(4, 13, 1), dy = ramp(4, 97, 4) / 3;
  const std::vector<std::int32_t> apart{1, 0, 1, 0};
  const Matrix<> dx = vjp_of<float>(detail::expert_op(stack, apart), dy, {x}, gradients)[0];
  REQUIRE(!dx.isZero(0));
  for (Index i = 0; i < 4; ++i)
    CHECK(Matrix<>(dx.row(i)) ==
          vjp_of<float>(detail::expert_op(stack, apart[std::size_t(i)]), Matrix<>(dy.row(i)), {Matrix<>(x.row(i))}, gradients)[0]);
}

TEST_CASE("a weight with gaps hands gradients through, and is not trained") {
  const Broad broad;
  auto op = detail::expert_op(broad, {});
  const Matrix<double> dy = ramp<double>(5, 7, 4), x = ramp<double>(5, 13, 1);
  Gradients gradients;
  CHECK(vjp_of<double>(op, dy, {x}, gradients)[0] == dy * broad.store.leftCols(13));
  op.trained.weight = true;
  CHECK_THROWS_AS(vjp_of<double>(op, dy, {x}, gradients), TrainingError);
  CHECK(gradients.empty());
}

TEST_CASE("recorded rows keep their experts") {
  const auto stack = made<Parameter<double>>({3, 4, 5});
  const support::Recording<double> x{ramp<double>(4, 5, 1)};
  const auto recorded = [&](const auto& weight) {
    const std::vector<std::int32_t> gone = experts;
    return expert_linear(x, weight, gone);
  };
  Gradients gradients;
  const auto y = recorded(stack);
  CHECK(y.trains);
  CHECK(close(y.backward(ramp<double>(4, 4, 4), gradients)[0], torch_dx, 0));
  CHECK(close(gradients.of(stack), torch_dw, 0));
  CHECK(y.again() == y.value);
  const auto turned = made<TransposedParameter<double>>({3, 5, 4});
  CHECK(close(recorded(turned).backward(ramp<double>(4, 4, 4), gradients)[0], turned_dx, 0));
  const auto one = made<TransposedParameter<double>>({5, 4});
  CHECK(linear(x, one).trains);
  CHECK(!expert_linear(x, stack, 1).backward(ramp<double>(4, 4, 4), gradients)[0].isZero(0));
}
