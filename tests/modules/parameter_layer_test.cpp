#include <graft/modules/parameter_layer.hpp>

#include <doctest/doctest.h>

#include "support/awkward_layers.hpp"
#include "support/cutting_host.hpp"
#include "support/results.hpp"

using graft::Index;
using graft::Matrix;
using graft::Shape;

namespace {

/// x times the matrices of its rows' experts, element by element.
template <class P>
Matrix<double> reference(const Matrix<double>& x, const P& parameter, const std::vector<int>& of_rows, bool transposed) {
  const std::vector<Index> shape = parameter.shape();
  const Index rows = shape[shape.size() - 2], cols = shape.back(), out = transposed ? cols : rows, in = transposed ? rows : cols;
  Matrix<double> y = Matrix<double>::Zero(x.rows(), out);
  for (Index i = 0; i < x.rows(); ++i)
    for (Index o = 0; o < out; ++o)
      for (Index k = 0; k < in; ++k) {
        const Index at = of_rows[std::size_t(i)] * rows * cols + (transposed ? k * cols + o : o * cols + k);
        y(i, o) += x(i, k) * double(float(parameter.data()[at]));
      }
  return y;
}
template <class T>
bool is(const Matrix<T>& y, const Matrix<double>& expected) {
  return results::same_values(Matrix<T>(y), Matrix<T>(expected.cast<T>()));
}

/// A stack in memory of the user's own.
struct Borrowed {
  std::vector<float> numbers = std::vector<float>(2 * 4 * 6);
};

}  // namespace

template <>
struct graft::layer_traits<Borrowed> {
  static constexpr LayerKind kind = LayerKind::parameter;
  using scalar = float;
  static constexpr bool transposed = true;
  static Shape shape(const Borrowed&) { return {2, 4, 6}; }
  static auto weight(const Borrowed& b) { return Eigen::Map<const Matrix<float>>(b.numbers.data(), 8, 6); }
  static auto weight(Borrowed& b) { return Eigen::Map<Matrix<float>>(b.numbers.data(), 8, 6); }
};

TEST_CASE_TEMPLATE("rows times the matrices of their experts", T, float, graft::bf16, graft::f16) {
  using S = graft::compute_scalar<T>;
  const std::vector<int> of_rows{2, 0, 2, 1, 1, 0, 2};
  const Matrix<S> x = awkward::rows<S>(7, 13);
  graft::Parameter<T> stack(Shape{3, 5, 13});
  graft::TransposedParameter<T> turned(Shape{3, 13, 5});
  for (Index i = 0; i < stack.size(); ++i) {
    stack.data()[i] = T(float(awkward::value(i, 3)));
    turned.data()[i] = T(float(awkward::value(i, 4)));
  }
  const Matrix<double> wide = x.template cast<double>();
  CHECK(is(graft::expert_linear(x, stack, of_rows), reference(wide, stack, of_rows, false)));
  CHECK(is(graft::expert_linear(x, turned, of_rows), reference(wide, turned, of_rows, true)));
  CHECK(is(graft::expert_linear(x, stack, 1), reference(wide, stack, std::vector<int>(7, 1), false)));

  // a row has the same bits whatever stands beside it
  for (Index i = 0; i < 7; ++i) {
    const Matrix<S> row = x.row(i);
    const int own = of_rows[std::size_t(i)];
    CHECK(results::same_bits(Matrix<S>(graft::expert_linear(x, stack, of_rows).row(i)), graft::expert_linear(row, stack, own)));
    CHECK(results::same_bits(Matrix<S>(graft::expert_linear(x, turned, of_rows).row(i)), graft::expert_linear(row, turned, own)));
  }
  graft::Batch batch;
  batch.add(3).add(4);
  CHECK(results::same_bits(graft::expert_linear(batch.input(x), stack, of_rows), graft::expert_linear(x, stack, of_rows)));
}

