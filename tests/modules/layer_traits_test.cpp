#include <doctest/doctest.h>

#include <graft/modules/conv.hpp>
#include <graft/modules/embedding.hpp>
#include <graft/modules/linear.hpp>

using graft::AxisList;
using graft::ConvShape;
using graft::Index;
using graft::LayerFacts;
using graft::LayerKind;
using graft::Shape;
using graft::detail::facts_of;

namespace {
/// Layers of somebody's: the bias is a member, may be null, or does not exist.
struct Dense {
  Eigen::MatrixXf weight = Eigen::MatrixXf::Zero(7, 5);
  Eigen::VectorXf bias;
};
struct Pointing {
  const Eigen::RowVectorXd* bias = nullptr;
};
struct Table {
  float scale = 1.5f;
};
struct Kernel {
  ConvShape shape;
};
}  // namespace

template <>
struct graft::layer_traits<Dense> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = bf16;
  static Index in_features(const Dense& layer) { return layer.weight.cols(); }
  static Index out_features(const Dense& layer) { return layer.weight.rows(); }
  static auto& weight(auto& layer) { return layer.weight; }
  static auto& bias(auto& layer) { return layer.bias; }
};
template <>
struct graft::layer_traits<Pointing> {
  static constexpr LayerKind kind = LayerKind::linear;
  static constexpr bool transposed = true;
  using scalar = double;
  static Index in_features(const Pointing&) { return 5; }
  static Index out_features(const Pointing&) { return 7; }
  static const Eigen::RowVectorXd* bias(const Pointing& layer) { return layer.bias; }
};
template <>
struct graft::layer_traits<Table> {
  static constexpr LayerKind kind = LayerKind::embedding;
  using scalar = float;
  static Index num_embeddings(const Table&) { return 11; }
  static Index embedding_dim(const Table&) { return 3; }
  static float embed_scale(const Table& layer) { return layer.scale; }
};
template <>
struct graft::layer_traits<Kernel> {
  static constexpr LayerKind kind = LayerKind::conv;
  using scalar = float;
  static const ConvShape& conv_shape(const Kernel& layer) { return layer.shape; }
};

TEST_CASE("an axis list comes from one number, a braced list, an array or a vector") {
  CHECK(AxisList(3) == Shape{3});
  CHECK(AxisList{3, 2} == Shape{3, 2});
  CHECK(AxisList(std::array<int, 3>{1, 2, 3}) == Shape{1, 2, 3});
  CHECK(AxisList(std::vector<Index>{4, 5}) == Shape{4, 5});
}

TEST_CASE("a convolution's shape is completed to the kernel's axes") {
  const ConvShape shape = ConvShape{.in = 4, .out = 6, .kernel = {3, 2}, .padding = {1, 0}}.completed();
  CHECK(shape.stride == Shape{1, 1});
  CHECK(shape.padding == Shape{1, 0});
  CHECK(shape.dilation == Shape{1, 1});
  CHECK(shape.groups == 1);
}

TEST_CASE("facts of the ready-made layers") {
  const LayerFacts linear = facts_of(graft::Linear<>(5, 7, false));
  CHECK(linear.kind == LayerKind::linear);
  CHECK(linear.in == 5);
  CHECK(linear.out == 7);
  CHECK_FALSE(linear.has_bias);
  CHECK_FALSE(linear.transposed);
  CHECK(linear.shape_text() == "(5, 7)");
  CHECK(facts_of(graft::Linear<>(5, 7)).has_bias);

  const LayerFacts embedding = facts_of(graft::Embedding<>(11, 3, {.max_norm = 2, .norm_type = 1}));
  CHECK(embedding.kind == LayerKind::embedding);
  CHECK(embedding.in == 11);
  CHECK(embedding.out == 3);
  CHECK(embedding.max_norm == 2);
  CHECK(embedding.norm_type == 1);
  CHECK(embedding.embed_scale == 1);
  CHECK_FALSE(embedding.has_bias);

  const LayerFacts conv = facts_of(graft::Conv2d<>(4, 6, {.kernel = {3, 2}, .padding = graft::same, .groups = 2, .bias = false}));
  CHECK(conv.kind == LayerKind::conv);
  CHECK(conv.in == 4);
  CHECK(conv.out == 6);
  CHECK(conv.conv.kernel == Shape{3, 2});
  CHECK(conv.conv.groups == 2);
  CHECK(conv.conv.same);
  CHECK_FALSE(conv.has_bias);
}

TEST_CASE("facts of layers that only their traits describe") {
  CHECK_FALSE(facts_of(Dense{}).has_bias);
  CHECK(facts_of(Dense{.bias = Eigen::VectorXf::Zero(7)}).has_bias);
  const Eigen::RowVectorXd bias = Eigen::RowVectorXd::Zero(7);
  CHECK_FALSE(facts_of(Pointing{}).has_bias);
  CHECK(facts_of(Pointing{&bias}).has_bias);
  CHECK(facts_of(Pointing{}).transposed);
  CHECK(facts_of(Table{}).embed_scale == 1.5);
  CHECK_FALSE(facts_of(Table{}).max_norm.has_value());
  CHECK(facts_of(Kernel{{.in = 2, .out = 3, .kernel = {1, 2, 3}}}).conv.stride == Shape{1, 1, 1});
}

TEST_CASE("what a layer's traits give access to") {
  static_assert(graft::detail::has_weight<Dense> && graft::detail::has_weight<const Dense> && !graft::detail::has_weight<Table>);
  static_assert(graft::detail::has_bias_access<Pointing> && !graft::detail::has_bias_access<Table>);
  static_assert(std::is_same_v<graft::detail::layer_scalar<Dense>, float>);
  static_assert(std::is_same_v<graft::detail::layer_scalar<const Pointing>, double>);
  Dense dense{.bias = Eigen::VectorXf::Ones(7)};
  graft::detail::with_bias(dense, [](auto& bias) { bias(6) = 9; });
  CHECK(dense.bias(6) == 9);
}
