#include <graft/adapters/site_door.hpp>

#include "support/laws.hpp"

using graft::Index;
using graft::Matrix;

namespace {

using Linear = awkward::Net<awkward::LinearCase<float>>;

Linear adapted() {
  Linear net;
  trained::inject(graft::LoraConfig{.r = 3, .target_modules = {"site"}}, net, "a");
  return net;
}

}  // namespace

TEST_CASE(
    "a linear site takes maps, blocks, refs, expressions, column-major matrices and vectors of one row") {
  const Linear net = adapted();
  const Matrix<float> x = awkward::rows<float>(5, 13), y = net(x);
  const Eigen::MatrixXf column_major = x;
  Matrix<float> wide(7, 20);
  wide.setConstant(5);
  wide.block(1, 4, 5, 13) = x;
  CHECK(results::same_values(net(column_major), y));
  CHECK(results::same_values(net(wide.block(1, 4, 5, 13)), y));
  CHECK(results::same_values(net(Eigen::Map<const Matrix<float>>(x.data(), 5, 13)), y));
  CHECK(results::same_values(net(Eigen::Ref<const Matrix<float>>(x)), y));
  CHECK(results::same_values(net(x * 2.0F - x), y));
  const Eigen::RowVectorXf one = x.row(2);
  CHECK(results::same_values(net(one), Matrix<float>(y.row(2))));
  graft::Batch batch;
  batch.add(5);
  Matrix<float> to(7, 20);
  to.setConstant(-3);
  net.site(wide.block(1, 4, 5, 13), batch, to.block(1, 2, 5, 7));
  CHECK(results::same_values(Matrix<float>(to.block(1, 2, 5, 7)), y));
  to.block(1, 2, 5, 7).setConstant(-3);
  CHECK((to.array() == -3).all());
}

TEST_CASE("an N-d tensor with features last keeps its other dimensions") {
  const Linear net = adapted();
  const Matrix<float> x = awkward::rows<float>(6, 13), y = net(x);
  const Eigen::TensorMap<const Eigen::Tensor<float, 3, Eigen::RowMajor>> tensor(x.data(), 2, 3, 13);
  const Eigen::Tensor<float, 3, Eigen::RowMajor> z = net(tensor);
  CHECK(z.dimensions() == Eigen::DSizes<Index, 3>(2, 3, 7));
  CHECK(results::same_values(z, y));
}

TEST_CASE("what does not fit is a typed error that says both sizes") {
  const Linear net = adapted(), bare;
  const Matrix<float> narrow = awkward::rows<float>(5, 12), x = awkward::rows<float>(5, 13);
  graft::Batch batch;
  batch.add(5);
  Matrix<float> y(5, 7), short_y(4, 7), thin_y(5, 6);
  for (const Linear* one : {&net, &bare}) {
    CHECK_THROWS_AS((void)(*one)(narrow), graft::ShapeError);
    CHECK_THROWS_AS((void)(*one)(batch.input(narrow)), graft::ShapeError);
    CHECK_THROWS_AS((void)one->site(narrow, batch), graft::ShapeError);
    CHECK_THROWS_AS((void)one->site(Matrix<float>(x.topRows(4)), batch), graft::ShapeError);
    CHECK_THROWS_AS(one->site(x, batch, short_y), graft::ShapeError);
    CHECK_THROWS_AS(one->site(x, batch, thin_y), graft::ShapeError);
    CHECK_THROWS_AS(one->site.update(batch, x, thin_y), graft::ShapeError);
    CHECK_THROWS_AS(one->site.update(batch, narrow, y), graft::ShapeError);
  }
  CHECK_THROWS_WITH_AS((void)net(narrow), doctest::Contains("13"), graft::ShapeError);
  CHECK_THROWS_WITH_AS((void)net(narrow), doctest::Contains("12"), graft::ShapeError);

  awkward::Net<awkward::Conv2dCase<float>> conv;
  trained::inject(graft::LoraConfig{.r = 3, .target_modules = {"site"}}, conv, "a");
  Eigen::Tensor<float, 4, Eigen::RowMajor> channels(2, 4, 5, 7), small(2, 3, 1, 1);
  channels.setZero();
  small.setZero();
  CHECK_THROWS_AS((void)conv(channels), graft::ShapeError);
  CHECK_THROWS_AS((void)conv(small), graft::ShapeError);
  awkward::Net<awkward::EmbeddingCase<float>> table;
  trained::inject(graft::LoraConfig{.r = 3, .target_modules = {"site"}}, table, "a");
  CHECK_THROWS_AS((void)table(std::vector<int>{0, 13}), graft::ShapeError);
  CHECK_THROWS_AS((void)table(std::vector<int>{0, -1}), graft::ShapeError);
}

TEST_CASE("a convolution's result may be a tensor or a matrix of rows") {
  using Case = awkward::Conv2dCase<float>;
  awkward::Net<Case> net;
  trained::inject(graft::LoraConfig{.r = 3, .target_modules = {"site"}}, net, "a");
  const auto x = Case::input(3);
  graft::Batch batch;
  batch.add(1, graft::base_only()).add(2);
  const auto y = net.site(x, batch);
  Eigen::Tensor<float, 4, Eigen::RowMajor> into(y.dimensions());
  net.site(x, batch, into);
  CHECK(results::same_bits(into, y));
}

TEST_CASE("the laws hold for LoRA and DoRA at a user's column-major linear layer") {
  laws::all<awkward::PlainLinearCase<float>, laws::LoraMethod>();
  laws::all<awkward::PlainLinearCase<float>, laws::DoraMethod>();
}
TEST_CASE("the laws hold for LoRA and DoRA at a user's transposed layer") {
  laws::all<awkward::TransposedCase<double>, laws::LoraMethod>();
  laws::all<awkward::TransposedCase<double>, laws::DoraMethod>();
}
