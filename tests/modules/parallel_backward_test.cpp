#include "graft/modules/parallel_backward.hpp"

#include <doctest/doctest.h>

#include <graft/kernels/quantize.hpp>
#include <vector>

#include "support/cutting_host.hpp"
#include "support/op_gradients.hpp"
#include "support/ramp.hpp"

using namespace graft;
using support::agrees;
using support::CuttingHost;
using support::Gapped;

namespace {
/// Values whose products are not exact, so that another order of summation would show.
template <class T>
Matrix<T> values(Index rows, Index cols, int salt) {
  return support::ramp<T>(rows, cols, salt) / T(3);
}
/// f(to, workspace) in one piece, and the same bits in as many as a host asks for.
template <class T, class F>
Matrix<T> check_pieces(Index rows, Index cols, const F& f) {
  const auto run = [&](Workspace* workspace) {
    Gapped<T> to(values<T>(rows, cols, 5));
    f(to.out(), workspace);
    CHECK(to.gaps_are_intact());
    return Matrix<T>(to.out());
  };
  const Matrix<T> whole = run(nullptr);
  for (const Index threads : {2, 3, 5}) {
    CuttingHost host(threads);
    Workspace workspace;
    workspace.set_parallel_for(host);
    CHECK(run(&workspace) == whole);
    CHECK(host.calls == 1);
    CHECK(host.pieces > 1);
    CHECK(workspace.in_use() == 0);
  }
  return whole;
}
template <class T>
void check(Index n, Index out, Index in) {
  CAPTURE(n);
  const Matrix<T> w = values<T>(out, in, 1), start = values<T>(n, in, 5);
  const Gapped<T> dy(values<T>(n, out, 2)), x(values<T>(n, in, 3));
  const double error = std::is_same_v<T, double> ? 1e-14 : 1e-5;
  const Matrix<double> wide_dy = dy.in().template cast<double>(), wide_x = x.in().template cast<double>();
  CHECK(agrees(check_pieces<T>(n, in, [&](Out<T> dx, Workspace* by) { detail::parallel_product_backward<T>(w.data(), in, dy.in(), dx, by); }),
               wide_dy * w.template cast<double>() + start.template cast<double>(), error));
  CHECK(agrees(check_pieces<T>(out, in, [&](Out<T> dw, Workspace* by) { detail::parallel_weight_backward<T>(dy.in(), x.in(), dw, by); }),
               wide_dy.transpose() * wide_x + values<T>(out, in, 5).template cast<double>(), error));
}
}  // namespace

TEST_CASE_TEMPLATE("gradients of products are added, in pieces with the same bits", T, float, double) {
  check<T>(1021, 65, 33);  // by rows
  check<T>(13, 515, 333);  // by columns
  check<T>(3, 700, 900);
}

TEST_CASE("over a quantised weight they are those of the weight in float") {
  const Index n = 701, out = 97, in = 65;
  const Matrix<> w = values<float>(out, in, 1);
  std::vector<std::int8_t> bytes(std::size_t(out * in));
  std::vector<float> scales(std::size_t(out), 0.0f);
  kernels::quantize_int8(out, in, w.data(), in, bytes.data(), scales.data());
  const kernels::Int8View view{bytes.data(), scales.data()};
  Matrix<> rounded(out, in);
  kernels::dequantize(out, in, view, in, rounded.data());
  const Gapped<float> dy(values<float>(n, out, 2));
  const auto by = [&](const auto& weight) {
    return check_pieces<float>(n, in, [&](Out<float> dx, Workspace* workspace) {
      detail::parallel_product_backward<float>(weight, in, dy.in(), dx, workspace);
    });
  };
  const float* const plain = rounded.data();
  CHECK(by(view) == by(plain));
}

TEST_CASE("the product that adds adds, in pieces too") {
  const Index n = 13, out = 515, in = 333;
  const Matrix<double> w = values<double>(out, in, 1), x = values<double>(n, in, 2);
  const double* const none = nullptr;
  const auto sum = check_pieces<double>(
      n, out, [&](Out<double> y, Workspace* workspace) { detail::parallel_product<double>(w.data(), in, graft::in(x), none, y, workspace, true); });
  CHECK(agrees(sum, x * w.transpose() + values<double>(n, out, 5), 1e-14));
}
