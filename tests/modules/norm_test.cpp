#include <doctest/doctest.h>

#include <graft/modules/norm.hpp>

#include "support/ramp.hpp"

using graft::LayerNorm;
using graft::Matrix;
using graft::RMSNorm;
using support::close;
using support::ramp;

namespace {
// x = ramp(3, 4, salt=5); w = 1 + ramp(4, salt=6) / 4; b = ramp(4, salt=7)
// F.rms_norm(x, (4,), w, 1e-6), then with eps 0.5
const std::vector<double> rms{-0.3930692608, -1.687321705, 0.3307534024,  -1.064163121, 1.523751922, -0.1486587241,
                              -1.06848458,   0.6875465991, -0.9369421521, 1.316289462,  0,           -1.521959691};
const std::vector<double> rms_half{-0.2968832788, -1.274425782, 0.2498164175,  -0.8037571693, 1.166204254, -0.1137760248,
                                   -0.8177651782, 0.5262141147, -0.7219025926, 1.014185106,   0,           -1.172651528};
// F.layer_norm(x, (4,), w, b, 1e-5), then without b
const std::vector<double> layer_norm{0.1227779936,  0.01521621263, 1.227344597,  -1.324214287, 1.102145746,  1.189049316,
                                     -0.8459468438, -0.2299835649, -1.089747942, 2.899795609,  0.3836520541, -2.208033966};
const std::vector<double> without_bias{0.4977779936, -1.359783787, 0.9773445972,  -0.4492142869, 1.477145746,  -0.185950684,
                                       -1.095946844, 0.6450164351, -0.7147479416, 1.524795609,   0.1336520541, -1.333033966};
// F.rms_norm(ramp(3, 8, salt=8).reshape(3, 2, 4), (4,), w, 1e-6)
const std::vector<double> by_head{1.523751922,  -0.1486587241, -1.06848458,   0.6875465991,  -0.9369421521, 1.316289462,
                                  0,            -1.521959691,  1.075200146,   -0.6713444815, 1.206322115,   0.1940605142,
                                  -1.351729218, 0.7912561277,  -0.2843576709, 1.677298146,   0.4977834034,  -1.359798565,
                                  0.9773552188, -0.4492191689, -1.858627675,  0.3956280639,  -0.5687153418, 1.219853197};

template <class Norm>
Norm filled(Norm norm) {
  using T = typename decltype(norm.weight)::scalar;
  const Matrix<T> weight = (ramp<T>(1, 4, 6).array() / 4 + 1).matrix();
  norm.weight.view() = weight;
  if constexpr (requires { norm.bias; })
    if (norm.bias.size()) norm.bias.view() = ramp<T>(1, 4, 7);
  return norm;
}
const Matrix<> x = ramp(3, 4, 5);
}  // namespace

TEST_CASE("RMSNorm is torch's") {
  CHECK(close(filled(RMSNorm<>(4))(x), rms, 1e-6));
  CHECK(close(filled(RMSNorm<>(4, 0.5))(x), rms_half, 1e-6));
  CHECK(close(filled(RMSNorm<double>(4))(ramp<double>(3, 4, 5)), rms, 1e-9));
}

TEST_CASE("LayerNorm is torch's, with and without bias") {
  CHECK(close(filled(LayerNorm<>(4))(x), layer_norm, 1e-6));
  CHECK(close(filled(LayerNorm<>(4, 1e-5, false))(x), without_bias, 1e-6));
  CHECK(close(filled(LayerNorm<double>(4))(ramp<double>(3, 4, 5)), layer_norm, 1e-9));
}

TEST_CASE("norms start at the identity") {
  CHECK(RMSNorm<>(7).weight.view().isOnes(0));
  CHECK(LayerNorm<>(7).weight.view().isOnes(0));
  CHECK(LayerNorm<>(7).bias.view().isZero(0));
  CHECK((RMSNorm<float, graft::lazy>(7)).weight.is_meta());
}

TEST_CASE("a norm of head_dim features normalises every head by itself") {
  CHECK(close(filled(RMSNorm<>(4))(ramp(3, 8, 8)), by_head, 1e-6));
  CHECK_THROWS_AS((void)RMSNorm<>(4)(ramp(3, 6)), graft::ShapeError);
  CHECK_THROWS_AS((void)LayerNorm<>(4)(ramp(3, 3)), graft::ShapeError);
}

TEST_CASE("rows of a batch and tensors with features last") {
  graft::Batch batch;
  batch.add(3);
  CHECK(close(filled(RMSNorm<>(4))(batch.input(x)).value(), rms, 1e-6));
  Eigen::Tensor<float, 3, Eigen::RowMajor> tensor(3, 1, 4);
  support::fill_ramp(tensor, 5);
  const auto y = filled(LayerNorm<>(4))(tensor);
  CHECK(y.dimension(1) == 1);
  CHECK(close(Eigen::Map<const Matrix<>>(y.data(), 3, 4), layer_norm, 1e-6));
}
