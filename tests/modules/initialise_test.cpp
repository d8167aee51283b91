#include <doctest/doctest.h>

#include <cmath>
#include <graft/adapters/adapted.hpp>
#include <graft/modules/conv.hpp>
#include <graft/modules/initialise.hpp>
#include <graft/modules/norm.hpp>

#include "support/ramp.hpp"

using graft::Index;
using graft::Matrix;

namespace {
/// A layer of somebody's, in Eigen's own layout.
struct Dense {
  Eigen::MatrixXf weight = Eigen::MatrixXf::Zero(40, 25);
  Eigen::VectorXf bias = Eigen::VectorXf::Zero(40);
};

struct Model {
  graft::Embedding<> embedding{50, 30, graft::EmbeddingOptions{.padding_idx = 3}};
  graft::Linear<> linear{25, 40};
  graft::Adaptable<graft::Linear<>> site{25, 40, false};
  graft::Conv2d<> conv{6, 40, {.kernel = {3, 5}, .groups = 2}};
  Dense dense;
  graft::LayerNorm<> norm{7};
  GRAFT_MODULE(embedding, linear, site, conv, dense, norm)
};
struct Smaller {
  graft::Linear<double> linear{25, 40};
  GRAFT_MODULE(linear)
};

template <class Values>
double largest(const Values& values) {
  return double(values.cwiseAbs().maxCoeff());
}
/// The mean square of a uniform distribution on ±bound is bound²/3; its standard error 0.9 bound²/(3 √n).
template <class Values>
bool is_uniform(const Values& values, double bound) {
  const double mean_square = values.template cast<double>().squaredNorm() / double(values.size());
  const double error = 3.5 * 0.9 / std::sqrt(double(values.size()));
  return largest(values) <= bound && std::abs(mean_square / (bound * bound / 3) - 1) < error;
}

Model model_of(std::uint64_t seed) {
  Model model;
  graft::initialise(model, seed);
  return model;
}
}  // namespace

template <>
struct graft::layer_traits<Dense> {
  static constexpr LayerKind kind = LayerKind::linear;
  using scalar = float;
  static Index in_features(const Dense& layer) { return layer.weight.cols(); }
  static Index out_features(const Dense& layer) { return layer.weight.rows(); }
  static auto& weight(auto& layer) { return layer.weight; }
  static auto& bias(auto& layer) { return layer.bias; }
  static Matrix<> forward(const Dense& layer, const auto& x) { return x * layer.weight.transpose(); }
};

TEST_CASE("weights and biases are uniform in ±1/sqrt(fan_in), as torch's") {
  const Model model = model_of(1);
  CHECK(is_uniform(model.linear.weight.view(), 0.2));
  CHECK(is_uniform(model.linear.bias.view(), 0.2));
  CHECK(is_uniform(model.site->weight.view(), 0.2));
  CHECK(is_uniform(model.conv.weight.view(), 1 / std::sqrt(3.0 * 15)));
  CHECK(is_uniform(model.conv.bias.view(), 1 / std::sqrt(3.0 * 15)));
  CHECK(is_uniform(model.dense.weight, 0.2));
  CHECK(is_uniform(model.dense.bias, 0.2));
}

TEST_CASE("embeddings are standard normal with a zero padding row; norms are the identity") {
  const Model model = model_of(1);
  const auto weight = model.embedding.weight.view();
  CHECK(weight.row(3).isZero(0));
  CHECK_FALSE(weight.row(2).isZero(0));
  const double mean_square = weight.cast<double>().squaredNorm() / (49.0 * 30);
  CHECK(std::abs(mean_square - 1) < 3.5 * std::sqrt(2 / (49.0 * 30)));
  CHECK(largest(weight) > 2);
  CHECK(model.norm.weight.view().isOnes(0));
  CHECK(model.norm.bias.view().isZero(0));
}

TEST_CASE("values depend on the seed and the path, not on what else there is") {
  const Model model = model_of(1);
  Smaller smaller;
  graft::initialise(smaller, 1);
  CHECK(smaller.linear.weight.view().cast<float>() == model.linear.weight.view());
  CHECK(smaller.linear.bias.view().cast<float>() == model.linear.bias.view());
  CHECK(model_of(1).site->weight.view() == model.site->weight.view());
  CHECK(model_of(2).site->weight.view() != model.site->weight.view());
  CHECK(model.site->weight.view() != model.linear.weight.view());
}

TEST_CASE("a lazy layer gets memory, with the same values") {
  graft::Linear<float, graft::lazy> lazy(25, 40);
  REQUIRE(lazy.weight.is_meta());
  graft::detail::initialise_layer(lazy, "linear", 1);
  CHECK(lazy.weight.view() == model_of(1).linear.weight.view());
}
