#include "graft/modules/user_layer_vjp.hpp"

#include <doctest/doctest.h>

#include <concepts>

#include "support/layer_gradients.hpp"
#include "support/op_gradients.hpp"
#include "support/ramp.hpp"

using namespace graft;
using support::dx_of;
using support::Gapped;
using support::ramp;

namespace {
constexpr Index n = 5, in_features = 13, out_features = 7;

/// A layer of a user's with its own backward, which it counts, and no weight to be seen.
struct Opaque {
  Matrix<double> hidden = ramp<double>(out_features, in_features, 2);
  mutable int calls = 0;
};
struct ParameterBias : Opaque {
  Parameter<double> offsets{Shape{out_features}};
};
struct Mute {};
struct UsersNorm {
  mutable int calls = 0;
};
struct MuteNorm {};

}  // namespace

template <std::derived_from<Opaque> L>
struct graft::layer_traits<L> {
  using scalar = double;
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const Opaque&) { return ::in_features; }
  static Index out_features(const Opaque&) { return ::out_features; }
  static void vjp(const Opaque& layer, const In<double>& dy, const In<double>&, Out<double> dx) {
    ++layer.calls;
    dx += dy * layer.hidden;
  }
  static auto bias(auto& layer)
    requires requires { layer.offsets; }
  {
    return layer.offsets.view().row(0);
  }
  static auto& bias_parameter(auto& layer)
    requires requires { layer.offsets; }
  {
    return layer.offsets;
  }
};
template <>
struct graft::layer_traits<Mute> {
  using scalar = double;
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const Mute&) { return ::in_features; }
  static Index out_features(const Mute&) { return ::out_features; }
};
template <>
struct graft::layer_traits<UsersNorm> {
  using scalar = double;
  static constexpr LayerKind kind = LayerKind::norm;
  static Index features(const UsersNorm&) { return ::in_features; }
  static void vjp(const UsersNorm& layer, const In<double>& dy, const In<double>&, Out<double> dx) {
    ++layer.calls;
    dx += 3 * dy;
  }
};
template <>
struct graft::layer_traits<MuteNorm> {
  using scalar = double;
  static constexpr LayerKind kind = LayerKind::norm;
  static Index features(const MuteNorm&) { return ::in_features; }
};

namespace {
/// Weights of a user's in every layout, each of which shows the same numbers, but for the scalar.
template <class View, class Store>
struct Shown {
  Store store;
  Matrix<double> offsets = ramp<double>(1, out_features, 3);
  View view;
};
template <class View, class Store>
auto shown(Store store, View view) {
  return Shown<View, Store>{std::move(store), ramp<double>(1, out_features, 3), view};
}
}  // namespace
template <class View, class Store>
struct graft::layer_traits<Shown<View, Store>> {
  using Layer = Shown<View, Store>;
  using scalar = std::conditional_t<std::is_same_v<typename Store::Scalar, double>, double, float>;
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const Layer&) { return ::in_features; }
  static Index out_features(const Layer&) { return ::out_features; }
  static decltype(auto) weight(auto& layer) { return layer.view(layer.store); }
  static auto bias(auto& layer) { return layer.offsets.row(0); }
};

namespace {
const Matrix<double> x = ramp<double>(n, in_features, 1), dy = ramp<double>(n, out_features, 4);
const Matrix<double> weight = ramp<double>(out_features, in_features, 2);

/// Everything is a multiple of 1/64: exact. `turned`: the gradient is (in, out).
template <class L>
void check_trained(const L& layer, const void* stored, bool turned) {
  Gradients gradients;
  CHECK(dx_of<double>(layer, dy, x, gradients) == dy * weight);
  CHECK(gradients.empty());
  CHECK(dx_of<double>(layer, dy, x, gradients, {true, true}) == dy * weight);
  CHECK(gradients.size() == 2);
  const Matrix<double> dw = dy.transpose() * x;
  REQUIRE(!dw.isZero(0));
  if (turned) CHECK(gradients.at<double>(stored, in_features, out_features) == dw.transpose());
  else CHECK(gradients.at<double>(stored, out_features, in_features) == dw);
  CHECK(gradients.at<double>(layer.offsets.data(), 1, out_features) == Matrix<double>(dy.colwise().sum()));
}
template <class L>
void check_frozen(const L& layer) {
  Gradients gradients;
  CHECK(dx_of<double>(layer, dy, x, gradients) == dy * weight);
  Gapped<double> dx(x);
  CHECK_THROWS_AS((linear_vjp<L, double>(layer, {}, gradients, in(dy), in(x), dx.out(), {true, false})), TrainingError);
  CHECK(dx.in() == x);
  CHECK(gradients.empty());
}
}  // namespace

