#include <doctest/doctest.h>

#include <graft/modules/embedding.hpp>

#include "support/ramp.hpp"

using graft::Batch;
using graft::Embedding;
using graft::EmbeddingOptions;
using graft::Matrix;
using support::close;

namespace {
const std::vector<int> ids{4, 0, 4, 2};
// nn.Embedding(5, 3) with weight ramp(5, 3, salt=9), of torch.tensor([4, 0, 4, 2])
const std::vector<double> looked_up{0.375, -0.75, 1, -0.5, 1.25, 0.125, 0.375, -0.75, 1, 1.375, 0.25, -0.875};
// the same with max_norm=1.5; with max_norm=1.5, norm_type=1
const std::vector<double> at_most_1_5{0.375, -0.75, 1, -0.5, 1.25, 0.125, 0.375, -0.75, 1, 1.250861696, 0.2274293993, -0.7960028975};
const std::vector<double> by_sum{0.2647058699,  -0.5294117398, 0.7058823197, -0.3999999787, 0.9999999467, 0.09999999467,
                                 0.2647058699,  -0.5294117398, 0.7058823197, 0.824999967,   0.149999994,  -0.524999979};

template <class T = float>
Embedding<T> layer(EmbeddingOptions options = {}) {
  Embedding<T> made(5, 3, options);
  support::fill_ramp(made.weight, 9);
  return made;
}
}  // namespace

TEST_CASE("ids of every kind are looked up") {
  CHECK(close(layer()(ids), looked_up, 0));
  CHECK(close(layer<double>()(std::vector<std::int64_t>{4, 0, 4, 2}), looked_up, 0));
  CHECK(close(layer<graft::bf16>()(std::span<const int>(ids)), looked_up, 0));
  Eigen::MatrixXi matrix(2, 2);
  matrix << 4, 0, 4, 2;
  CHECK(close(layer()(matrix), looked_up, 0));
  CHECK(layer()(std::vector<int>{}).rows() == 0);
}

TEST_CASE("a tensor of ids becomes a tensor with the features last") {
  Eigen::Tensor<int, 2, Eigen::RowMajor> tensor(2, 2);
  tensor.setValues({{4, 0}, {4, 2}});
  const Eigen::Tensor<float, 3, Eigen::RowMajor> y = layer()(tensor);
  CHECK(y.dimension(1) == 2);
  CHECK(y.dimension(2) == 3);
  CHECK(close(Eigen::Map<const Matrix<>>(y.data(), 4, 3), looked_up, 0));
}

TEST_CASE("tokens of a batch become rows") {
  Batch batch;
  batch.add(3).add(1);
  const auto y = layer()(batch.input(ids));
  CHECK(&y.batch() == &batch);
  CHECK(y.row_shape() == graft::Shape{3});
  CHECK(close(y.value(), looked_up, 0));
}

TEST_CASE("max_norm scales the result as torch scales the table, which stays as it is") {
  CHECK(close(layer({.max_norm = 1.5})(ids), at_most_1_5, 1e-6));
  CHECK(close(layer<double>({.max_norm = 1.5, .norm_type = 1})(ids), by_sum, 1e-9));
  const auto scaled = layer({.max_norm = 0.1});
  (void)scaled(ids);
  CHECK(scaled.weight.view() == layer().weight.view());
}

TEST_CASE("padding_idx counts from the end where it is negative, and must be a row") {
  CHECK(*layer({.padding_idx = -1}).options.padding_idx == 4);
  CHECK(*layer({.padding_idx = 0}).options.padding_idx == 0);
  CHECK_THROWS_AS(layer({.padding_idx = 5}), graft::ConfigError);
  CHECK_THROWS_AS(layer({.padding_idx = -6}), graft::ConfigError);
  CHECK(close(layer({.padding_idx = 4})(ids), looked_up, 0));
}

TEST_CASE("an id outside the table is a ShapeError that names it") {
  CHECK_THROWS_WITH_AS((void)layer()(std::vector<int>{0, 5}), doctest::Contains("token id 5"), graft::ShapeError);
  CHECK_THROWS_AS((void)layer()(std::vector<int>{-1}), graft::ShapeError);
  Batch batch;
  batch.add(1);
  CHECK_THROWS_AS((void)layer()(batch.input(std::vector<int>{7})), graft::ShapeError);
}

TEST_CASE("its traits state sizes and norms") {
  using traits = graft::layer_traits<Embedding<>>;
  const auto embedding = layer({.max_norm = 2, .norm_type = 3});
  static_assert(traits::kind == graft::LayerKind::embedding);
  CHECK(traits::num_embeddings(embedding) == 5);
  CHECK(traits::embedding_dim(embedding) == 3);
  CHECK(traits::max_norm(embedding) == 2);
  CHECK(traits::norm_type(embedding) == 3);
}
