#include <doctest/doctest.h>

#include <graft/modules/op.hpp>
#include <graft/modules/ops.hpp>
#include <graft/tensor/tensor.hpp>

#include "support/ramp.hpp"

using graft::Batch;
using graft::BatchView;
using graft::In;
using graft::Index;
using graft::Matrix;
using graft::Out;
using graft::Rows;
using graft::Shape;
using graft::ShapeError;
using support::ramp;

namespace {
/// x − y/2, and the width stays.
struct HalfLess {
  [[nodiscard]] Index cols(const auto& x) const { return x[0].cols(); }
  template <class T>
  void forward(const BatchView&, Out<T> y, std::span<const In<T>> x) const {
    y = x[0] - x[1] / T(2);
  }
};

/// The last two rows of every sequence, each with its position in a further column.
struct LastTwo {
  static constexpr Index tail = 2;
  [[nodiscard]] Index cols(const auto& x) const { return x[0].cols() + 1; }
  template <class T>
  void forward(const BatchView& batch, Out<T> y, std::span<const In<T>> x) const {
    Index next = 0;
    for (const graft::Sequence& sequence : batch.sequences)
      for (Index i = std::max<Index>(0, sequence.rows - 2); i < sequence.rows; ++i, ++next) {
        y.row(next).head(x[0].cols()) = x[0].row(sequence.begin + i);
        y(next, x[0].cols()) = T(sequence.position + i);
      }
  }
};

/// (channels, height, width) → (channels, 1, width): sums over the height.
struct SumHeight {
  [[nodiscard]] static Shape shape(std::span<const Shape> x) { return {x[0][0], 1, x[0][2]}; }
  Index height;
  template <class T>
  void forward(const BatchView&, Out<T> y, std::span<const In<T>> x) const {
    const Index width = x[0].cols() / height / channels, out = y.cols();
    for (Index row = 0; row < y.rows(); ++row)
      for (Index i = 0; i < out; ++i) {
        y(row, i) = 0;
        for (Index h = 0; h < height; ++h) y(row, i) += x[0](row, (i / width * height + h) * width + i % width);
      }
  }
  Index channels;
};

using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;
const Matrix<> a = ramp(5, 7, 1), b = ramp(5, 7, 2), want = a - b / 2;
}  // namespace

TEST_CASE("custom lifts an op to matrices, maps, blocks, both layouts and expressions") {
  CHECK(graft::custom(HalfLess{}, a, b) == want);
  CHECK(graft::custom(HalfLess{}, Eigen::MatrixXf(a), b) == want);
  CHECK(graft::custom(HalfLess{}, Eigen::Map<const Matrix<>>(a.data(), 5, 7), Eigen::MatrixXf(b)) == want);
  CHECK(graft::custom(HalfLess{}, a.block(1, 2, 3, 4), b.block(1, 2, 3, 4)) == want.block(1, 2, 3, 4));
  CHECK(graft::custom(HalfLess{}, a * 2 - a, b) == want);
  CHECK(graft::custom(HalfLess{}, a.row(2), b.row(2)) == want.row(2));
  static_assert(std::is_same_v<decltype(graft::custom(HalfLess{}, a.transpose(), b.transpose())), Matrix<float>>);
  CHECK(graft::custom(HalfLess{}, ramp<double>(5, 7, 1), ramp<double>(5, 7, 2)) == want.cast<double>());
}

TEST_CASE("custom lifts an op to rows") {
  Batch batch;
  batch.add(2).add(3);
  const Rows<> y = graft::custom(HalfLess{}, batch.input(a), batch.input(b));
  CHECK(y.value() == want);
  CHECK(&y.batch() == &batch);
}

TEST_CASE("an op that keeps a tail has the rows of the batch's tail") {
  Batch batch;
  batch.add(1, {}, nullptr, 4).add(0).add(4);
  const Rows<> y = graft::custom(LastTwo{}, batch.input(a));
  CHECK(&y.batch() == &batch.tail(2));
  REQUIRE(y.rows() == 3);
  CHECK(y.cols() == 8);
  CHECK(y.value().row(0).head(7) == a.row(0));
  CHECK(y.value().rightCols(1) == Eigen::Vector3f(4, 2, 3));
  CHECK(y.value().row(2).head(7) == a.row(4));
  const Matrix<> plain = graft::custom(LastTwo{}, a);
  REQUIRE(plain.rows() == 2);
  CHECK(plain.rightCols(1) == Eigen::Vector2f(3, 4));
  CHECK(graft::custom(LastTwo{}, Matrix<>(a.topRows(1))).rows() == 1);
}

TEST_CASE("custom lifts an op to tensors, and row shapes flow") {
  Tensor x(2, 3, 4, 5);
  support::fill_ramp(x);
  const SumHeight op{.height = 4, .channels = 3};
  const Tensor y = graft::custom(op, x);
  CHECK(y.dimension(2) == 1);
  float sum = 0;
  for (Index h = 0; h < 4; ++h) sum += x(1, 2, h, 3);
  CHECK(y(1, 2, 0, 3) == sum);
  const Tensor of_map = graft::custom(op, Eigen::TensorMap<const Tensor>(x.data(), 2, 3, 4, 5));
  CHECK(of_map(1, 2, 0, 3) == sum);
  Batch batch;
  batch.add(2);
  const Rows<> rows = graft::custom(op, batch.input(x));
  CHECK(rows.row_shape() == Shape{3, 1, 5});
  CHECK(rows.value()(1, 13) == sum);
}

TEST_CASE("operands with other rows, or of other batches, are ShapeErrors") {
  CHECK_THROWS_AS((void)graft::custom(HalfLess{}, a, ramp(4, 7)), ShapeError);
  Batch batch, other;
  batch.add(5);
  other.add(5);
  const Rows<> x = batch.input(a), y = other.input(b);
  CHECK_THROWS_WITH_AS((void)graft::custom(HalfLess{}, x, y), doctest::Contains("different batches"), ShapeError);
  CHECK_THROWS_AS((void)graft::add(graft::custom(LastTwo{}, x), graft::custom(LastTwo{}, y)), ShapeError);
}

TEST_CASE("the scalar of an activation") {
  static_assert(std::is_same_v<graft::activation_scalar<const Rows<double>&>, double>);
  static_assert(std::is_same_v<graft::activation_scalar<Tensor>, float>);
  static_assert(std::is_same_v<graft::activation_scalar<decltype(a.row(0))>, float>);
}

TEST_CASE("tensors of one scalar mix: a residual of a TensorMap and what a layer made of it") {
  using Tensor = Eigen::Tensor<float, 3, Eigen::RowMajor>;
  Tensor x(2, 3, 2);
  for (Index i = 0; i < 12; ++i) x.data()[i] = float(i);
  const Eigen::TensorMap<const Tensor> seen(x.data(), 2, 3, 2);
  Eigen::TensorFixedSize<float, Eigen::Sizes<2, 3, 2>, Eigen::RowMajor> fixed;
  std::copy_n(x.data(), 12, fixed.data());
  const auto same = [&](const Tensor& y) {
    for (Index i = 0; i < 12; ++i)
      if (y.data()[i] != 2 * float(i)) return false;
    return true;
  };
  CHECK(same(graft::add(seen, x)));
  CHECK(same(graft::add(x, seen)));
  CHECK(same(graft::add(fixed, x)));
  CHECK(same(graft::add(seen, fixed)));
}
