#include <doctest/doctest.h>

#include <graft/modules/embedding.hpp>
#include <graft/modules/layer_call.hpp>
#include <graft/modules/linear.hpp>

#include "support/ramp.hpp"

using graft::Ids;
using graft::Index;
using graft::Matrix;
using graft::Shape;
using graft::ShapeError;
using support::ramp;

namespace {
const Matrix<> weight = ramp(7, 5, 2), x = ramp(3, 5, 1), product = x * weight.transpose();

/// Linear layers that can be called in one way each.
struct ByExpression {
  auto operator()(const auto& input) const { return input * weight.transpose(); }
};
struct ByRowMajor {
  Matrix<> operator()(const Matrix<>& input) const { return input * weight.transpose(); }
};
struct ByColumnMajor {
  Eigen::MatrixXf operator()(const Eigen::MatrixXf& input) const { return input * weight.transpose(); }
};
struct ByTraits {};
struct Wrong {
  Matrix<> operator()(const Matrix<>& input) const { return input; }
};

/// Tables that take ids of one type.
template <class Argument>
struct TableOf {
  Matrix<> operator()(Argument ids) const {
    Matrix<> y(Index(ids.size()), 2);
    using I = decltype(ids.size());  // unsigned but in Eigen
    for (I i = 0; i < ids.size(); ++i) y.row(Index(i)).setConstant(float(ids[i]));
    return y;
  }
};

/// Adds 1 to every element; a convolution as far as its traits go.
template <class Tensor>
struct PlusOne {
  Eigen::Tensor<float, 4, Eigen::RowMajor> operator()(const Tensor& tensor) const { return tensor + 1.0f; }
};
using Tensor4 = Eigen::Tensor<float, 4, Eigen::RowMajor>;

/// Reads its input through a pointer, row after row.
struct ByPointer {
  static Matrix<> run(const float* rows, Index count) { return Eigen::Map<const Matrix<>>(rows, count, 5) * weight.transpose(); }
  Matrix<> operator()(const auto& input) const { return run(input.data(), input.rows()); }
};

/// Templates whose bodies compile with one kind of argument only.
struct WideTable {
  static Matrix<> find(std::span<const std::int64_t> ids) { return TableOf<std::span<const std::int64_t>>{}(ids); }
};
template <class Tensor>
struct AnyPlusOne : PlusOne<Tensor> {};
struct Indexed {
  Tensor4 operator()(const auto& image) const {
    Tensor4 y(image.dimension(0), image.dimension(1), image.dimension(2), image.dimension(3));
    for (Index n = 0; n < y.dimension(0); ++n)
      for (Index c = 0; c < y.dimension(1); ++c)
        for (Index i = 0; i < y.dimension(2); ++i)
          for (Index j = 0; j < y.dimension(3); ++j) y(n, c, i, j) = image(n, c, i, j) + 1;
    return y;
  }
};
/// Its body needs an Eigen::Tensor, and its traits say of how many axes.
struct OfExpressions {
  Tensor4 operator()(const auto& image) const { return image + image.constant(1.0f); }
};

template <class L>
Matrix<> called(const L& layer) {
  Matrix<> wide = Matrix<>::Zero(3, 9);
  graft::detail::call_linear<L, float>(layer, graft::in(x), graft::out(wide.data() + 1, 3, 7, 9), nullptr);
  CHECK(wide.col(0).isZero(0));
  CHECK(wide.col(8).isZero(0));
  return wide.middleCols(1, 7);
}
}  // namespace

template <>
struct graft::layer_traits<ByTraits> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = float;
  static Matrix<> forward(const ByTraits&, const auto& input) { return input * weight.transpose(); }
};
template <>
struct graft::layer_traits<ByExpression> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = float;
};

