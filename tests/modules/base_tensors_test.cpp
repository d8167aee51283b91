#include <doctest/doctest.h>

#include <graft/modules/base_tensors.hpp>
#include <graft/modules/conv.hpp>
#include <graft/modules/linear.hpp>
#include <graft/modules/norm.hpp>

#include "support/ramp.hpp"

using graft::Dtype;
using graft::Index;
using graft::Matrix;
using graft::Shape;
using graft::TensorView;
using graft::detail::BaseTensor;
using support::ramp;

namespace {
/// Stores (in, out), column-major, and its bias in a map.
struct Stored {
  Eigen::MatrixXf stored = ramp(5, 7, 2);
  std::vector<float> memory = std::vector<float>{1, 2, 3, 4, 5, 6, 7};
};
struct Block {
  graft::Linear<> q{5, 7, false};
  graft::LayerNorm<double> norm{3};
  Eigen::MatrixXf table = ramp(2, 3, 4);  // column-major
  Eigen::Vector3d scale{1, 2, 3};
  Stored proj;
  GRAFT_MODULE(q, norm, table, scale, proj)
};
/// A convolution of (2, 1, 3): its weight is a matrix to the traits.
struct Kernel {
  Matrix<> weight = ramp(2, 3, 6);
};

/// Weight and bias in one matrix, (out, in + 1), rows first: neither lies in memory by itself.
struct Fused {
  Matrix<> both = ramp(7, 6, 2);
};
/// A weight that is a tensor, and no bias now: the pointer is null.
struct Tensorial {
  Eigen::Tensor<float, 3, Eigen::RowMajor> weight{2, 3, 5};
  Eigen::VectorXf* bias = nullptr;
};
/// Shows its weight to readers, and a copy of its bias. One output: a row vector to Eigen.
struct Shown {
  Eigen::RowVectorXf weight = ramp(1, 5, 2);
};
struct Frozen {
  const graft::Linear<> layer{5, 7, false};
  Matrix<> memory = ramp(2, 6, 3);
  Eigen::Map<Matrix<>, 0, Eigen::OuterStride<>> part{memory.data() + 1, 2, 3, Eigen::OuterStride<>(6)};
  Eigen::Map<const Eigen::VectorXf> seen{memory.data(), 4};
  GRAFT_MODULE(layer, part, seen)
};

std::vector<std::string> keys(const std::vector<BaseTensor>& tensors) {
  std::vector<std::string> all;
  for (const BaseTensor& tensor : tensors) all.push_back(tensor.key);
  return all;
}
std::vector<double> values(const TensorView& view) {
  std::vector<double> all;
  for (Index i = 0; i < view.size(); ++i) all.push_back(graft::element_as<double>(view.dtype, view.data, std::size_t(i)));
  return all;
}
std::vector<double> listed(const Matrix<>& m) { return {m.data(), m.data() + m.size()}; }
}  // namespace

template <>
struct graft::layer_traits<Stored> {
  static constexpr LayerKind kind = LayerKind::linear;
  static constexpr bool transposed = true;
  using scalar = float;
  static Index in_features(const Stored&) { return 5; }
  static Index out_features(const Stored&) { return 7; }
  static auto weight(auto& layer) { return layer.stored.transpose(); }
  static auto bias(auto& layer) { return Eigen::Map<Eigen::VectorXf>(const_cast<float*>(layer.memory.data()), 7); }
};
template <>
struct graft::layer_traits<Kernel> {
  static constexpr LayerKind kind = LayerKind::conv;
  using scalar = float;
  static ConvShape conv_shape(const Kernel&) { return {.in = 1, .out = 2, .kernel = 3}; }
  static auto& weight(auto& layer) { return layer.weight; }
};

