#include <graft/modules/base_weight.hpp>
#include <graft/modules/conv.hpp>
#include <graft/modules/embedding.hpp>
#include <graft/modules/linear.hpp>

#include <doctest/doctest.h>

using graft::Index;
using graft::Matrix;

namespace {
/// (in, out) in memory, as transformers' Conv1D.
struct Turned {
  Matrix<float> w{3, 2};
  Eigen::VectorXf b{2};
};
/// Shows no weight.
struct Closed {
  Index in = 3, out = 2;
};
/// A weight that is computed when it is asked for.
struct Halved {
  Matrix<double> w{2, 3};
};
}  // namespace
template <>
struct graft::layer_traits<Turned> {
  static constexpr LayerKind kind = LayerKind::linear;
  static constexpr bool transposed = true;
  using scalar = float;
  static Index in_features(const Turned&) { return 3; }
  static Index out_features(const Turned&) { return 2; }
  static auto weight(auto& layer) { return layer.w.transpose(); }
  static auto& bias(auto& layer) { return layer.b; }
};
template <>
struct graft::layer_traits<Closed> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = float;
  static Index in_features(const Closed& layer) { return layer.in; }
  static Index out_features(const Closed& layer) { return layer.out; }
};
template <>
struct graft::layer_traits<Halved> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = double;
  static Index in_features(const Halved&) { return 3; }
  static Index out_features(const Halved&) { return 2; }
  static Matrix<double> weight(const Halved& layer) { return layer.w * 0.5; }
};

namespace {
template <class L>
Matrix<graft::detail::layer_scalar<L>> copied(const L& layer, Index begin, Index count) {
  const auto base = graft::detail::base_weight_of(layer);
  Matrix<graft::detail::layer_scalar<L>> rows(count, base.shape().cols());
  base.copy_rows(begin, graft::out(rows));
  return rows;
}
}  // namespace

TEST_CASE("a ready-made layer's weight is shown in place, its bias copied, every write counted") {
  graft::Linear<float> layer(3, 2);
  layer.weight.view() << 1, 2, 3, 4, 5, 6;
  layer.bias.view() << 7, 8;
  const auto base = graft::detail::base_weight_of(layer);
  CHECK(base.is_readable());
  CHECK(base.shape() == graft::Shape{2, 3});
  CHECK(base.data() == std::as_const(layer).weight.data());
  CHECK(copied(layer, 1, 1)(0, 2) == 6);
  float bias[2];
  base.copy_bias(bias);
  CHECK(bias[1] == 8);
  const auto before = base.version();
  REQUIRE(before.has_value());
  CHECK(std::as_const(layer).weight.view()(0, 0) == 1);
  CHECK(base.version() == before);
  layer.weight.view()(0, 0) = 9;
  CHECK(base.version() != before);
}

TEST_CASE("another scalar or layout is converted row by row") {
  graft::Linear<graft::bf16> narrow(3, 2, false);
  narrow.weight.view().setConstant(graft::bf16(1.5F));
  const auto base = graft::detail::base_weight_of(narrow);
  CHECK(base.data() == nullptr);
  CHECK_FALSE(base.has_bias());
  CHECK(copied(narrow, 0, 2)(1, 1) == 1.5F);

  Turned turned;
  turned.w << 1, 2, 3, 4, 5, 6;
  turned.b << 7, 8;
  CHECK(graft::detail::base_weight_of(turned).data() == nullptr);
  CHECK(copied(turned, 1, 1) == (Matrix<float>(1, 3) << 2, 4, 6).finished());
  CHECK_FALSE(graft::detail::base_weight_of(turned).version().has_value());

  Halved halved;
  halved.w << 2, 4, 6, 8, 10, 12;
  CHECK(graft::detail::base_weight_of(halved).data() == nullptr);
  CHECK(copied(halved, 1, 1) == (Matrix<double>(1, 3) << 4, 5, 6).finished());
  CHECK_FALSE(graft::detail::base_weight_of(Closed{}).is_readable());
}

TEST_CASE("a convolution's kernels are columns, an embedding's rows are its ids'") {
  graft::Conv2d<double> conv(4, 6, graft::Conv2dOptions{.kernel = {2, 3}, .groups = 2});
  CHECK(graft::detail::base_weight_of(conv).shape() == graft::Shape{6, 12});
  graft::Embedding<float> embedding(5, 3);
  CHECK(graft::detail::base_weight_of(embedding).shape() == graft::Shape{5, 3});
  CHECK_FALSE(graft::detail::base_weight_of(embedding).has_bias());
}

TEST_CASE("the bias that an adapter trained stands for the layer's") {
  graft::Linear<float> layer(3, 2, false);
  graft::ParameterData trained(graft::Dtype::f64, graft::Shape{2});
  trained.allocate();
  reinterpret_cast<double*>(trained.data())[1] = 2.5;
  const auto base = graft::detail::base_weight_of(layer).with_bias(&trained);
  CHECK(base.has_bias());
  float bias[2];
  base.copy_bias(bias);
  CHECK(bias[1] == 2.5F);
}
