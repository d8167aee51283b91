#include <graft/modules/conv_vjp.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "support/allocations.hpp"
#include "support/cutting_host.hpp"
#include "support/ramp.hpp"
#include "support/shaped_gradients.hpp"

using graft::Conv1d;
using graft::Conv2d;
using graft::Conv3d;
using graft::Gradients;
using graft::Index;
using graft::Matrix;
using graft::PaddingMode;
using graft::Shape;
using support::ramp;

namespace {

void want_all(auto& layer, bool weight = true, bool bias = true) {
  layer.weight.set_requires_grad(weight);
  layer.bias.set_requires_grad(bias);
}
void fill_ramps(auto& layer) {
  support::fill_ramp(layer.weight, 1);
  support::fill_ramp(layer.bias, 2);
}

template <int N, class T>
using Conv = graft::ConvNd<N, T, graft::dense>;

/// A convolution is linear in weight, bias and x, and ramps are eighths: neither the differences nor the gradients have any
/// error, in float too.
template <int N>
void check(Index in, Index out, const graft::ConvOptions<N>& options, const Shape& row) {
  Conv<N, double> layer(in, out, options);
  fill_ramps(layer);
  want_all(layer);
  Matrix<double> x = ramp<double>(3, row.size(), 3);
  const Matrix<double> dy = ramp<double>(3, layer.op().shape(std::span(&row, 1)).size(), 4);
  const auto loss = [&] { return support::run_shaped<double>(layer.op(), x, row).cwiseProduct(dy).sum(); };

  Gradients gradients;
  const Matrix<double> dx = support::shaped_vjp<double>(layer.op(), dy, x, row, gradients);
  REQUIRE(gradients.find(layer.weight));
  CHECK_FALSE(dx.isZero(0));
  CHECK_FALSE(gradients.of(layer.weight).isZero(0));
  CHECK(dx == support::slopes_of(x.rows(), x.cols(), x.data(), loss));
  CHECK(gradients.of(layer.weight) == support::slopes_of(layer.weight.rows(), layer.weight.cols(), layer.weight.data(), loss));
  if (options.bias) {
    CHECK_FALSE(gradients.of(layer.bias).isZero(0));
    CHECK(gradients.of(layer.bias) == support::slopes_of(1, layer.bias.size(), layer.bias.data(), loss));
  } else {
    CHECK(gradients.size() == 1);
  }

  Conv<N, float> narrow(in, out, options);
  fill_ramps(narrow);
  want_all(narrow);
  Gradients in_float;
  CHECK(support::shaped_vjp<float>(narrow.op(), dy.cast<float>(), x.cast<float>(), row, in_float).template cast<double>() == dx);
  CHECK(in_float.of(narrow.weight).template cast<double>() == gradients.of(layer.weight));
}

/// Values whose sums are rounded.
template <class T>
Matrix<T> waves(Index rows, Index cols, double phase) {
  Matrix<T> values(rows, cols);
  for (Index i = 0; i < values.size(); ++i) values.data()[i] = T(std::sin(0.7 * double(i) + phase));
  return values;
}

}  // namespace

TEST_CASE("the gradients of a convolution are central differences of its forward, with every option") {
  check<1>(3, 5, {.kernel = 3, .stride = 2, .padding = 1, .dilation = 2}, {3, 11});
  check<2>(4, 6, {.kernel = {3, 2}, .stride = {2, 1}, .padding = {1, 0}, .groups = 2, .bias = false}, {4, 7, 5});
  check<2>(2, 3, {.kernel = 3, .padding = graft::same, .dilation = 2, .padding_mode = PaddingMode::reflect}, {2, 7, 6});
  check<2>(2, 3, {.kernel = {2, 3}, .padding = graft::same}, {2, 5, 6});
  check<2>(3, 7, {.kernel = 1}, {3, 5, 3});
  check<3>(2, 4, {.kernel = {1, 2, 2}, .padding = 1, .padding_mode = PaddingMode::replicate}, {2, 3, 4, 3});
  check<3>(2, 4, {.kernel = 2, .padding = 1, .padding_mode = PaddingMode::circular}, {2, 3, 4, 3});
}