template <>
struct graft::layer_traits<WideTable> {
  static constexpr LayerKind kind = LayerKind::embedding;
  using scalar = float;
  static auto forward(const WideTable& layer, const auto& ids) { return layer.find(ids); }
};
template <class Tensor>
struct graft::layer_traits<AnyPlusOne<Tensor>> {
  static constexpr LayerKind kind = LayerKind::conv;
  using scalar = float;
  static auto forward(const AnyPlusOne<Tensor>& layer, const auto& image) { return layer(image); }
};
template <>
struct graft::layer_traits<OfExpressions> {
  static constexpr LayerKind kind = LayerKind::conv;
  static constexpr int axes = 2;
  using scalar = float;
};

TEST_CASE("a layer of the user's gets rows without gaps") {
  Matrix<> wide = Matrix<>::Constant(3, 8, 99);
  wide.leftCols(5) = x;
  Matrix<> y(3, 7);
  graft::detail::call_linear<ByPointer, float>({}, graft::in(wide.data(), 3, 5, 8), graft::out(y), nullptr);
  CHECK(y.isApprox(product));
}

TEST_CASE("a linear layer is called as it can be, into given memory") {
  CHECK(called(ByExpression{}).isApprox(product));
  CHECK(called(ByRowMajor{}).isApprox(product));
  CHECK(called(ByColumnMajor{}).isApprox(product));
  CHECK(called(ByTraits{}).isApprox(product));
  graft::Linear<> ready(5, 7, false);
  ready.weight.view() = weight;
  CHECK(called(ready).isApprox(product));
}

TEST_CASE("a result of another size is a ShapeError that names both") {
  CHECK_THROWS_WITH_AS((void)called(Wrong{}), doctest::Contains("(3, 5) where (3, 7)"), ShapeError);
}

TEST_CASE("an embedding is called with the ids that it takes") {
  const std::vector<int> ids{4, 0, 2};
  const auto look_up = [&](const auto& table) {
    Matrix<> y(3, 2);
    using L = std::remove_cvref_t<decltype(table)>;
    graft::detail::call_embedding<L, float>(table, Ids(std::span<const int>(ids)), graft::out(y), nullptr);
    return y;
  };
  Matrix<> wanted(3, 2);
  wanted << 4, 4, 0, 0, 2, 2;
  CHECK(look_up(TableOf<const std::vector<int>&>{}) == wanted);
  CHECK(look_up(TableOf<std::span<const int>>{}) == wanted);
  CHECK(look_up(TableOf<const std::vector<std::int64_t>&>{}) == wanted);
  CHECK(look_up(TableOf<std::span<const std::int64_t>>{}) == wanted);
  CHECK(look_up(TableOf<const Eigen::VectorXi&>{}) == wanted);
  CHECK(look_up(WideTable{}) == wanted);
  graft::Embedding<> ready(5, 2);
  for (Index i = 0; i < 5; ++i) ready.weight.view().row(i).setConstant(float(i));
  CHECK(look_up(ready) == wanted);
}

TEST_CASE("a convolution gets tensors made of rows, by value or as a map") {
  const Matrix<> rows = ramp(2, 12, 1);
  const auto call = [&](const auto& layer, const Shape& shape) {
    Matrix<> y(2, 12);
    using L = std::remove_cvref_t<decltype(layer)>;
    graft::detail::call_conv<L, float>(layer, graft::in(rows), shape, graft::out(y), nullptr);
    return y;
  };
  const Matrix<> wanted = (rows.array() + 1).matrix();
  CHECK(call(PlusOne<Tensor4>{}, {3, 2, 2}) == wanted);
  CHECK(call(PlusOne<Eigen::TensorMap<const Tensor4>>{}, {3, 2, 2}) == wanted);
  CHECK(call(PlusOne<const Tensor4&>{}, {3, 2, 2}) == wanted);
  CHECK(call(AnyPlusOne<const Tensor4&>{}, {3, 2, 2}) == wanted);
  CHECK(call(Indexed{}, {3, 2, 2}) == wanted);
  CHECK(call(OfExpressions{}, {3, 2, 2}) == wanted);
  CHECK_THROWS_AS((void)call(PlusOne<const Tensor4&>{}, {3, 4}), ShapeError);
  CHECK_THROWS_AS((void)call(OfExpressions{}, {3, 4}), ShapeError);
}