TEST_CASE("a matrix is no stack, and multiplies without an expert") {
  graft::TransposedParameter<double> weight(Shape{13, 5});
  awkward::fill(weight.view(), 3);
  const Matrix<double> x = awkward::rows<double>(4, 13);
  CHECK(is(graft::linear(x, weight), x * weight.view()));
  CHECK_THROWS_AS((void)graft::expert_linear(x, weight, 0), graft::ShapeError);
  Eigen::Tensor<double, 3, Eigen::RowMajor> tensor(2, 2, 13);
  std::copy_n(x.data(), x.size(), tensor.data());
  CHECK(graft::linear(tensor, weight).dimension(2) == 5);
}

TEST_CASE("sizes that do not fit are errors") {
  const Matrix<float> x = awkward::rows<float>(4, 13);
  CHECK_THROWS_AS((void)graft::expert_linear(x, graft::Parameter<float>(Shape{3, 5, 7}), 1), graft::ShapeError);
  CHECK_THROWS_AS((void)graft::expert_linear(x, graft::Parameter<float>(Shape{3, 5, 13}), 3), graft::ShapeError);
  CHECK_THROWS_AS((void)graft::expert_linear(x, graft::Parameter<float>(Shape{13}), graft::ExpertIds()), graft::ShapeError);
  CHECK_THROWS_AS((void)graft::expert_linear(x, graft::Parameter<float, graft::lazy>(Shape{3, 5, 13}), 1), graft::MetaError);
}

TEST_CASE("what adapters know of a parameter") {
  const auto facts = graft::detail::facts_of(Borrowed{});
  CHECK(facts.kind == graft::LayerKind::parameter);
  CHECK(facts.in == 4);
  CHECK(facts.out == 6);
  CHECK(facts.stack.experts == 2);
  CHECK(facts.shape_text() == "(2, 4, 6)");
  const graft::WeightStack matrix(Shape{3, 5}, false), vector(Shape{3}, false);
  CHECK(matrix.experts == 0);
  CHECK(matrix.in == 5);
  CHECK(vector.in + vector.out == 0);

  Borrowed borrowed;
  awkward::fill(Eigen::Map<Eigen::VectorXf>(borrowed.numbers.data(), 48), 5);
  const Matrix<float> x = awkward::rows<float>(3, 4);
  Matrix<float> y(3, 6);
  graft::Workspace workspace;
  graft::detail::call_parameter<Borrowed, float>(borrowed, graft::in(x), 1, graft::out(y), &workspace);
  CHECK(results::same_values(y, Matrix<float>(x * Eigen::Map<const Matrix<float>>(borrowed.numbers.data() + 24, 4, 6))));
  CHECK(graft::detail::base_tensors(borrowed).at(0).shape == Shape{2, 4, 6});
  CHECK(graft::detail::base_tensors(borrowed).at(0).key.empty());
}

TEST_CASE("a large stack is multiplied in pieces, with the same bits") {
  const Matrix<> x = awkward::rows<float>(13, 517);
  graft::Parameter<float> stack(Shape{2, 701, 517});
  graft::TransposedParameter<float> turned(Shape{2, 517, 701});
  for (Index i = 0; i < stack.size(); ++i) {
    stack.data()[i] = float(awkward::value(i, 3));
    turned.data()[i] = float(awkward::value(i, 4));
  }
  const std::vector<int> of_rows{1, 0, 1, 0, 0, 1, 0, 0, 1, 1, 1, 0, 1};
  const auto run = [&](const auto& weight, support::CuttingHost* host) {
    graft::Batch batch;
    if (host) batch.set_parallel_for(*host);
    batch.add(13);
    return Matrix<>(graft::expert_linear(batch.input(x), weight, graft::ExpertIds(of_rows)).value());
  };
  const auto check = [&](const auto& weight) {
    support::CuttingHost host(3);
    CHECK(results::same_bits(run(weight, &host), run(weight, nullptr)));
    CHECK(host.calls == 2);
    CHECK(host.pieces == 6);
  };
  check(stack);
  check(turned);
}
