#include <graft/modules/conv_layer_vjp.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support/ramp.hpp"
#include "support/shaped_gradients.hpp"

using graft::Conv2d;
using graft::Gradients;
using graft::Index;
using graft::Matrix;
using graft::Shape;
using graft::Trained;
using graft::TrainingError;
using support::ramp;

namespace {

// A convolution of a user's, of which graft knows what its traits say: here as many outputs in each of two groups as are
// not read at once.
constexpr Index channels = 4, outputs = 2 * 131, columns = channels / 2 * 6;
const Shape row{channels, 5, 3};
graft::ConvShape shape_of_all() { return {channels, outputs, {3, 2}, {2, 1}, {1, 0}, 1, 2}; }
const graft::Conv2dOptions options{.kernel = {3, 2}, .stride = {2, 1}, .padding = {1, 0}, .groups = 2};

/// The weight in a row-major map, the bias by pointer.
template <class W>
struct Mapped {
  Matrix<W> kernel{outputs, columns};
  Eigen::Matrix<W, Eigen::Dynamic, 1> offsets{outputs};
};
/// The weight column by column, as Eigen's are by default; the bias is computed.
struct ColumnMajor {
  Eigen::MatrixXf kernel{outputs, columns};
};
/// The rows of the weight are further apart than they are long.
struct InPieces {
  Matrix<float> kernel;
};
/// Says nothing of its weight.
struct Silent {};
/// Says its gradient instead.
struct Knowing {
  mutable int calls = 0;
};

template <class T = float>
Matrix<T> dy_of_all() {
  return ramp<T>(2, outputs * 3 * 2, 4);
}
template <class T = float>
Matrix<T> x_of_all() {
  return ramp<T>(2, row.size(), 3);
}

/// dx of what stands there already.
template <class T, class L>
Matrix<T> gradient(const L& layer, Gradients& gradients, Trained trained = {}, bool wanted = true) {
  const support::Strided<T> dy(dy_of_all<T>()), x(x_of_all<T>());
  support::Strided<T> dx(Matrix<T>::Constant(2, row.size(), T(0.5)));
  graft::Workspace workspace;
  graft::conv_vjp<L, T>(layer, {.workspace = &workspace}, gradients, dy.in(), x.in(), row,
                        wanted ? dx.out() : graft::out<T>(nullptr, 0, 0), trained);
  CHECK(workspace.in_use() == 0);
  CHECK(dx.gaps_are_intact());
  return dx.values().array() - T(0.5);
}

Conv2d<> graft_layer() {
  Conv2d<> layer(channels, outputs, options);
  support::fill_ramp(layer.weight, 1);
  support::fill_ramp(layer.bias, 2);
  return layer;
}
/// The gradients of graft's own layer, which conv_vjp_test holds against differences. Ramps: no sum is rounded.
struct Want {
  Matrix<> dx, dw, db;
  Want() {
    const Conv2d<> layer = graft_layer();
    Gradients gradients;
    dx = gradient<float>(layer, gradients, {true, true});
    dw = gradients.of(layer.weight);
    db = gradients.of(layer.bias);
  }
};

std::string message_of(const auto& f) {
  try {
    f();
  } catch (const TrainingError& error) {
    return error.what();
  }
  return {};
}

}  // namespace

template <class W>
struct graft::layer_traits<Mapped<W>> {
  using scalar = W;
  static constexpr LayerKind kind = LayerKind::conv;
  static ConvShape conv_shape(const Mapped<W>&) { return shape_of_all(); }
  static auto weight(const Mapped<W>& layer) { return Eigen::Map<const Matrix<W>>(layer.kernel.data(), outputs, columns); }
  static auto* bias(auto& layer) { return &layer.offsets; }
};
template <>
struct graft::layer_traits<ColumnMajor> {
  using scalar = float;
  static constexpr LayerKind kind = LayerKind::conv;
  static ConvShape conv_shape(const ColumnMajor&) { return shape_of_all(); }
  static auto& weight(auto& layer) { return layer.kernel; }
  static Eigen::VectorXf bias(const ColumnMajor&) { return Eigen::VectorXf::Ones(outputs); }
};
template <>
struct graft::layer_traits<InPieces> {
  using scalar = float;
  static constexpr LayerKind kind = LayerKind::conv;
  static ConvShape conv_shape(const InPieces&) { return shape_of_all(); }
  static auto weight(const InPieces& layer) { return layer.kernel.leftCols(columns); }
};
template <>
struct graft::layer_traits<Silent> {
  using scalar = float;
  static constexpr LayerKind kind = LayerKind::conv;
  static ConvShape conv_shape(const Silent&) { return shape_of_all(); }
};
template <>
struct graft::layer_traits<Knowing> {
  using scalar = float;
  static constexpr LayerKind kind = LayerKind::conv;
  static ConvShape conv_shape(const Knowing&) { return shape_of_all(); }
  static void vjp(const Knowing& layer, const In<float>& dy, const In<float>& x, const Shape& of_x, Out<float> dx) {
    ++layer.calls;
    CHECK(dy.cols() == outputs * 6);
    CHECK(x == x_of_all());
    CHECK(of_x == row);
    dx.array() += 2;
  }
};

