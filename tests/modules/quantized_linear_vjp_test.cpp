#include "graft/modules/quantized_linear_vjp.hpp"

#include <doctest/doctest.h>

#include <graft/modules/linear_vjp.hpp>

#include "support/op_gradients.hpp"
#include "support/ramp.hpp"

using namespace graft;
using support::agrees;
using support::ramp;
using support::vjp_of;

namespace {
QuantizedLinear made(Index in, Index out, QuantFormat format) {
  Linear<> dense(in, out);
  dense.weight.view() = ramp(out, in, 2) / 3;
  dense.bias.view() = ramp(1, out, 3);
  return QuantizedLinear::quantize(dense, format);
}
}  // namespace

TEST_CASE("gradients pass through the weight as products use it") {
  for (const QuantFormat format : {QuantFormat::int8, QuantFormat::nf4, QuantFormat::fp4, QuantFormat::int4})
    for (const Index in : {13, 128, 201})
      for (const Index n : {1, 5, 31}) {
        CAPTURE(int(format));
        CAPTURE(in);
        CAPTURE(n);
        QuantizedLinear layer = made(in, 37, format);
        const Matrix<> x = ramp(n, in, 1), dy = ramp(n, 37, 4) / 3;
        Gradients gradients;
        CHECK_FALSE(layer.op().trainable({}));
        const Matrix<> dx = vjp_of<float>(layer.op(), dy, {x}, gradients)[0];
        CHECK(gradients.empty());
        // the bits of a Linear over dequantize()
        Linear<> plain(in, 37);
        plain.weight.view() = layer.dequantize();
        CHECK(dx == vjp_of<float>(plain.op(), dy, {x}, gradients)[0]);
        CHECK(agrees(dx, dy.cast<double>() * layer.dequantize().cast<double>(), 1e-5));
      }
}

TEST_CASE("its bias can be trained, its weight cannot") {
  QuantizedLinear layer = made(13, 7, QuantFormat::nf4);
  layer.bias.set_requires_grad(true);
  const Matrix<> x = ramp(5, 13, 1), dy = ramp(5, 7, 4);
  Gradients gradients;
  CHECK(layer.op().trainable({}));
  (void)vjp_of<float>(layer.op(), dy, {x}, gradients);
  CHECK(gradients.size() == 1);
  CHECK(gradients.of(layer.bias) == Matrix<>(dy.colwise().sum()));
  auto op = layer.op();
  op.trained.weight = true;
  gradients.clear();
  CHECK_THROWS_AS(vjp_of<float>(op, dy, {x}, gradients), TrainingError);
  CHECK(gradients.empty());
}