// c = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2, padding_mode="circular") with the ramps of
// support/ramp.hpp: weight salt=1, bias salt=2, x = ramp(2, 4, 3, 2, salt=3); c(x).backward(ramp(2, 6, 2, 1, salt=4))
TEST_CASE("the gradients of a convolution of several samples are torch's") {
  Conv2d<> layer(4, 6, {.kernel = {3, 2}, .stride = {2, 1}, .padding = {1, 0}, .groups = 2, .padding_mode = PaddingMode::circular});
  fill_ramps(layer);
  want_all(layer);
  Gradients gradients;
  const Matrix<> dx = support::shaped_vjp<float>(layer.op(), ramp(2, 12, 4), ramp(2, 24, 3), {4, 3, 2}, gradients);
  CHECK(support::close(dx, {2.109375, -2.078125, 1.375, 0.0625, -2.09375, 0.546875, -1.8125, 3.34375, 0.328125, -2.78125, 0.8125,
                    2.375, 1.546875, -2, -0.90625, 3.8125, 1.453125, -0.296875, -2.125, 0.796875, 3.6875, -2.375, -0.421875,
                    1.421875, 1.5625, 0.453125, -1.171875, -1.921875, 1.984375, -0.5625, 0.296875, -2.25, -2.078125,
                    3.640625, -0.71875, 1.40625, -1.390625, -2.578125, 0.984375, -0.203125, -0.453125, 0.15625, -2.40625,
                    2.875, -0.03125, -1.21875, 0.328125, -1.21875}, 0));
  CHECK(support::close(gradients.of(layer.weight), {0.84375, 1.890625, 0.921875, -3.0625, -0.171875, -1.28125, 2.09375, -1.53125, -2.859375, 1.78125,
                    -1.078125, 1.046875, 0.03125, -1.734375, 1.125, 2.59375, 1.046875, -1.078125, -1.9375, 1.6875, 2.390625,
                    -2.25, -1.28125, -0.171875, 0.65625, -2.125, 0.96875, 1.421875, 0.109375, -1.234375, -2.015625, 2.390625,
                    1.53125, -2.328125, -1.125, 0.765625, -0.4375, -0.28125, 0.53125, 0.6875, -0.03125, -0.59375, -0.21875,
                    -0.78125, -2.484375, 0.1875, -0.53125, 2.140625, -1.9375, 0.4375, 1.84375, -2.25, 0.5, 2.15625, 0.453125,
                    2.109375, 1, -2.375, 0.375, -1.203125, 1.59375, -2.078125, -0.078125, -0.15625, -2.203125, 1.671875,
                    -2.109375, 1.765625, 1.25, 0.09375, -1.953125, 0.484375}, 0));
  CHECK(support::close(gradients.of(layer.bias), {1.625, -1.625, 0.875, 0.5, 0.125, -0.25}, 0));
}

TEST_CASE("a convolution adds the gradients of what is trained, and of nothing else") {
  Conv1d<> layer(3, 5, {.kernel = 3});
  fill_ramps(layer);
  const Matrix<> x = ramp(2, 21, 3), dy = ramp(2, 25, 4);
  CHECK_FALSE(layer.op().trainable());
  Gradients none;
  const Matrix<> dx = support::shaped_vjp<float>(layer.op(), dy, x, {3, 7}, none);
  CHECK(none.empty());
  CHECK_FALSE(dx.isZero(0));

  want_all(layer);
  CHECK(layer.op().trainable());
  Gradients both;
  CHECK(support::shaped_vjp<float>(layer.op(), dy, x, {3, 7}, both, false).isZero(0));
  CHECK(both.size() == 2);
  const Matrix<> dw = both.of(layer.weight), db = both.of(layer.bias);
  CHECK_FALSE(dw.isZero(0));
  CHECK_FALSE(db.isZero(0));
  for (const bool weight : {true, false}) {
    want_all(layer, weight, !weight);
    Gradients one;
    CHECK(support::shaped_vjp<float>(layer.op(), dy, x, {3, 7}, one) == dx);
    CHECK(one.size() == 1);
    CHECK((weight ? one.of(layer.weight) == dw : one.of(layer.bias) == db));
    support::shaped_vjp<float>(layer.op(), dy, x, {3, 7}, one);  // the next sequence's are added
    CHECK((weight ? one.of(layer.weight) == 2 * dw : one.of(layer.bias) == 2 * db));
  }

  Conv1d<> without(3, 5, {.kernel = 3, .bias = false});
  want_all(without, false, true);
  CHECK_FALSE(without.op().trainable());
  Gradients empty;
  CHECK(support::shaped_vjp<float>(without.op(), dy, x, {3, 7}, empty).isZero(0));  // its weight is zeros
  CHECK(empty.empty());
  CHECK_THROWS_AS(support::shaped_vjp<float>(layer.op(), dy, x, {7, 3}, none), graft::ShapeError);
}