template <>
struct graft::layer_traits<Fused> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = float;
  static Index in_features(const Fused&) { return 5; }
  static Index out_features(const Fused&) { return 7; }
  static auto weight(auto& layer) { return layer.both.leftCols(5); }
  static auto bias(auto& layer) { return layer.both.col(5); }
};
template <>
struct graft::layer_traits<Tensorial> {
  static constexpr LayerKind kind = LayerKind::conv;
  using scalar = float;
  static ConvShape conv_shape(const Tensorial&) { return {.in = 3, .out = 2, .kernel = 5}; }
  static auto& weight(auto& layer) { return layer.weight; }
  static auto* bias(auto& layer) { return layer.bias; }
};
template <>
struct graft::layer_traits<Shown> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = float;
  static Index in_features(const Shown&) { return 5; }
  static Index out_features(const Shown&) { return 1; }
  static const auto& weight(const Shown& layer) { return layer.weight; }
  static Eigen::VectorXf bias(const Shown&) { return Eigen::VectorXf::Constant(1, 3); }
};

TEST_CASE("views that do not lie in memory in one piece are read and written") {
  Fused fused;
  const auto tensors = graft::detail::base_tensors(fused);
  CHECK(keys(tensors) == std::vector<std::string>{"weight", "bias"});
  CHECK(values(tensors[0].read()) == listed(ramp(7, 6, 2).leftCols(5)));
  CHECK(values(tensors[1].read()) == listed(ramp(7, 6, 2).col(5)));
  const Matrix<> bias = ramp(1, 7, 9);
  tensors[1].write({Dtype::f32, {7}, reinterpret_cast<const std::byte*>(bias.data()), nullptr}, false);
  CHECK(fused.both.col(5).transpose() == bias);
  CHECK(fused.both.leftCols(5) == ramp(7, 6, 2).leftCols(5));
}

TEST_CASE("a tensor is a weight") {
  Tensorial layer;
  support::fill_ramp(layer.weight, 4);
  auto tensors = graft::detail::base_tensors(layer);
  REQUIRE(tensors.size() == 1);  // a null bias is none
  CHECK(tensors[0].shape == Shape{2, 3, 5});
  CHECK(values(tensors[0].read()) == listed(ramp(2, 15, 4)));
  const Matrix<> other = ramp(2, 15, 5);
  tensors[0].write({Dtype::f32, {2, 3, 5}, reinterpret_cast<const std::byte*>(other.data()), nullptr}, false);
  CHECK(layer.weight(1, 2, 4) == other(1, 14));
  Eigen::VectorXf bias = ramp(1, 2, 6).transpose();
  layer.bias = &bias;
  tensors = graft::detail::base_tensors(layer);
  CHECK(values(tensors.at(1).read()) == listed(ramp(1, 2, 6)));
}

TEST_CASE("what a layer only shows cannot be written, and its sizes give the shape") {
  Shown shown;
  const auto tensors = graft::detail::base_tensors(shown);
  REQUIRE(tensors.size() == 2);
  CHECK(tensors[0].shape == Shape{1, 5});
  CHECK(values(tensors[0].read()) == listed(ramp(1, 5, 2)));
  CHECK(values(tensors[1].read()) == std::vector<double>{3});
  CHECK_FALSE(tensors[0].write);
  CHECK_FALSE(tensors[1].write);
}

TEST_CASE("const members are read, maps with strides too") {
  Frozen frozen;
  const auto tensors = graft::detail::base_tensors(frozen);
  CHECK(keys(tensors) == std::vector<std::string>{"layer.weight", "part", "seen"});
  CHECK_FALSE(tensors[0].write);
  CHECK(tensors[0].shape == Shape{7, 5});
  CHECK(values(tensors[1].read()) == listed(ramp(2, 6, 3).middleCols(1, 3)));
  CHECK(tensors[1].write);
  CHECK(values(tensors[2].read()) == listed(ramp(2, 6, 3).row(0).head(4)));
  CHECK_FALSE(tensors[2].write);
}