TEST_CASE("a layer of graft's has the gradients that it is asked for, and those that it wants itself") {
  Conv2d<> layer = graft_layer();
  Gradients none, weight, both;
  const Matrix<> dx = gradient<float>(layer, none);
  CHECK_FALSE(dx.isZero(0));
  CHECK(none.empty());
  CHECK(gradient<float>(layer, weight, {.weight = true}) == dx);
  CHECK(weight.size() == 1);
  CHECK_FALSE(weight.of(layer.weight).isZero(0));
  layer.bias.set_requires_grad(true);
  CHECK(gradient<float>(layer, both, {.weight = true}, false).isZero(0));
  CHECK(both.size() == 2);
  CHECK(both.of(layer.weight) == weight.of(layer.weight));
  CHECK_FALSE(both.of(layer.bias).isZero(0));
  layer.bias.set_requires_grad(false);
  layer.weight.set_requires_grad(true);
  Gradients own;
  gradient<float>(layer, own);
  CHECK(own.size() == 1);
  CHECK(own.of(layer.weight) == weight.of(layer.weight));
}

TEST_CASE("a user's layer has the gradients of the weight that its traits show") {
  const Want want;
  CHECK_FALSE(want.dx.isZero(0));
  Mapped<float> layer;
  support::fill_ramp(layer.kernel, 1);
  Gradients none, both;
  CHECK(gradient<float>(layer, none) == want.dx);
  CHECK(none.empty());
  CHECK(gradient<float>(layer, both, {true, true}, false).isZero(0));
  CHECK(both.at<float>(layer.kernel.data(), outputs, columns) == want.dw);
  CHECK(both.at<float>(layer.offsets.data(), 1, outputs) == want.db);
  CHECK(both.size() == 2);

  Mapped<graft::bf16> narrow;  // eighths fit
  support::fill_ramp(narrow.kernel, 1);
  Gradients of_narrow;
  CHECK(gradient<float>(narrow, of_narrow, {.weight = true}) == want.dx);
  CHECK(of_narrow.at<float>(narrow.kernel.data(), outputs, columns) == want.dw);

  Mapped<double> wide;
  support::fill_ramp(wide.kernel, 1);
  Gradients of_wide;
  CHECK(gradient<double>(wide, of_wide, {.weight = true}).cast<float>() == want.dx);
  CHECK(of_wide.at<double>(wide.kernel.data(), outputs, columns).cast<float>() == want.dw);
}

TEST_CASE("a weight that is stored column by column has its gradient so") {
  const Want want;
  ColumnMajor layer;
  layer.kernel = ramp(outputs, columns, 1);
  Gradients gradients;
  CHECK(gradient<float>(layer, gradients) == want.dx);
  CHECK(gradients.empty());
  CHECK(gradient<float>(layer, gradients, {.weight = true}) == want.dx);
  CHECK(gradients.at<float>(layer.kernel.data(), columns, outputs) == want.dw.transpose());
  gradient<float>(layer, gradients, {.weight = true}, false);
  CHECK(gradients.at<float>(layer.kernel.data(), columns, outputs) == 2 * want.dw.transpose());
}

TEST_CASE("what is computed, or lies in pieces, cannot be trained") {
  ColumnMajor layer;
  Gradients gradients;
  CHECK(message_of([&] { gradient<float>(layer, gradients, {.bias = true}); }).find("layer_traits::bias") != std::string::npos);
  const InPieces pieces{ramp(outputs, columns + 1, 1)};
  CHECK(message_of([&] { gradient<float>(pieces, gradients, {.weight = true}); }).find("layer_traits::weight") != std::string::npos);
  CHECK(gradients.empty());
  CHECK_FALSE(gradient<float>(pieces, gradients).isZero(0));
}

TEST_CASE("traits that show no weight can know the gradient, else the error says what to add") {
  Gradients gradients;
  const std::string message = message_of([&] { gradient<float>(Silent(), gradients); });
  CHECK(message.find("Silent") != std::string::npos);
  CHECK(message.find("const Shape& row, Out<T> dx)") != std::string::npos);
  CHECK(gradient<float>(Silent(), gradients, {}, false).isZero(0));  // nobody asks
  const Knowing layer;
  CHECK(gradient<float>(layer, gradients) == Matrix<>::Constant(2, row.size(), 2));
  CHECK(gradient<float>(layer, gradients, {}, false).isZero(0));
  CHECK(layer.calls == 1);
  CHECK_THROWS_AS(gradient<float>(layer, gradients, {.weight = true}), TrainingError);
  CHECK(gradient<float>(layer, gradients, {.bias = true}) == Matrix<>::Constant(2, row.size(), 2));  // it has none
  CHECK(gradients.empty());
}
