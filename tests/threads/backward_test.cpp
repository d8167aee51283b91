#include <doctest/doctest.h>

#include <graft/modules/attention_vjp.hpp>
#include <graft/modules/conv_vjp.hpp>
#include <graft/thread_pool.hpp>

#include "support/batch_gradients.hpp"
#include "support/ramp.hpp"

// Gradients on a graft::ThreadPool: the bits are those of one thread. ThreadSanitizer watches.

using graft::Batch;
using graft::Gradients;
using graft::Index;
using graft::Matrix;
using graft::Shape;
using support::ramp;

TEST_CASE("the gradients of a convolution on several threads have the bits of one") {
  graft::Conv2d<> layer(12, 33, {.kernel = 5, .groups = 3, .padding_mode = graft::PaddingMode::circular});
  support::fill_ramp(layer.weight, 1);
  layer.weight.set_requires_grad(true);
  layer.bias.set_requires_grad(true);
  const Shape row{12, 25, 24};  // channels differ: the ramp repeats itself after 23
  const Matrix<> x = ramp(5, row.size(), 3) / 3, dy = ramp(5, 33 * 21 * 20, 4) / 3;
  graft::ThreadPool pool(3);
  graft::Workspace alone, together;
  together.set_parallel_for(pool);
  Gradients whole;
  const Matrix<> dx = support::shaped_vjp<float>(layer.op(), dy, x, row, whole, true, &alone);
  CHECK_FALSE(dx.isZero(0));
  bool same = true;
  for (int pass = 0; pass < 10; ++pass) {
    Gradients cut;
    same = same && support::shaped_vjp<float>(layer.op(), dy, x, row, cut, true, &together) == dx;
    same = same && cut.of(layer.weight) == whole.of(layer.weight) && cut.of(layer.bias) == whole.of(layer.bias);
  }
  CHECK(same);
}

TEST_CASE("the gradients of attention on several threads have the bits of one") {
  const graft::ops::Attention op{{.heads = 10, .kv_heads = 5}};
  const std::vector<Matrix<>> x{ramp(260, 140, 1) / 3, ramp(260, 70, 2) / 3, ramp(260, 70, 3) / 3};
  const Matrix<> dy = ramp(260, 140, 4) / 3;
  graft::ThreadPool pool(3);
  Batch alone, together;
  together.set_parallel_for(pool);
  for (Batch* batch : {&alone, &together}) batch->add(250).add(10);
  const auto dx = support::vjp_on<float>(op, alone, dy, x);
  CHECK_FALSE(dx[0].isZero(0));
  bool same = true;
  for (int pass = 0; pass < 10; ++pass) same = same && support::vjp_on<float>(op, together, dy, x) == dx;
  CHECK(same);
}
