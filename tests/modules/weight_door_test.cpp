#include <graft/modules/weight_door.hpp>

#include <doctest/doctest.h>

#include "support/awkward_layers.hpp"

using graft::Index;
using graft::Matrix;
using graft::ParameterData;
using graft::detail::LayerDoor;

namespace {
/// Shows its weight and bias, and lets nobody write them.
struct ReadOnly {
  Matrix<float> w = Matrix<float>::Identity(2, 2);
  Eigen::VectorXf b = Eigen::VectorXf::Ones(2);
};
}  // namespace
template <>
struct graft::layer_traits<ReadOnly> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = float;
  static Index in_features(const ReadOnly&) { return 2; }
  static Index out_features(const ReadOnly&) { return 2; }
  static const Matrix<float>& weight(const ReadOnly& layer) { return layer.w; }
  static const Eigen::VectorXf& bias(const ReadOnly& layer) { return layer.b; }
};

namespace {
/// Computes both at every call: what is written into the answer is lost.
struct Computed {
  Matrix<float> half = Matrix<float>::Identity(2, 2);
};
}  // namespace
template <>
struct graft::layer_traits<Computed> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = float;
  static Index in_features(const Computed&) { return 2; }
  static Index out_features(const Computed&) { return 2; }
  static Matrix<float> weight(const Computed& layer) { return 2 * layer.half; }
  static Eigen::VectorXf bias(const Computed& layer) { return layer.half.col(0); }
};

namespace {
/// Rows and bias written through the door are what the layer shows; what was saved comes back to the bit.
template <class L>
void check(L layer) {
  LayerDoor<L> door(layer);
  using T = graft::detail::layer_scalar<L>;
  REQUIRE(door.is_readable());
  REQUIRE(door.is_writable());
  const graft::Shape shape = door.base().shape();
  const ParameterData saved = door.save();
  CHECK(saved.dtype() == door.dtype());
  Matrix<T> before(shape[0], shape[1]), after = before;
  door.base().copy_rows(0, graft::out(before));
  Matrix<T> rows = Matrix<T>::Constant(2, shape[1], T(1.5));
  rows(1, 2) = T(-0.25);
  door.write_rows(1, graft::in(rows));
  door.base().copy_rows(0, graft::out(after));
  CHECK(after.middleRows(1, 2) == rows);
  CHECK(after.row(0) == before.row(0));
  CHECK(after.bottomRows(shape[0] - 3) == before.bottomRows(shape[0] - 3));
  door.restore(saved);
  door.base().copy_rows(0, graft::out(after));
  CHECK(after == before);
  if (T* data = door.data()) {
    data[shape[1]] = T(3);
    door.base().copy_rows(0, graft::out(after));
    CHECK(after(1, 0) == T(3));
  }
  if (!door.has_bias()) return;
  REQUIRE(door.is_bias_writable());
  const ParameterData bias = door.save_bias();
  std::vector<T> values(static_cast<std::size_t>(shape[0]));
  std::vector<T> seen = values, old = values;
  door.base().copy_bias(old.data());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = T(i) - T(0.5);
  door.write_bias(values.data());
  door.base().copy_bias(seen.data());
  CHECK(seen == values);
  door.restore_bias(bias);
  door.base().copy_bias(seen.data());
  CHECK(seen == old);
}
}  // namespace

TEST_CASE("a door reads and writes any layer's weight and bias") {
  check(awkward::LinearCase<float>::make());
  check(awkward::LinearCase<graft::bf16>::make());
  check(awkward::PlainLinearCase<double>::make());
  check(awkward::TransposedCase<float>::make());
  check(awkward::EmbeddingCase<graft::f16>::make());
  check(awkward::LookupCase<double>::make());
  check(awkward::GroupedConv2dCase<float>::make());
  check(awkward::StridedCase<double>::make());
}

TEST_CASE("which parameter holds the weight, and where its elements are") {
  graft::Linear<float> layer(3, 2), other(3, 2, false);
  LayerDoor<graft::Linear<float>> door(layer), bare(other);
  CHECK(door.parameter() == &layer.weight.untyped());
  CHECK(door.bias_parameter() == &layer.bias.untyped());
  CHECK(door.storage() == layer.weight.untyped().data());
  CHECK(door.bias_storage() == layer.bias.untyped().data());
  CHECK(bare.bias_parameter() == &other.bias.untyped());  // which could hold one
  CHECK(bare.bias_storage() == nullptr);
  auto turned = awkward::TransposedCase<float>::make();
  LayerDoor<awkward::StoredTransposed<float>> own(turned);
  CHECK(own.parameter() == nullptr);
  CHECK(own.storage() == turned.kernel.data());
  ReadOnly fixed;
  static_assert(graft::layer_traits<ReadOnly>::kind == graft::LayerKind::linear);
  LayerDoor<ReadOnly> closed(fixed);
  CHECK_FALSE(closed.is_writable());
  CHECK_FALSE(closed.is_bias_writable());
  Computed computed;
  LayerDoor<Computed> lost(computed);
  CHECK(lost.is_readable());
  CHECK_FALSE(lost.is_writable());
  CHECK_FALSE(lost.is_bias_writable());
}

TEST_CASE("what would overflow a narrow weight is not finite there") {
  auto layer = awkward::EmbeddingCase<graft::f16>::make();
  LayerDoor<graft::Embedding<graft::f16>> door(layer);
  const float values[] = {1, 65504, -65519};
  CHECK(door.stay_finite(values, 3));
  const float large[] = {1, 65520, 0};
  CHECK_FALSE(door.stay_finite(large, 3));
  graft::Linear<float> wide(1, 1);
  CHECK(LayerDoor<graft::Linear<float>>(wide).stay_finite(large, 3));
  const float bad[] = {NAN, 0, 0};
  CHECK_FALSE(LayerDoor<graft::Linear<float>>(wide).stay_finite(bad, 3));
}