TEST_CASE("a user's weight is read in any layout, and trained where it lies in one piece") {
  const Matrix<double> row_major = weight;
  const auto by_reference = shown(row_major, [](auto& store) -> auto& { return store; });
  check_trained(by_reference, by_reference.store.data(), false);
  const auto mapped = shown(row_major, [](auto& store) { return Eigen::Map<const Matrix<double>>(store.data(), out_features, in_features); });
  check_trained(mapped, mapped.store.data(), false);
  const Eigen::MatrixXd column_major = weight;
  const auto columns = shown(column_major, [](auto& store) -> auto& { return store; });
  check_trained(columns, columns.store.data(), true);
  const Matrix<double> stored_turned = weight.transpose();
  const auto turned = shown(stored_turned, [](auto& store) { return store.transpose(); });
  check_trained(turned, turned.store.data(), true);

  Matrix<double> broad = Matrix<double>::Constant(out_features, in_features + 4, 77);
  broad.middleCols(2, in_features) = weight;
  check_frozen(shown(broad, [](auto& store) { return store.middleCols(2, in_features); }));
  Matrix<double> spread = Matrix<double>::Constant(out_features, 2 * in_features, 77);
  for (Index c = 0; c < in_features; ++c) spread.col(2 * c) = weight.col(c);
  check_frozen(shown(spread, [](auto& store) {
    using Stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
    return Eigen::Map<const Matrix<double>, 0, Stride>(store.data(), out_features, in_features, Stride(2 * in_features, 2));
  }));
  const Matrix<double> half = weight / 2;
  check_frozen(shown(half, [](auto& store) { return store * 2.0; }));                  // computed element by element
  check_frozen(shown(half, [](auto& store) { return Matrix<double>(store * 2.0); }));  // and at once
}

TEST_CASE_TEMPLATE("a user's narrow weight is widened", W, bf16, Eigen::half) {
  using Narrow = Eigen::Matrix<W, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Narrow narrow(out_features, in_features);
  for (Index i = 0; i < narrow.size(); ++i) narrow.data()[i] = W(float(weight.data()[i]));
  const auto layer = shown(narrow, [](auto& store) -> auto& { return store; });
  Gradients gradients;
  CHECK(dx_of<float>(layer, dy.cast<float>(), x.cast<float>(), gradients, {true, false}) == (dy * weight).cast<float>());
  CHECK(gradients.at<float>(layer.store.data(), out_features, in_features) == (dy.transpose() * x).cast<float>());
}

TEST_CASE("rows of a user's layer have the gradients of the whole layer's rows") {
  Gradients gradients;
  const Matrix<double> g = dy.leftCols(3), dx = g * weight.middleRows(2, 3);
  Matrix<double> dw = Matrix<double>::Zero(out_features, in_features), db = Matrix<double>::Zero(1, out_features);
  dw.middleRows(2, 3) = g.transpose() * x;
  db.middleCols(2, 3) = g.colwise().sum();
  const Trained both{true, true};
  auto rows = shown(Matrix<double>(weight), [](auto& store) -> auto& { return store; });
  CHECK(dx_of<double>(slices::Linear(rows, 2, 3), g, x, gradients, both) == dx);
  CHECK(gradients.at<double>(rows.store.data(), out_features, in_features) == dw);
  CHECK(gradients.at<double>(rows.offsets.data(), 1, out_features) == db);
  auto columns = shown(Eigen::MatrixXd(weight), [](auto& store) -> auto& { return store; });
  CHECK(dx_of<double>(slices::Linear(columns, 2, 3), g, x, gradients, both) == dx);
  CHECK(gradients.at<double>(columns.store.data(), in_features, out_features) == dw.transpose());
  auto computed = shown(Matrix<double>(weight / 2), [](auto& store) { return store * 2.0; });
  CHECK(dx_of<double>(slices::Linear(computed, 2, 3), g, x, gradients, {false, true}) == dx);
  Opaque opaque;
  CHECK(dx_of<double>(slices::Linear(opaque, 2, 3), g, x, gradients) == dx);
  CHECK(opaque.calls == 1);
}

TEST_CASE("a user's vjp is called where the traits have one") {
  const Opaque layer;
  Gradients gradients;
  CHECK(dx_of<double>(layer, dy, x, gradients) == dy * layer.hidden);
  CHECK(layer.calls == 1);
  CHECK_FALSE(trains(layer));
  // nobody wants dx
  linear_vjp<Opaque, double>(layer, {}, gradients, in(dy), in(x), out<double>(nullptr, 0, 0), {});
  CHECK(layer.calls == 1);
  CHECK_THROWS_AS(dx_of<double>(layer, dy, x, gradients, {true, false}), TrainingError);
  CHECK(layer.calls == 1);

  ParameterBias with_bias;
  CHECK_FALSE(trains(with_bias));
  with_bias.offsets.set_requires_grad(true);
  CHECK(trains(with_bias));
  CHECK(dx_of<double>(with_bias, dy, x, gradients) == dy * with_bias.hidden);
  CHECK(gradients.of(with_bias.offsets) == Matrix<double>(dy.colwise().sum()));

  const UsersNorm norm;
  const Matrix<double> g = ramp<double>(n, in_features, 4);
  CHECK(dx_of<double>(norm, g, x, gradients) == 3 * g);
  CHECK(norm.calls == 1);
  CHECK_THROWS_AS(dx_of<double>(norm, g, x, gradients, {true, false}), TrainingError);
}

TEST_CASE("a layer of which nothing is known says what to add") {
  Gradients gradients;
  CHECK_THROWS_WITH_AS(dx_of<double>(Mute(), dy, x, gradients), doctest::Contains("weight(layer) as (out, in) is enough"), TrainingError);
  CHECK_THROWS_WITH_AS(dx_of<double>(MuteNorm(), ramp<double>(n, in_features, 4), x, gradients), doctest::Contains("static void vjp"), TrainingError);
  // where nobody wants dx, nothing is missing
  linear_vjp<Mute, double>(Mute(), {}, gradients, in(dy), in(x), out<double>(nullptr, 0, 0), {});
  CHECK(gradients.empty());
}
