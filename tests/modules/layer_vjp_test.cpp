#include "graft/modules/layer_vjp.hpp"

#include <doctest/doctest.h>

#include <graft/modules/quantized_linear_vjp.hpp>

#include "support/layer_gradients.hpp"
#include "support/op_gradients.hpp"
#include "support/ramp.hpp"

using namespace graft;
using support::agrees;
using support::dx_of;
using support::ramp;

namespace {
constexpr Index n = 5, in_features = 13, out_features = 7;
const Matrix<double> x = ramp<double>(n, in_features, 1), dy = ramp<double>(n, out_features, 4);
const Matrix<double> weight = ramp<double>(out_features, in_features, 2);

}  // namespace

TEST_CASE_TEMPLATE("graft's linear layers go through their op", T, float, double) {
  Linear<T> layer(in_features, out_features);
  layer.weight.view() = weight.cast<T>();
  Gradients gradients;
  CHECK(dx_of<T>(layer, dy.cast<T>(), x.cast<T>(), gradients) == (dy * weight).cast<T>());
  CHECK(gradients.empty());
  CHECK_FALSE(trains(layer));
  (void)dx_of<T>(layer, dy.cast<T>(), x.cast<T>(), gradients, {true, false});
  CHECK(gradients.size() == 1);
  CHECK(gradients.of(layer.weight) == (dy.transpose() * x).cast<T>());
  layer.bias.set_requires_grad(true);
  CHECK(trains(layer));
  gradients.clear();
  (void)dx_of<T>(layer, dy.cast<T>(), x.cast<T>(), gradients);
  CHECK(gradients.size() == 1);
  CHECK(gradients.of(layer.bias) == dy.colwise().sum().cast<T>());
}

TEST_CASE("norms and parameters go through theirs") {
  LayerNorm<double> norm(in_features);
  Gradients gradients;
  const Matrix<double> g = ramp<double>(n, in_features, 4);
  const Matrix<double> dx = dx_of<double>(norm, g, x, gradients, {true, true});
  CHECK(dx == support::vjp_of<double>(norm.op(), g, {x}, gradients)[0]);
  CHECK(gradients.size() == 2);
  gradients.clear();
  Parameter<double> parameter(Shape{out_features, in_features});
  parameter.view() = weight;
  CHECK_FALSE(trains(parameter));
  parameter.set_requires_grad(true);
  CHECK(trains(parameter));
  CHECK(dx_of<double>(parameter, dy, x, gradients) == dy * weight);
  CHECK(gradients.of(parameter) == dy.transpose() * x);
}

TEST_CASE("a quantised layer hands gradients through and keeps its weight") {
  Linear<> dense(in_features, out_features);
  dense.weight.view() = weight.cast<float>();
  QuantizedLinear layer = QuantizedLinear::quantize(dense);
  Gradients gradients;
  const Matrix<> expected = dy.cast<float>() * layer.dequantize();
  CHECK(agrees(dx_of<float>(layer, dy.cast<float>(), x.cast<float>(), gradients, {false, true}), expected, 1e-6));
  CHECK(gradients.of(layer.bias) == dy.colwise().sum().cast<float>());
  CHECK_THROWS_AS(dx_of<float>(layer, dy.cast<float>(), x.cast<float>(), gradients, {true, false}), TrainingError);
  const slices::Linear<QuantizedLinear> some(layer, 2, 3);
  CHECK(agrees(dx_of<float>(some, dy.leftCols(3).cast<float>(), x.cast<float>(), gradients, {false, true}),
               dy.leftCols(3).cast<float>() * layer.dequantize().middleRows(2, 3), 1e-6));
}

TEST_CASE("rows of a layer have the gradients of the whole layer's rows") {
  Gradients gradients;
  const Matrix<double> g = dy.leftCols(3), dx = g * weight.middleRows(2, 3);
  Matrix<double> dw = Matrix<double>::Zero(out_features, in_features), db = Matrix<double>::Zero(1, out_features);
  dw.middleRows(2, 3) = g.transpose() * x;
  db.middleCols(2, 3) = g.colwise().sum();
  const Trained both{true, true};

  Linear<double> own(in_features, out_features);
  own.weight.view() = weight;
  const slices::Linear<Linear<double>> of_own(own, 2, 3);
  CHECK(dx_of<double>(of_own, g, x, gradients, both) == dx);
  CHECK(gradients.of(own.weight) == dw);
  CHECK(gradients.of(own.bias) == db);
  own.bias.set_requires_grad(true);
  CHECK(trains(of_own));

  PackedProjection<double> packed(in_features, out_features, true);
  packed.in_proj_weight.view() = weight;
  const detail::ProjectionSlice<PackedProjection<double>> projection{&packed, 2, 3};
  CHECK(dx_of<double>(projection, g, x, gradients, both) == dx);
  CHECK(gradients.of(packed.in_proj_weight) == dw);
  CHECK(gradients.of(packed.in_proj_bias) == db);
  CHECK_FALSE(trains(projection));
  packed.in_proj_weight.set_requires_grad(true);
  CHECK(trains(projection));
  CHECK(dx_of<double>(packed, dy, x, gradients) == dy * weight);

}
