#include <doctest/doctest.h>

#include <graft/tensor/matrix.hpp>

#include "support/ramp.hpp"

using graft::Index;
using graft::Matrix;
using graft::MatrixRef;

TEST_CASE("a Matrix is row-major") {
  Matrix<> m(2, 3);
  m << 1, 2, 3, 4, 5, 6;
  CHECK(m.data()[1] == 2);
  CHECK(m.data()[3] == 4);
}

TEST_CASE("a view reads rows that are a stride apart") {
  Matrix<> m = support::ramp(7, 5);
  const graft::In<float> all = graft::in(m);
  CHECK(all == m);
  const graft::In<float> part = graft::in<float>(m.data() + 1, 7, 3, 5);
  CHECK(part == m.middleCols(1, 3));
  CHECK(graft::rows_of(part, 2, 4) == m.block(2, 1, 4, 3));
  CHECK(graft::rows_of(part, 2, 4).outerStride() == 5);
}

TEST_CASE("what is written through a view arrives") {
  Matrix<> m = Matrix<>::Zero(7, 5);
  graft::Out<float> part = graft::out(m.data() + 1, 7, 3, 5);
  graft::rows_of(part, 2, 2).setConstant(3);
  CHECK(m.sum() == 3 * 6);
  CHECK(m.block(2, 1, 2, 3).sum() == 3 * 6);
  graft::out(m).setZero();
  CHECK(graft::in<float>(part).sum() == 0);
}

TEST_CASE("a MatrixRef binds row-major memory in place and copies all else") {
  const Matrix<> m = support::ramp(7, 5);
  const auto data_of = [](const MatrixRef<float>& ref) { return ref.data(); };
  CHECK(data_of(m) == m.data());
  CHECK(data_of(m.middleRows(2, 3)) == m.data() + 10);
  CHECK(data_of(m.middleCols(1, 3)) == m.data() + 1);
  CHECK(data_of(Eigen::Map<const Matrix<>>(m.data(), 5, 7)) == m.data());
  const Eigen::MatrixXf by_columns = m;
  CHECK(data_of(by_columns) != by_columns.data());
  const MatrixRef<float> copied(by_columns);
  CHECK(copied == m);
  const MatrixRef<float> evaluated(m * 2);
  CHECK(graft::in<float>(evaluated) == m * 2);
}

TEST_CASE("eval gives an expression memory of its own") {
  const Matrix<> m = support::ramp(3, 2);
  static_assert(std::is_same_v<decltype(graft::eval(m.transpose() * 2)), Matrix<float>>);
  CHECK(graft::eval(m.transpose() * 2)(1, 2) == 2 * m(2, 1));
  static_assert(graft::MatrixLike<decltype(m.row(0))> && !graft::MatrixLike<float> && !graft::MatrixLike<std::vector<float>>);
}

TEST_CASE("copy_rows: rows of views with strides of their own, and nothing between them") {
  graft::Matrix<double> source = graft::Matrix<double>::Random(3, 9), target = graft::Matrix<double>::Constant(3, 11, -5);
  graft::copy_rows<double>(graft::in<double>(source.data() + 1, 3, 7, 9), graft::out<double>(target.data() + 2, 3, 7, 11));
  CHECK(target.middleCols(2, 7) == source.middleCols(1, 7));
  CHECK((target.leftCols(2).array() == -5).all());
  CHECK((target.rightCols(2).array() == -5).all());
  graft::copy_rows<double>(graft::in<double>(nullptr, 3, 0), graft::out<double>(nullptr, 3, 0));
  graft::copy_rows<double>(graft::in<double>(nullptr, 0, 7), graft::out<double>(nullptr, 0, 7));
}
