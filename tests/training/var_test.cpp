#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include <graft/graft.hpp>
#include <graft/training/var.hpp>

using namespace graft;

TEST_CASE("matrices, maps, Rows and tensors come in, copied") {
  Matrix<double> x{{1, 2, 3}, {4, 5, 6}};
  Batch batch;
  batch.add(2);
  Tape tape;
  const Var<double> plain = tape.input(x), part = tape.input(x.leftCols(2)), rows = tape.input(batch.input(x), true);
  x(0, 0) = 9;
  CHECK(plain.value()(0, 0) == 1);
  CHECK(part.value() == Matrix<double>{{1, 2}, {4, 5}});
  CHECK(rows.value()(1, 2) == 6);
  CHECK(plain.batch() == nullptr);
  CHECK(rows.batch() == &batch);
  CHECK(rows.needs_grad());
  CHECK_FALSE(plain.needs_grad());
  CHECK(&eval(rows).tape() == &tape);

  Eigen::Tensor<float, 4, Eigen::RowMajor> image(2, 3, 5, 7);
  image.setConstant(2);
  image(1, 2, 4, 6) = 8;
  const Var<float> tensor = tape.input(image);
  CHECK(tensor.rows() == 2);
  CHECK(tensor.cols() == 105);
  CHECK(tensor.row_shape() == Shape{3, 5, 7});
  CHECK(tensor.value()(1, 104) == 8);
}

TEST_CASE("token ids of every kind come in, copied") {
  std::vector<int> ids{3, 1, 4};
  Batch batch;
  batch.add(3);
  Tape tape;
  const RecordedTokens plain = tape.input(ids), tokens = tape.input(batch.input(std::vector<std::int64_t>{5, 9, 2}));
  ids[0] = 7;
  CHECK(plain.ids()[0] == 3);
  CHECK(plain.batch() == nullptr);
  CHECK(tokens.ids().size() == 3);
  CHECK(tokens.ids()[2] == 2);  // after the Tokens are gone
  CHECK(tokens.batch() == &batch);
}

TEST_CASE("a value without a gradient says why") {
  Tape tape;
  const Matrix<float> x = Matrix<float>::Ones(2, 2);
  CHECK_THROWS_AS((void)tape.input(x).grad(), TrainingError);
  CHECK_THROWS_AS((void)tape.input(x, true).grad(), TrainingError);
  const Var<float> in = tape.input(x, true);
  tape.backward(in, x);
  CHECK(in.grad() == x);
}
