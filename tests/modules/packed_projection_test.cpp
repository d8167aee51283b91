#include <graft/modules/packed_projection.hpp>

#include <doctest/doctest.h>

#include <graft/modules/base_tensors.hpp>

#include "support/ramp.hpp"

using graft::BaseProjection;
using graft::Batch;
using graft::Index;
using graft::Matrix;
using graft::PackedProjection;
using support::ramp;

namespace {
template <class T>
PackedProjection<T> packed(bool bias = true) {
  PackedProjection<T> made(5, 21, bias);
  made.in_proj_weight.view() = ramp<T>(21, 5, 2);
  if (bias) made.in_proj_bias.view() = ramp<T>(1, 21, 3);
  return made;
}
template <class T>
Matrix<T> whole(const Matrix<T>& x, bool bias = true) {
  Matrix<T> y = x * ramp<T>(21, 5, 2).transpose();
  if (bias) y.rowwise() += ramp<T>(1, 21, 3).row(0);
  return y;
}

struct Own {  // column-major, and nothing known of graft
  Eigen::MatrixXd kernel = ramp<double>(21, 5, 2);
  Eigen::VectorXd offsets = ramp<double>(21, 1, 3);
};
}  // namespace

template <>
struct graft::layer_traits<Own> {
  using scalar = double;
  static constexpr LayerKind kind = LayerKind::linear;
  static constexpr bool packed = true;
  static Index in_features(const Own& layer) { return layer.kernel.cols(); }
  static Index out_features(const Own& layer) { return layer.kernel.rows(); }
  static auto& weight(auto& layer) { return layer.kernel; }
  static auto& bias(auto& layer) { return layer.offsets; }
};

TEST_CASE_TEMPLATE("a slice is those columns of the whole product", T, float, double) {
  const Matrix<T> x = ramp<T>(3, 5, 1);
  for (const bool bias : {true, false}) {
    const auto layer = packed<T>(bias);
    const BaseProjection project{layer};
    CHECK(project(x, 0, 21) == whole<T>(x, bias));  // exact: ramps are small multiples of 1/8
    CHECK(project(x, 0, 7) == whole<T>(x, bias).leftCols(7));
    CHECK(project(x, 13, 5) == whole<T>(x, bias).middleCols(13, 5));
  }
  const auto layer = packed<T>();
  Batch batch;
  batch.add(1).add(2);
  CHECK(Matrix<T>(BaseProjection{layer}(batch.input(x), 7, 7).value()) == whole<T>(x).middleCols(7, 7));
  Eigen::Tensor<T, 3, Eigen::RowMajor> tensor(1, 3, 5);
  std::copy_n(x.data(), x.size(), tensor.data());
  const auto y = BaseProjection{layer}(tensor, 14, 7);
  CHECK(y.dimension(2) == 7);
  CHECK(Matrix<T>(Eigen::Map<const Matrix<T>>(y.data(), 3, 7)) == whole<T>(x).rightCols(7));
  CHECK_THROWS_AS((void)BaseProjection{layer}(ramp<T>(3, 4), 0, 7), graft::ShapeError);
}

TEST_CASE("a layer of the user's is sliced through its weight") {
  const Own own;
  const Matrix<double> x = ramp<double>(3, 5, 1);
  CHECK(BaseProjection{own}(x, 7, 9) == whole<double>(x).middleCols(7, 9));
  CHECK(BaseProjection{own}(x, 0, 21) == whole<double>(x));
}

TEST_CASE("its tensors have torch's names, whoever holds them") {
  const auto keys = [](auto layer) {
    std::vector<std::string> all;
    for (const auto& tensor : graft::detail::base_tensors(layer)) all.push_back(tensor.key + ' ' + std::to_string(tensor.shape[0]) + ' ' + std::to_string(tensor.shape.size()));
    return all;
  };
  CHECK(keys(Own{}) == keys(packed<float>()));
  CHECK(keys(Own{}) == std::vector<std::string>{"in_proj_weight 21 105", "in_proj_bias 21 21"});
  CHECK(keys(packed<float>(false)) == std::vector<std::string>{"in_proj_weight 21 105"});
}

TEST_CASE("the weight of a slice is the whole one, from a row on") {
  const auto layer = packed<double>();
  const auto base = base_weight_of(graft::detail::ProjectionSlice<PackedProjection<double>>{&layer, 7, 5});
  CHECK(base.first_row() == 7);
  CHECK(base.shape() == graft::Shape{21, 5});
  CHECK(base.layer() == &layer);
  CHECK(graft::detail::base_weight_of(layer).first_row() == 0);
}
