#include "graft/modules/norm_vjp.hpp"

#include <doctest/doctest.h>

#include "support/op_gradients.hpp"
#include "support/ramp.hpp"

using namespace graft;
using support::agrees;
using support::close;
using support::difference_error;
using support::ramp;
using support::vjp_of;

namespace {
// torch's autograd, in double, for x = ramp(3, 5, salt=1), weight = ramp(5, salt=2), bias = ramp(5, salt=3), dy = ramp(3, 5, salt=4)
const std::vector<double> rms_dx{2.06353053685, 0.154637868954,  0.985458452544, 0.839946425228, -0.0175761576989,
                                 2.20293460417, 0.251891082872,  0.767377090774, 0.967998226059, -0.171642424952,
                                 -2.224477895,  0.0403723424046, 0.850105295739, 1.01862276002,  -0.0743697630769};
const std::vector<double> rms_dw{-0.205842325838, -0.852663022702, -2.30193511488, -1.1332469442, -0.763299780054};
const std::vector<double> layer_dx{1.25767892986,  -0.72029114045,  0.214133411437,  0.00271835246389, -0.754239553311,
                                   1.41947668875,  -0.808223459199, 0.0824279187216, 0.0535249657355,  -0.747206114006,
                                   -2.25218936392, 0.103711564778,  1.02301063465,   1.16104171403,    -0.0355745495337};
const std::vector<double> layer_dw{-1.06463746925, -0.812597705437, -2.38014615868, -1.04356405064, -0.729351576176};
const std::vector<double> layer_db{1.25, 0.75, -2.625, 2.625, -0.75};
// F.rms_norm of heads of 3 of ramp(2, 6, salt=1), weight ramp(3, salt=2), dy = ramp(2, 6, salt=4)
const std::vector<double> heads_dx{2.31318304067,  0.509851675362,  0.917735011572, 1.04664921223,   0.565921414996,  -1.47263047259,
                                   0.284237628703, -0.161334398725, -1.08063443142, -0.216863178254, -0.334868979707, -0.436461486108};
const std::vector<double> heads_dw{-1.17327702433, -2.0218092289, -1.40114874614};

template <class Norm>
Norm made(Index n, bool trained = true) {
  Norm norm(n);
  support::fill_ramp(norm.weight, 2);
  norm.weight.set_requires_grad(trained);
  if constexpr (requires { norm.bias; }) {
    support::fill_ramp(norm.bias, 3);
    norm.bias.set_requires_grad(trained);
  }
  return norm;
}
template <class T>
constexpr double error = std::is_same_v<T, double> ? 1e-11 : 1e-6;  // twelve digits of the literals; float's own
}  // namespace

TEST_CASE_TEMPLATE("the gradients of norms are torch's", T, float, double) {
  Gradients gradients;
  const Matrix<T> x = ramp<T>(3, 5, 1), dy = ramp<T>(3, 5, 4);
  const auto rms = made<RMSNorm<T>>(5);
  CHECK(close(vjp_of<T>(rms.op(), dy, {x}, gradients)[0], rms_dx, error<T>));
  CHECK(close(gradients.of(rms.weight), rms_dw, error<T>));
  CHECK(gradients.size() == 1);
  const auto layer = made<LayerNorm<T>>(5);
  CHECK(close(vjp_of<T>(layer.op(), dy, {x}, gradients)[0], layer_dx, error<T>));
  CHECK(close(gradients.of(layer.weight), layer_dw, error<T>));
  CHECK(close(gradients.of(layer.bias), layer_db, error<T>));
  const auto heads = made<RMSNorm<T>>(3);
  CHECK(close(vjp_of<T>(heads.op(), ramp<T>(2, 6, 4), {ramp<T>(2, 6, 1)}, gradients)[0], heads_dx, error<T>));
  CHECK(close(gradients.of(heads.weight), heads_dw, error<T>));
}

TEST_CASE_TEMPLATE("they are what differences say, over heads too", Norm, RMSNorm<double>, LayerNorm<double>) {
  auto norm = made<Norm>(13);
  std::vector<Matrix<double>> x{ramp<double>(7, 39, 1)};
  const Matrix<double> dy = ramp<double>(7, 39, 4);
  support::check_input_gradients(norm.op(), dy, x);
  Gradients gradients;
  (void)vjp_of<double>(norm.op(), dy, x, gradients, 0);
  const auto loss = [&] { return support::forward_of<double>(norm.op(), x).cwiseProduct(dy).sum(); };
  CHECK(agrees(gradients.of(norm.weight), support::differences(1, 13, norm.weight.data(), loss), difference_error));
  if constexpr (requires { norm.bias; })
    CHECK(agrees(gradients.of(norm.bias), support::differences(1, 13, norm.bias.data(), loss), difference_error));
}

TEST_CASE("narrow weights have gradients of float") {
  const auto narrow = made<LayerNorm<bf16>>(13);
  const auto wide = made<LayerNorm<float>>(13);
  Gradients gradients;
  CHECK(vjp_of<float>(narrow.op(), ramp(3, 13, 4), {ramp(3, 13, 1)}, gradients) ==
        vjp_of<float>(wide.op(), ramp(3, 13, 4), {ramp(3, 13, 1)}, gradients));
  CHECK(!gradients.of(wide.weight).isZero(0));
  CHECK(gradients.of(narrow.weight) == gradients.of(wide.weight));
  CHECK(gradients.of(narrow.bias) == gradients.of(wide.bias));
}

TEST_CASE("a row of dx has the same bits alone and among others") {
  const auto norm = made<LayerNorm<float>>(13);
  Gradients gradients;
  const Matrix<> x = ramp(31, 13, 1), dy = ramp(31, 13, 4);
  const Matrix<> dx = vjp_of<float>(norm.op(), dy, {x}, gradients)[0];
  REQUIRE(!dx.row(7).isZero(0));
  CHECK(Matrix<>(dx.row(7)) == vjp_of<float>(norm.op(), Matrix<>(dy.row(7)), {Matrix<>(x.row(7))}, gradients)[0]);
}

TEST_CASE("only what is trained has a gradient") {
  auto norm = made<LayerNorm<float>>(5, false);
  Gradients gradients;
  (void)vjp_of<float>(norm.op(), ramp(3, 5, 4), {ramp(3, 5, 1)}, gradients);
  CHECK(gradients.empty());
  CHECK_FALSE(norm.op().trainable({}));
  norm.bias.set_requires_grad(true);
  CHECK(norm.op().trainable({}));
  (void)vjp_of<float>(norm.op(), ramp(3, 5, 4), {ramp(3, 5, 1)}, gradients);
  CHECK(gradients.size() == 1);
  REQUIRE(gradients.find(norm.bias) != nullptr);
  LayerNorm<> without(5, 1e-5, false);
  without.bias.set_requires_grad(true);
  CHECK_FALSE(without.op().trainable({}));
  auto rms = made<RMSNorm<float>>(5, false);
  CHECK_FALSE(rms.op().trainable({}));
  rms.weight.set_requires_grad(true);
  CHECK(rms.op().trainable({}));
}