TEST_CASE("a narrow weight has the gradients of the same weight in float, as float") {
  const auto with = [](auto narrow) {
    Conv2d<> wide(5, 37, {.kernel = 3, .padding = 1});
    Conv2d<decltype(narrow)> layer(5, 37, {.kernel = 3, .padding = 1});
    fill_ramps(wide);  // eighths fit into 8 bits
    fill_ramps(layer);
    want_all(wide);
    want_all(layer);
    const Matrix<> x = waves<float>(2, 5 * 7 * 6, 0.1), dy = waves<float>(2, 37 * 7 * 6, 0.2);
    Gradients of_wide, of_narrow;
    const Matrix<> dx = support::shaped_vjp<float>(wide.op(), dy, x, {5, 7, 6}, of_wide);
    CHECK_FALSE(dx.isZero(0));
    CHECK(support::shaped_vjp<float>(layer.op(), dy, x, {5, 7, 6}, of_narrow) == dx);
    CHECK(of_narrow.of(layer.weight) == of_wide.of(wide.weight));
    CHECK(of_narrow.of(layer.bias) == of_wide.of(wide.bias));
  };
  with(graft::bf16{});
  with(graft::f16{});
}

TEST_CASE("pieces of samples and of outputs have the bits of the whole, and a warm pass takes nothing from the heap") {
  const auto with = [](Conv2d<> layer, Index samples, const Shape& row) {
    const Matrix<> values = waves<float>(layer.weight.rows(), layer.weight.cols(), 0.1);
    std::copy_n(values.data(), values.size(), layer.weight.data());
    want_all(layer);
    const Matrix<> x = waves<float>(samples, row.size(), 0.3),
                   dy = waves<float>(samples, layer.op().shape(std::span(&row, 1)).size(), 0.2);
    graft::Workspace alone;
    Gradients whole;
    const Matrix<> dx = support::shaped_vjp<float>(layer.op(), dy, x, row, whole, true, &alone);
    for (const Index threads : {2, 3, 7}) {
      support::CuttingHost host(threads);
      graft::Workspace workspace;
      workspace.set_parallel_for(host);
      Gradients cut;
      CHECK(support::shaped_vjp<float>(layer.op(), dy, x, row, cut, true, &workspace) == dx);
      CHECK(cut.of(layer.weight) == whole.of(layer.weight));
      CHECK(cut.of(layer.bias) == whole.of(layer.bias));
      CHECK(host.calls == (samples == 1 ? 1 : 2));
      CHECK(host.pieces > host.calls);
    }
    if (!support::counts_malloc) return;
    Matrix<> again = Matrix<>::Zero(x.rows(), x.cols());
    const auto op = layer.op();
    CHECK(support::allocations_of([&] { op.vjp<float>({.workspace = &alone}, whole, graft::in(dy), graft::in(x), row, graft::out(again)); }) == 0);
  };
  with(Conv2d<>(13, 37, {.kernel = 3, .padding = 1}), 1, {13, 25, 27});
  with(Conv2d<>(13, 37, {.kernel = 3, .stride = 2}), 5, {13, 33, 31});
  with(Conv2d<>(12, 33, {.kernel = 5, .groups = 3, .padding_mode = PaddingMode::circular}), 4, {12, 23, 24});
}

TEST_CASE("a larger picture needs no more scratch") {
  const auto scratch_of = [](Index side) {
    Conv2d<> layer(3, 5, {.kernel = 3, .padding = 1});
    want_all(layer);
    graft::Workspace workspace;
    Gradients gradients;
    support::shaped_vjp<float>(layer.op(), Matrix<>::Zero(1, 5 * side * side), Matrix<>::Zero(1, 3 * side * side), {3, side, side},
                               gradients, true, &workspace);
    return workspace.peak();
  };
  CHECK(scratch_of(64) > 0);
  CHECK(scratch_of(256) == scratch_of(64));
}
