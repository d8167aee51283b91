#include <graft/modules/linear_slice.hpp>

#include <doctest/doctest.h>

#include <graft/modules/base_weight.hpp>
#include <graft/modules/initialise.hpp>
#include <graft/modules/linear.hpp>
#include <graft/modules/weight_door.hpp>

#include "support/ramp.hpp"

using graft::Index;
using graft::Matrix;
using support::ramp;
template <class L>
using Slice = graft::slices::Linear<L>;
template <class L>
using Traits = graft::layer_traits<Slice<L>>;

namespace {
constexpr Index in = 5, out = 9;

template <class T, class Storage = graft::dense, class Product = graft::KernelProduct>
graft::Linear<T, Storage, Product> whole() {
  graft::Linear<T, Storage, Product> made(in, out);
  made.weight.materialize();
  made.bias.materialize();
  made.weight.view() = ramp<T>(out, in, 2);
  made.bias.view() = ramp<T>(1, out, 3);
  return made;
}
/// Stores (in, out), and computes its weight.
struct Turned {
  Eigen::MatrixXd kernel = ramp<double>(out, in, 2).transpose();
};
struct Computed {
  Matrix<double> half = ramp<double>(out, in, 2) / 2;
};
template <class T>
Matrix<T> product(const auto& layer, const Matrix<T>& x) {
  Matrix<T> y(x.rows(), graft::detail::facts_of(layer).out);
  graft::detail::call_linear<std::remove_cvref_t<decltype(layer)>, T>(layer, graft::in(x), graft::out(y), nullptr);
  return y;
}
}  // namespace

template <>
struct graft::layer_traits<Turned> {
  using scalar = double;
  static constexpr LayerKind kind = LayerKind::linear;
  static constexpr bool transposed = true;
  static Index in_features(const Turned& layer) { return layer.kernel.rows(); }
  static Index out_features(const Turned& layer) { return layer.kernel.cols(); }
  static auto weight(auto& layer) { return layer.kernel.transpose(); }
  static auto forward(const Turned& layer, const auto& x) { return Matrix<double>(x * layer.kernel); }
};
template <>
struct graft::layer_traits<Computed> {
  using scalar = double;
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const Computed& layer) { return layer.half.cols(); }
  static Index out_features(const Computed& layer) { return layer.half.rows(); }
  static Matrix<double> weight(const Computed& layer) { return 2 * layer.half; }
  static auto forward(const Computed& layer, const auto& x) { return Matrix<double>(2 * x * layer.half.transpose()); }
};

TEST_CASE_TEMPLATE("a slice is a linear layer of those rows", T, float, double) {
  const Matrix<T> x = ramp<T>(3, in, 1);
  const Matrix<T> wanted = (x * ramp<T>(out, in, 2).transpose()).rowwise() + ramp<T>(1, out, 3).row(0);
  const auto check = [&](auto layer) {
    Slice<decltype(layer)> slice(layer, 2, 4);
    const auto facts = graft::detail::facts_of(slice);
    CHECK(facts.in == in);
    CHECK(facts.out == 4);
    CHECK(facts.has_bias);
    CHECK(Matrix<T>(Traits<decltype(layer)>::weight(std::as_const(slice))) == ramp<T>(out, in, 2).middleRows(2, 4));
    CHECK(product<T>(slice, x) == wanted.middleCols(2, 4));  // exact: ramps are small multiples of 1/8
    const auto base = graft::detail::base_weight_of(std::as_const(slice));
    CHECK(base.shape() == graft::Shape{4, in});
    CHECK(base.data() == layer.weight.data() + 2 * in);
    const auto version = base.version();
    CHECK(version.has_value());
    CHECK(graft::detail::base_tensors(slice).size() == 2);
    CHECK(base.version() == version);  // looking is no write
    Traits<decltype(layer)>::weight(slice)(3, 4) = T(40);
    CHECK(base.version() != version);
    CHECK(layer.weight.view()(5, 4) == T(40));
  };
  check(whole<T>());
  check(whole<T, graft::dense, graft::EigenProduct>());
}