TEST_CASE("tensors stand in the order of the description; an absent bias is none") {
  Block block;
  const auto tensors = graft::detail::base_tensors(block);
  CHECK(keys(tensors) ==
        std::vector<std::string>{"q.weight", "norm.weight", "norm.bias", "table", "scale", "proj.weight", "proj.bias"});
  CHECK(tensors[0].shape == Shape{7, 5});
  CHECK(tensors[1].dtype == Dtype::f64);
  CHECK(tensors[3].shape == Shape{2, 3});
  CHECK(tensors[4].shape == Shape{3});
  CHECK(tensors[4].dtype == Dtype::f64);
}

TEST_CASE("whatever the layout, a tensor is read row by row") {
  Block block;
  const auto tensors = graft::detail::base_tensors(block);
  CHECK(values(tensors[3].read()) == listed(ramp(2, 3, 4)));
  CHECK(values(tensors[4].read()) == std::vector<double>{1, 2, 3});
}

TEST_CASE("a transposed layer's tensor is the stored one") {
  Block block;
  const auto tensors = graft::detail::base_tensors(block);
  CHECK(tensors[5].shape == Shape{5, 7});
  CHECK(values(tensors[5].read()) == listed(ramp(5, 7, 2)));
  CHECK(tensors[6].shape == Shape{7});
  CHECK(values(tensors[6].read()) == std::vector<double>{1, 2, 3, 4, 5, 6, 7});
}

TEST_CASE("what is written arrives, converted") {
  Block block;
  const auto tensors = graft::detail::base_tensors(block);
  const auto write = [&](std::size_t i, const Matrix<double>& m) {
    tensors[i].write({Dtype::f64, tensors[i].shape.to_vector(), reinterpret_cast<const std::byte*>(m.data()), nullptr}, true);
  };
  write(0, ramp<double>(7, 5, 8));
  CHECK(block.q.weight.view() == ramp(7, 5, 8));
  write(3, ramp<double>(2, 3, 9));
  CHECK(block.table == ramp(2, 3, 9));
  write(5, ramp<double>(5, 7, 10));
  CHECK(block.proj.stored == ramp(5, 7, 10));
  write(6, ramp<double>(1, 7, 11));
  CHECK(block.proj.memory[6] == ramp(1, 7, 11)(6));
}

TEST_CASE("a mapped parameter keeps a tensor that has an owner, a dense one copies") {
  graft::Linear<float, graft::mapped> mapped(5, 7, false);
  graft::Linear<> dense(5, 7, false);
  const auto owner = std::make_shared<Matrix<>>(ramp(7, 5, 2));
  const TensorView view{Dtype::f32, {7, 5}, reinterpret_cast<const std::byte*>(owner->data()), owner};
  graft::detail::base_tensors(mapped).front().write(view, false);
  graft::detail::base_tensors(dense).front().write(view, true);
  CHECK(mapped.weight.data() == owner->data());
  CHECK(dense.weight.data() != owner->data());
  CHECK(dense.weight.view() == *owner);
}

TEST_CASE("a layer on meta has a tensor without bytes") {
  graft::Linear<float, graft::lazy> lazy(5, 7);
  const auto tensors = graft::detail::base_tensors(lazy);
  CHECK(tensors.size() == 2);
  CHECK(tensors[0].read().device() == graft::Device::meta);
}

TEST_CASE("a convolution's weight has its kernel's axes") {
  Kernel kernel;
  const auto tensors = graft::detail::base_tensors(kernel);
  REQUIRE(tensors.size() == 1);
  CHECK(tensors[0].shape == Shape{2, 1, 3});
  CHECK(values(tensors[0].read()) == listed(ramp(2, 3, 6)));
  graft::Conv2d<> ready(4, 6, {.kernel = {3, 2}, .groups = 2});
  CHECK(graft::detail::base_tensors(ready)[0].shape == Shape{6, 2, 3, 2});
}
