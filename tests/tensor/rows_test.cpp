#include <doctest/doctest.h>

#include <graft/tensor/rows.hpp>
#include <vector>

#include "support/ramp.hpp"

using graft::Batch;
using graft::Matrix;
using graft::Rows;
using graft::Shape;
using graft::ShapeError;
using graft::Tokens;

TEST_CASE("rows hold a copy of a matrix, and know their batch") {
  Batch batch;
  batch.add(5);
  Matrix<> x = support::ramp(5, 7);
  Rows<> rows = batch.input(x);
  x.setZero();
  CHECK(rows.value() == support::ramp(5, 7));
  CHECK(rows.rows() == 5);
  CHECK(rows.cols() == 7);
  CHECK(rows.row_shape() == Shape{7});
  CHECK(&rows.batch() == &batch);
  rows.value()(4, 6) = 9;
  const Matrix<> out = rows.value();
  CHECK(out(4, 6) == 9);
}

TEST_CASE("maps, blocks, column-major matrices and expressions become rows") {
  Batch batch;
  batch.add(3);
  const Matrix<> x = support::ramp(5, 7);
  CHECK(batch.input(x.block(1, 2, 3, 4)).value() == x.block(1, 2, 3, 4));
  const Eigen::MatrixXf by_columns = x.topRows(3);
  CHECK(batch.input(by_columns).value() == x.topRows(3));
  CHECK(batch.input(Eigen::Map<const Matrix<>>(x.data(), 3, 7)).value() == x.topRows(3));
  CHECK(batch.input(x.topRows(3) * 2).value() == x.topRows(3) * 2);
  static_assert(std::is_same_v<decltype(batch.input(Eigen::MatrixXd(3, 2))), Rows<double>>);
}

TEST_CASE("a tensor's rows keep their shape") {
  Batch batch;
  batch.add(2);
  Eigen::Tensor<float, 4, Eigen::RowMajor> x(2, 3, 2, 5);
  support::fill_ramp(x);
  const Rows<> rows = batch.input(x);
  CHECK(rows.row_shape() == Shape{3, 2, 5});
  CHECK(rows.cols() == 30);
  CHECK(rows.value()(1, 10) == x(1, 1, 0, 0));
  CHECK(batch.input(Eigen::TensorMap<Eigen::Tensor<float, 2, Eigen::RowMajor>>(x.data(), 2, 30)).row_shape() == Shape{30});
}

TEST_CASE("copies are deep, moves take the memory, and it is used again") {
  Batch batch;
  batch.add(3);
  const float* memory;
  {
    Rows<> a = batch.input(support::ramp(3, 2));
    Rows<> b = a;
    b.value().setZero();
    CHECK(a.value() == support::ramp(3, 2));
    memory = a.value().data();
    const Rows<> c = std::move(a);
    CHECK(c.value().data() == memory);
    b = c;
    CHECK(b.value() == support::ramp(3, 2));
    CHECK(b.value().data() != memory);
    const Rows<> d = graft::eval(c);
    CHECK(d.value().data() != memory);
  }
  const std::size_t reserved = batch.workspace().reserved();
  { const Rows<> again = batch.input(support::ramp(3, 2)); }
  CHECK(batch.workspace().reserved() == reserved);
}

TEST_CASE("with brings a result of the caller's back to the batch") {
  Batch batch;
  batch.add(3);
  const Rows<> x = batch.input(support::ramp(3, 2));
  const Rows<> y = x.with(Matrix<>(x.value() * 2));
  CHECK(y.value() == support::ramp(3, 2) * 2);
  CHECK(&y.batch() == &batch);
  CHECK_THROWS_AS((void)x.with(support::ramp(2, 2)), ShapeError);
  CHECK_THROWS_AS(Rows<>(batch, 2, Shape{2}), ShapeError);
}

TEST_CASE("rows do not turn into a matrix by themselves") {
  static_assert(!std::is_convertible_v<Rows<>, Matrix<>>);
  static_assert(graft::RowsLike<Rows<double>> && graft::RowsLike<const Rows<>&> && !graft::RowsLike<Matrix<>>);
}

TEST_CASE("tokens copy ids of any kind") {
  Batch batch;
  batch.add(2).add(1);
  std::vector<int> ids{4, 5, 6};
  const Tokens tokens = batch.input(ids);
  ids[0] = 0;
  const Tokens copy = tokens;
  CHECK(copy.ids()[0] == 4);
  CHECK(copy.ids().size() == 3);
  CHECK(&copy.batch() == &batch);
  Eigen::MatrixXi matrix(1, 3);
  matrix << 7, 8, 9;
  CHECK(batch.input(matrix).ids()[2] == 9);
}

TEST_CASE("a batch of no rows is fine") {
  Batch batch;
  const Rows<> none = batch.input(Matrix<>(0, 4));
  CHECK(none.rows() == 0);
  CHECK(none.cols() == 4);
  CHECK(batch.input(std::vector<int>{}).ids().size() == 0);
}