TEST_CASE("layers of other shapes have slices too") {
  const Matrix<double> x = ramp<double>(3, in, 1), wanted = x * ramp<double>(out, in, 2).transpose();
  Turned turned;
  Slice<Turned> slice(turned, 3, 2);
  CHECK(product<double>(slice, x) == wanted.middleCols(3, 2));
  const auto tensors = graft::detail::base_tensors(slice);
  REQUIRE(tensors.size() == 1);
  CHECK(tensors[0].shape == graft::Shape{in, 2});  // as it is stored
  const graft::TensorView view = tensors[0].read();
  CHECK(graft::element_as<double>(view.dtype, view.data, 1) == turned.kernel(0, 4));
  const Matrix<double> other = ramp<double>(in, 2, 7);
  tensors[0].write({graft::Dtype::f64, {in, 2}, reinterpret_cast<const std::byte*>(other.data()), nullptr}, false);
  CHECK(Matrix<double>(turned.kernel.middleCols(3, 2)) == other);

  Computed computed;
  Slice<Computed> of_computed(computed, 3, 2);
  CHECK(product<double>(of_computed, x) == wanted.middleCols(3, 2));
  CHECK(Matrix<double>(Traits<Computed>::weight(std::as_const(of_computed))) == ramp<double>(out, in, 2).middleRows(3, 2));
  CHECK_FALSE(graft::detail::base_tensors(of_computed)[0].write);
  CHECK_FALSE(graft::detail::LayerDoor<Slice<Computed>>(of_computed).is_writable());
}

TEST_CASE("a copy is of the whole layer, and sees the same rows of it") {
  auto layer = whole<float>();
  const Slice<graft::Linear<>> slice(layer, 2, 4);
  Slice<graft::Linear<>> copy = slice;
  Traits<graft::Linear<>>::weight(copy)(0, 0) = 40;
  CHECK(layer.weight.view()(2, 0) == ramp<float>(out, in, 2)(2, 0));
  CHECK(copy.whole().weight.view()(2, 0) == 40);
  Slice<graft::Linear<>> moved = std::move(copy);
  CHECK(Traits<graft::Linear<>>::weight(std::as_const(moved))(0, 0) == 40);
  moved.refer_to(layer, 0, 2);
  CHECK(&moved.whole() == &layer);
  CHECK(Traits<graft::Linear<>>::out_features(moved) == 2);
}

TEST_CASE("borrowed memory is not written to, nor copied by looking") {
  const Matrix<float> lent = ramp<float>(out, in, 2);
  graft::Linear<float, graft::mapped> layer(in, out, false);
  layer.weight.bind(lent.data());
  Slice<graft::Linear<float, graft::mapped>> slice(layer, 2, 4);
  auto tensors = graft::detail::base_tensors(slice);
  REQUIRE(tensors.size() == 1);
  CHECK(tensors[0].storage == lent.data() + 2 * in);
  CHECK(layer.weight.data() == lent.data());
  const Matrix<float> other = ramp<float>(4, in, 7);
  tensors[0].write({graft::Dtype::f32, {4, in}, reinterpret_cast<const std::byte*>(other.data()), nullptr}, false);
  CHECK(lent == ramp<float>(out, in, 2));
  CHECK(Matrix<float>(layer.weight.view().middleRows(2, 4)) == other);
  CHECK(Matrix<float>(layer.weight.view().topRows(2)) == lent.topRows(2));

  layer.weight.bind(lent.data());
  graft::detail::LayerDoor<Slice<graft::Linear<float, graft::mapped>>> door(slice);
  float* const rows = door.data();
  REQUIRE(rows);
  rows[0] = 40;
  CHECK(lent(2, 0) == ramp<float>(out, in, 2)(2, 0));
  CHECK(layer.weight.view()(2, 0) == 40);
}

TEST_CASE("a placeholder has memory once a slice is written") {
  graft::Linear<float, graft::lazy> layer(in, out, false);
  Slice<graft::Linear<float, graft::lazy>> slice(layer, 2, 4);
  const auto tensors = graft::detail::base_tensors(slice);
  CHECK(tensors[0].read().device() == graft::Device::meta);
  CHECK(tensors[0].storage == nullptr);
  CHECK(layer.weight.is_meta());
  const Matrix<float> other = ramp<float>(4, in, 7);
  tensors[0].write({graft::Dtype::f32, {4, in}, reinterpret_cast<const std::byte*>(other.data()), nullptr}, false);
  CHECK(Matrix<float>(layer.weight.view().middleRows(2, 4)) == other);
}

TEST_CASE_TEMPLATE("it starts with the values of a layer by itself", T, float, double, graft::bf16) {
  graft::Linear<T> alone(in, 4), layer(in, out);
  graft::detail::initialise_layer(alone, "site", 5);
  Slice<graft::Linear<T>> slice(layer, 2, 4);
  graft::detail::initialise_layer(slice, "site", 5);
  REQUIRE(float(alone.weight.view()(1, 1)) != 0);
  const auto bits = [](const auto& rows) {
    std::string all;
    for (Index i = 0; i < rows.rows(); ++i)
      for (Index c = 0; c < rows.cols(); ++c) all += std::to_string(double(float(rows(i, c)))) + ' ';
    return all;
  };
  CHECK(bits(Traits<graft::Linear<T>>::weight(std::as_const(slice))) == bits(alone.weight.view()));
  CHECK(bits(layer.bias.view().middleCols(2, 4)) == bits(alone.bias.view()));
  CHECK(float(layer.weight.view()(0, 0)) == 0);
}
